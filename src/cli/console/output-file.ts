/** `-o FILE` and its like: looked at before hours of work, not after them. */
import { randomUUID } from "node:crypto";
import { rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { InputError } from "../../base/errors.ts";
import { writeFailure } from "../../base/files.ts";

/**
 * Makes sure that a file of this name can be written, by writing one beside it: permissions alone do not tell of
 * read-only file systems, quotas or full disks.
 * @param path undefined where nothing will be written
 * @param hint what to do where the path is a folder
 */
export async function requireWritable(path: string | undefined, hint = "-o names the file itself"): Promise<void> {
  if (path === undefined) return;
  const probe = join(dirname(path), `.${basename(path)}.${randomUUID().slice(0, 8)}.tmp`);
  try {
    if ((await stat(path).catch(() => undefined))?.isDirectory() === true) {
      throw new InputError(`Cannot write "${path}": it is a folder`, { hint });
    }
    await writeFile(probe, "\n", { flag: "wx" });
    await rm(probe);
  } catch (error) {
    await rm(probe, { force: true }).catch(() => undefined);
    throw writeFailure(`Cannot write "${path}"`, error);
  }
}
