/** Files that are never half written: temp file beside the target, fsync, rename. */
import { createHash, randomUUID } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { IndexCacheError, InputError, RuntimeFailure } from "./errors.ts";

/** The code of a system error (`ENOSPC`), or undefined for anything else. */
export function systemErrorCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

/**
 * Writes exactly `path`, all or nothing.
 * @throws RuntimeFailure where the file cannot be written (disk full, no permission); the old file is then untouched.
 */
export async function writeFileAtomically(path: string, content: string | Uint8Array): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${randomUUID().slice(0, 8)}.tmp`);
  try {
    const file = await open(temporary, "wx");
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    const code = systemErrorCode(error);
    if (code === undefined) throw error;
    throw new RuntimeFailure(`Cannot write "${path}": ${describeSystemError(code)}`, { cause: error });
  }
}

/** What is wrong with the path that was given; anything else is wrong with the machine. */
const pathErrors = new Set(["ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "EACCES", "EPERM", "EROFS"]);

/**
 * The typed error for a path that the system refuses to write.
 * @param what how the sentence begins: `Cannot write "p.json"`
 * @returns InputError where another path would do, RuntimeFailure where the machine fails (a full disk); `error` itself
 * where it is not the system's, or has been explained already
 */
export function writeFailure(what: string, error: unknown, hint?: string): unknown {
  const code = systemErrorCode(error);
  if (code === undefined || error instanceof IndexCacheError) return error;
  const Failure = pathErrors.has(code) ? InputError : RuntimeFailure;
  return new Failure(`${what}: ${describeSystemError(code)}`, { cause: error, hint });
}

/** Words for the system errors that users meet. */
export function describeSystemError(code: string): string {
  const words: Record<string, string> = {
    ENOSPC: "the disk is full",
    EACCES: "permission denied",
    EPERM: "permission denied",
    EROFS: "the file system is read-only",
    ENOENT: "no such file or folder",
    EISDIR: "it is a folder",
    EEXIST: "there is a file of that name",
    ENOTDIR: "a part of the path is not a folder",
    EDQUOT: "the disk quota is used up",
    EFBIG: "the file would be too large",
    EMFILE: "too many open files",
    ELOOP: "its links lead in a circle",
    ENAMETOOLONG: "the name is too long",
    ENXIO: "it is a socket or a device with nothing at its other end",
    EIO: "the disk or device failed",
    ERR_FS_FILE_TOO_LARGE: "it is too large",
  };
  return words[code] ?? code;
}

/** SHA-256 of text or bytes as lower-case hex. */
export function hashBytes(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}
