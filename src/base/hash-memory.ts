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
import { InterruptedError } from "./errors.ts";
import { makeFolder } from "./files.ts";
import { readUserBlocks } from "./user-files.ts";

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

export interface HashSettings {
  /** Hears of bytes that were read; what is remembered is not. */
  onBytes?: ((bytes: number) => void) | undefined;
  signal?: AbortSignal | undefined;
  /** Read the file in any case. */
  afresh?: boolean;
}

/** SHA-256 of a file as lower-case hex, computed where it is not known already. */
export async function rememberedHash(path: string, { onBytes, signal, afresh }: HashSettings = {}): Promise<string> {
  return remembered(path, "sha256", afresh === true ? () => false : () => true, async () => {
    const hash = createHash("sha256");
    for await (const block of readUserBlocks(path, `"${path}"`, 4 << 20)) {
      if (signal?.aborted === true) throw new InterruptedError("Interrupted");
      hash.update(block);
      onBytes?.(block.length);
    }
    return hash.digest("hex");
  });
}

/**
 * Runs a check of a file, which throws for a bad one, unless this file has passed the same check before.
 * @param what says all that the check depends on beside the file
 */
export async function passOnce(path: string, what: string, check: () => Promise<void>): Promise<void> {
  const wanted = createHash("sha256").update(what).digest("hex");
  const isSame = (passed: string): boolean => passed === wanted;
  await remembered(path, "passed", isSame, async () => {
    await check();
    return wanted;
  });
}

/** What is known of a file that has not changed since, if it will do; otherwise what is found now. */
async function remembered(
  path: string,
  kind: "sha256" | "passed",
  willDo: (value: string) => boolean,
  find: () => Promise<string>,
): Promise<string> {
  const real = await realpath(path);
  const state = await stateOf(real);
  if ((await stat(real)).size < smallestRemembered) return find();
  const known = (await readMemory()).get(`${kind} ${real}`);
  if (known?.state === state && willDo(known.value)) return known.value;
  const value = await find();
  if ((await stateOf(real)) === state && !(await isFresh(real))) {
    await remember(kind === "sha256" ? { path: real, state, sha256: value } : { path: real, state, passed: value });
  }
  return value;
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

async function remember(entry: Entry): Promise<void> {
  const file = memoryFile();
  try {
    await makeFolder(dirname(file), { what: "Cannot remember hashes", mode: 0o700 });
    if (((await stat(file).catch(() => undefined))?.size ?? 0) > largestMemory) await rm(file);
    await appendFile(file, `${JSON.stringify(entry)}\n`, { mode: 0o600 });
  } catch {
    // The next start reads the file again.
  }
}
