/** `--profile`: the work is recorded, and reported when all its sessions are closed. */
import process from "node:process";
import { UsageError } from "../../base/errors.ts";
import { writeFileAtomically } from "../../base/files.ts";
import { formatProfile, type Profile, profileRecord } from "../../report/profile-report.ts";
import { Recording } from "../../runtime/session/recording.ts";
import { requireWritable } from "../console/output-file.ts";
import type { Terminal } from "../console/terminal.ts";
import { type Flags, group, option } from "./declared-option.ts";

export const profileOptions = group(
  "What it prints:",
  option(
    "--profile [file]",
    "tell on stderr, or in a JSON file, where time goes: operators, CPU fallbacks, copies, transfers",
  ).conflicts("devices"),
);

/** What the work knows of itself. */
export type ProfiledWork = Pick<Profile, "command" | "device" | "seconds">;

/** Does the work; it must have released its sessions when it ends. */
export async function withProfile(
  { profile: wanted }: Flags<typeof profileOptions>,
  terminal: Terminal,
  work: (recording?: Recording) => Promise<ProfiledWork>,
): Promise<void> {
  if (wanted === undefined) {
    await work();
    return;
  }
  const file = wanted === true ? undefined : wanted;
  if (file !== undefined) {
    await requireWritable(file, "--profile takes the word after it as FILE: put MODEL before it");
  } else if (terminal.quiet) {
    throw new UsageError("--profile writes to stderr, which --quiet silences", { hint: "name a file: --profile FILE" });
  }
  const recording = await Recording.begin();
  try {
    const done = await work(recording);
    const blocking = done.device.startsWith("cuda") && process.env.CUDA_LAUNCH_BLOCKING === "1";
    const profile: Profile = { ...done, blocking, sessions: await recording.read() };
    if (file === undefined) {
      terminal.note(`\n${formatProfile(profile)}`);
    } else {
      await writeFileAtomically(file, `${JSON.stringify(profileRecord(profile), null, 2)}\n`);
      terminal.note(`profile: ${file}`);
    }
  } finally {
    await recording.remove();
  }
}
