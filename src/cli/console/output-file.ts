/** `-o FILE` and its like: looked at before hours of work, not after them. */
import { randomUUID } from "node:crypto";
import { rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { InputError, RuntimeFailure } from "../../base/errors.ts";
import { describeSystemError, systemErrorCode } from "../../base/files.ts";

/** What is wrong with the path that was given; anything else is wrong with the machine. */
const pathErrors = new Set(["ENOENT", "ENOTDIR", "EISDIR", "EACCES", "EPERM", "EROFS"]);

/**
 * Makes sure that a file of this name can be written, by writing one beside it: permissions alone do not tell of
 * read-only file systems, quotas or full disks.
 * @param hint what to do where the path is a folder
 */
export async function requireWritable(path: string, hint = "-o names the file itself"): Promise<void> {
  const probe = join(dirname(path), `.${basename(path)}.${randomUUID().slice(0, 8)}.tmp`);
  try {
    if ((await stat(path).catch(() => undefined))?.isDirectory() === true) {
      throw new InputError(`Cannot write "${path}": it is a folder`, { hint });
    }
    await writeFile(probe, "\n", { flag: "wx" });
    await rm(probe);
  } catch (error) {
    const code = systemErrorCode(error);
    if (error instanceof InputError || code === undefined) throw error;
    await rm(probe, { force: true }).catch(() => undefined);
    const Failure = pathErrors.has(code) ? InputError : RuntimeFailure;
    throw new Failure(`Cannot write "${path}": ${describeSystemError(code)}`, { cause: error });
  }
}
