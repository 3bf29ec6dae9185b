/** Files that are never half written (temp file beside the target, fsync, rename), and folders. */
import { createHash, randomUUID } from "node:crypto";
import { mkdir, mkdtemp, open, rename, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
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

/** How a folder is made, and what is said where it is not. */
export interface FolderDetails {
  /** How the sentence of a refusal begins: `Cannot write into "report"`. */
  what: string;
  /** What to do then. */
  hint?: string | undefined;
  /** Permissions of a folder that is made here. */
  mode?: number;
}

/**
 * Makes a folder, and those above it that are missing. Node's own recursion never ends on file systems that say ENOENT
 * where nothing can be made (/proc).
 * @throws InputError or RuntimeFailure, as `writeFailure` decides
 */
export async function makeFolder(path: string, { what, hint, mode }: FolderDetails): Promise<void> {
  const missing: string[] = [];
  let above = resolve(path);
  for (; (await stat(above).catch(() => undefined)) === undefined && above !== dirname(above); above = dirname(above)) {
    missing.unshift(above);
  }
  try {
    for (const folder of missing) {
      // Another process may be making it as well.
      await mkdir(folder, { mode }).catch(async (error: unknown) => {
        if ((await stat(folder).catch(() => undefined))?.isDirectory() !== true) throw error;
      });
    }
  } catch (error) {
    if (systemErrorCode(error) !== "ENOENT") throw writeFailure(what, error, hint);
    throw new InputError(`${what}: no folder can be made in "${above}"`, { cause: error, hint });
  }
  if (!(await stat(path)).isDirectory()) throw new InputError(`${what}: there is a file of that name`, { hint });
}

/**
 * Makes a folder of this process's own where the system has temporary files; whoever asks for it takes it away.
 * @throws InputError or RuntimeFailure, as `writeFailure` decides
 */
export async function makeTemporaryFolder(purpose: string): Promise<string> {
  const above = tmpdir();
  try {
    return await mkdtemp(join(above, `indexcache-${purpose}-`));
  } catch (error) {
    throw writeFailure(`Cannot make a folder for temporary files in "${above}"`, error, "TMPDIR names another place");
  }
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
    ENOTEMPTY: "the folder is not empty",
    EBUSY: "it is in use",
    EXDEV: "it is on another file system",
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
