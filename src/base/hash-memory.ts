/**
 * What was found in files that are too large to read at every start: their SHA-256, and that nothing is wrong with their
 * weights. It is remembered in the user's cache under the file's path, size, inode, and times of change: the time of the
 * last status change cannot be set by hand, so that a file that somebody wrote to is read again. A lost or unwritable
 * memory only costs time.
 */
import { createHash } from "node:crypto";
import { appendFile, readFile, realpath, rm, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { z } from "zod";
import { makeFolder } from "./files.ts";

const digest = z.string().regex(/^[0-9a-f]{64}$/);
const entrySchema = z.union([
  z.object({ path: z.string(), state: z.string(), sha256: digest }),
  z.object({ path: z.string(), state: z.string(), passed: digest }),
]);
type Entry = z.infer<typeof entrySchema>;

/** Bytes below which a file is read each time: that is done before anybody notices. */
export const smallestRemembered = 64 << 20;

/** Beyond it the memory begins anew. */
const largestMemory = 4 << 20;

/** A file that was changed this short a time ago may change again without another time of change. */
const settledMs = 1000;

/** What was found in a file. */
export interface Findings {
  /** As lower-case hex. */
  sha256?: string | undefined;
  /** Says all that a check depends on which the file has passed, beside the file. */
  passed?: string | undefined;
}

/** A file, and what is known of it from earlier if it has not changed since. */
export class KnownFile {
  readonly bytes: number;
  readonly #path: string;
  readonly #state: string;
  readonly #known: { sha256?: string | undefined; passed?: string | undefined };

  private constructor(path: string, bytes: number, state: string, known: { sha256?: string; passed?: string }) {
    this.#path = path;
    this.bytes = bytes;
    this.#state = state;
    this.#known = known;
  }

  /** What is remembered of these files. */
  static async recall(paths: readonly string[]): Promise<KnownFile[]> {
    const memory = await readMemory();
    const files: KnownFile[] = [];
    for (const path of paths) {
      const real = await realpath(path);
      const state = await stateOf(real);
      const recalled = (kind: string) => {
        const entry = memory.get(`${kind} ${real}`);
        return entry?.state === state ? { [kind]: entry.value } : {};
      };
      const known = { ...recalled("sha256"), ...recalled("passed") };
      files.push(new KnownFile(real, (await stat(real)).size, state, known));
    }
    return files;
  }

  get sha256(): string | undefined {
    return this.#isWorthIt ? this.#known.sha256 : undefined;
  }

  hasPassed(what: string): boolean {
    return this.#isWorthIt && this.#known.passed === digestOf(what);
  }

  /** For later starts; nothing where the file has changed since it was recalled. */
  async remember({ sha256, passed }: Findings): Promise<void> {
    if (!this.#isWorthIt || (await stateOf(this.#path)) !== this.#state || (await isFresh(this.#path))) return;
    const place = { path: this.#path, state: this.#state };
    const entries: Entry[] = sha256 === undefined ? [] : [{ ...place, sha256 }];
    if (passed !== undefined) entries.push({ ...place, passed: digestOf(passed) });
    await append(entries);
  }

  get #isWorthIt(): boolean {
    return this.bytes >= smallestRemembered;
  }
}

function digestOf(what: string): string {
  return createHash("sha256").update(what).digest("hex");
}

async function stateOf(path: string): Promise<string> {
  const { size, dev, ino, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
  return [size, dev, ino, mtimeNs, ctimeNs].join(" ");
}

async function isFresh(path: string): Promise<boolean> {
  return Date.now() - (await stat(path)).ctimeMs < settledMs;
}

function memoryFile(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "indexcache", "hashes.jsonl");
}

/** By kind and path; of several lines the last one counts. What is no entry is passed over: the file is only a memory. */
async function readMemory(): Promise<Map<string, { state: string; value: string }>> {
  const text = await readFile(memoryFile(), "utf8").catch(() => "");
  const entries = text.split("\n").flatMap((line) => {
    try {
      const entry = entrySchema.safeParse(JSON.parse(line));
      return entry.success ? [entry.data] : [];
    } catch {
      return [];
    }
  });
  return new Map(
    entries.map((entry) => {
      const [kind, value] = "sha256" in entry ? ["sha256", entry.sha256] : ["passed", entry.passed];
      return [`${kind} ${entry.path}`, { state: entry.state, value }];
    }),
  );
}

/** The last writing: what begins the memory anew must not do so under what is just being written. */
let written: Promise<void> = Promise.resolve();

function append(entries: readonly Entry[]): Promise<void> {
  written = written.then(async () => {
    const file = memoryFile();
    try {
      await makeFolder(dirname(file), { what: "Cannot remember hashes", mode: 0o700 });
      if (((await stat(file).catch(() => undefined))?.size ?? 0) > largestMemory) await rm(file);
      await appendFile(file, entries.map((entry) => `${JSON.stringify(entry)}\n`).join(""), { mode: 0o600 });
    } catch {
      // The next start reads the file again.
    }
  });
  return written;
}
