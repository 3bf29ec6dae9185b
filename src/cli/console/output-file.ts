/** `-o FILE` and its like: looked at before hours of work, not after them. */
import { randomUUID } from "node:crypto";
import { rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { writeFailure } from "../../base/files.ts";
import { isThere, requireRegularFile } from "../../base/user-files.ts";

/**
 * Makes sure that a file of this name can be written, by writing one beside it: permissions alone do not tell of
 * read-only file systems, quotas or full disks.
 * @param path undefined where nothing will be written
 * @param hint what to do where the path is a folder, or a device, whose place the file would take
 * @throws InputError for what is there and is no regular file
 */
export async function requireWritable(
  path: string | undefined,
  hint = "-o names the file itself, a regular one",
): Promise<void> {
  if (path === undefined) return;
  const probe = join(dirname(path), `.${basename(path)}.${randomUUID().slice(0, 8)}.tmp`);
  try {
    if (await isThere(path)) await requireRegularFile(path, `"${path}"`, { verb: "write", hint });
    await writeFile(probe, "\n", { flag: "wx" });
    await rm(probe);
  } catch (error) {
    await rm(probe, { force: true }).catch(() => undefined);
    throw writeFailure(`Cannot write "${path}"`, error);
  }
}
