/** What `--profile` measures: the profile and the traffic of every session that is opened while it is on. */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { RuntimeFailure } from "../../base/errors.ts";
import { makeTemporaryFolder } from "../../base/files.ts";
import { readProfile, type SessionProfile } from "./profile.ts";
import { noTraffic, type Traffic, trafficSince } from "./traffic.ts";

export interface RecordedSession {
  /** Name of the stage or graph. */
  name: string;
  /** Without the warm-up, like the profile. */
  traffic: Traffic;
  profile: SessionProfile;
  /** ONNX Runtime stops writing at a limit of events: the profile then lacks the last runs, the traffic does not. */
  complete: boolean;
}

interface Session {
  name: string;
  traffic: Traffic;
  /** What of it was warm-up. */
  warm: Traffic;
}

export class Recording {
  readonly #folder: string;
  readonly #sessions: Session[] = [];

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async begin(): Promise<Recording> {
    return new Recording(await makeTemporaryFolder("profile"));
  }

  /** Takes up a session and its counter; returns the prefix of the file that its profile goes to. */
  add(name: string, traffic: Traffic): string {
    this.#sessions.push({ name, traffic, warm: noTraffic() });
    return this.#prefix(this.#sessions.length - 1);
  }

  /** All that has run so far was warm-up. */
  leaveOutWarmUp(): void {
    for (const session of this.#sessions) session.warm = { ...session.traffic };
  }

  /** What was recorded. A profile is written when its session is released, so all of them have to be. */
  async read(): Promise<RecordedSession[]> {
    const files = await readdir(this.#folder);
    const recorded: RecordedSession[] = [];
    for (const [index, { name, traffic: all, warm }] of this.#sessions.entries()) {
      const file = files.map((entry) => join(this.#folder, entry)).find((path) => path.startsWith(this.#prefix(index)));
      if (file === undefined) throw new RuntimeFailure(`ONNX Runtime has written no profile of "${name}"`);
      const profile = await readProfile(file, warm.runs);
      const traffic = trafficSince(warm, all);
      recorded.push({ name, traffic, profile, complete: profile.runs === traffic.runs });
    }
    return recorded;
  }

  async remove(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true });
  }

  #prefix(index: number): string {
    return join(this.#folder, `session-${index}_`);
  }
}
