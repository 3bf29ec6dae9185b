/**
 * The one place where files that a user names, or that lie in a folder of the user's, are opened for reading. Only
 * regular files are: a pipe or a device could hang the program or never end. Links are followed.
 */
import { createHash } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { type FileHandle, lstat, open, stat } from "node:fs/promises";
import { InputError } from "./errors.ts";
import { describeSystemError, systemErrorCode } from "./files.ts";

/** Bytes of a file that is read whole; data sets, weights and journals are streamed and know no such limit. */
export const LARGEST_WHOLE_FILE = 256 * 2 ** 20;

export interface ReadingDetails {
  /** What cannot be done with the file, "read" by default. */
  verb?: string;
  /** What to do then. */
  hint?: string | undefined;
}

/**
 * Runs an operation on a file.
 * @param noun what the file is, for messages: `essays "a.txt"`
 * @throws InputError where the system refuses
 */
export async function attemptRead<T>(
  noun: string,
  operation: () => Promise<T>,
  details: ReadingDetails = {},
): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    throw explained(error, noun, details);
  }
}

/** What the system refuses as a refusal; any other error as it is. */
function explained(error: unknown, noun: string, details: ReadingDetails): unknown {
  const code = systemErrorCode(error);
  if (code === undefined || code.startsWith("E_")) return error;
  return refusal(noun, describeSystemError(code), details, error);
}

/** Is there a file or folder of this name? Of what cannot be looked at, whoever reads it says why. */
export async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

/**
 * Looks at a path without opening it.
 * @throws InputError unless it leads to a regular file
 */
export async function requireRegularFile(path: string, noun: string, details: ReadingDetails = {}): Promise<Stats> {
  const found = await attemptRead(noun, () => stat(path), details);
  requireRegular(found, noun, details);
  return found;
}

/**
 * Opens a regular file for reading; never waits for the other end of a pipe.
 * @throws InputError for anything else, and where the system refuses
 */
export async function openUserFile(path: string, noun: string, details: ReadingDetails = {}): Promise<FileHandle> {
  // Opening a device can have effects of its own, so that it is looked at before; and after, as it may have changed.
  await requireRegularFile(path, noun, details);
  // Windows has no such flag, and no pipes among its files.
  const flags = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);
  const file = await attemptRead(noun, () => open(path, flags), details);
  try {
    requireRegular(await file.stat(), noun, details);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/**
 * The bytes of a regular file.
 * @param details.limit bytes above which it is refused
 */
export async function readUserFile(
  path: string,
  noun: string,
  { limit = LARGEST_WHOLE_FILE, ...details }: ReadingDetails & { limit?: number } = {},
): Promise<Buffer> {
  const file = await openUserFile(path, noun, details);
  try {
    const { size } = await file.stat();
    if (size > limit) throw refusal(noun, tooLarge(size, limit), details);
    const content = await attemptRead(noun, () => file.readFile(), details);
    // Files of /proc say that they are empty.
    if (content.length > limit) throw refusal(noun, tooLarge(content.length, limit), details);
    return content;
  } finally {
    await file.close();
  }
}

/** As `readUserFile`; undefined where there is no such file. */
export async function readUserFileIfPresent(
  path: string,
  noun: string,
  details: ReadingDetails & { limit?: number } = {},
): Promise<Buffer | undefined> {
  if (!(await isPresent(path, noun))) return undefined;
  return readUserFile(path, noun, details);
}

/** The blocks of a regular file, in order. */
export async function* readUserBlocks(path: string, noun: string, blockBytes = 1 << 18): AsyncGenerator<Buffer> {
  const file = await openUserFile(path, noun);
  try {
    const stream = file.createReadStream({ highWaterMark: blockBytes, autoClose: false });
    yield* stream as AsyncIterable<Buffer>;
  } catch (error) {
    throw explained(error, noun, {});
  } finally {
    await file.close();
  }
}

/** SHA-256 of a file as lower-case hex, streamed. */
export async function hashFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const block of readUserBlocks(path, `"${path}"`, 1 << 20)) hash.update(block);
  return hash.digest("hex");
}

/** Is there anything at that path? A link that leads nowhere counts: it is reported when it is read. */
async function isPresent(path: string, noun: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === "ENOENT" || code === "ENOTDIR") return false;
    if (code === undefined) throw error;
    throw refusal(noun, describeSystemError(code), {}, error);
  }
}

function requireRegular(found: Stats, noun: string, details: ReadingDetails): void {
  if (found.isFile()) return;
  const kind = describeKind(found);
  const hint =
    details.hint ?? (found.isDirectory() ? undefined : "only regular files are read: write the data to one first");
  throw refusal(noun, `it is ${kind}`, { ...details, hint });
}

function describeKind(found: Stats): string {
  if (found.isDirectory()) return "a folder";
  if (found.isFIFO()) return "a pipe, not a file";
  if (found.isSocket()) return "a socket, not a file";
  return found.isCharacterDevice() || found.isBlockDevice() ? "a device, not a file" : "not a regular file";
}

function tooLarge(size: number, limit: number): string {
  const megabytes = (bytes: number): string => Math.round(bytes / 2 ** 20).toLocaleString("en-US");
  return `it has ${megabytes(size)} MiB, and no such file has more than ${megabytes(limit)}`;
}

function refusal(noun: string, reason: string, { verb = "read", hint }: ReadingDetails, cause?: unknown): InputError {
  return new InputError(`Cannot ${verb} ${noun}: ${reason}`, { hint, cause });
}
