import { existsSync, readdirSync, readFileSync } from "node:fs";
import { stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { InputError, RuntimeFailure } from "../../src/base/errors.ts";
import { makeFolder, writeFailure } from "../../src/base/files.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const refused = (code: string) =>
  writeFailure('Cannot write "p"', Object.assign(new Error(code), { code }), "name another");

test("writeFailure() blames the path for what another path would mend, and the machine for the rest", () => {
  for (const code of ["EEXIST", "ENOTDIR", "EACCES", "EROFS"]) expect(refused(code)).toBeInstanceOf(InputError);
  for (const code of ["ENOSPC", "EDQUOT", "EIO"]) expect(refused(code)).toBeInstanceOf(RuntimeFailure);
  expect(refused("ENOSPC")).toMatchObject({ message: 'Cannot write "p": the disk is full', hint: "name another" });
  const defect = new Error("no system error");
  expect(writeFailure("Cannot write", defect)).toBe(defect);
  const explained = new InputError("it is a folder");
  expect(writeFailure("Cannot write", explained)).toBe(explained);
});

const folder = temporaryFolder("file");
const what = "Cannot keep it";

test("makeFolder() makes what is missing, as often as it is asked and by several at once", async () => {
  const path = join(folder, "a", "b", "c");
  await Promise.all([
    makeFolder(path, { what }),
    makeFolder(join(folder, "a", "b"), { what }),
    makeFolder(path, { what }),
  ]);
  await makeFolder(path, { what });
  expect((await stat(path)).isDirectory()).toBe(true);
  const own = join(folder, "own");
  await makeFolder(own, { what, mode: 0o700 });
  expect((await stat(own)).mode & 0o777).toBe(0o700);
});

test("makeFolder() refuses a file in its place or above it", async () => {
  const file = join(folder, "file");
  await writeFile(file, "");
  await symlink("nowhere", join(folder, "dangling"));
  const refused = { name: "InputError", message: `${what}: there is a file of that name`, hint: "name another" };
  await expect(makeFolder(file, { what, hint: "name another" })).rejects.toMatchObject(refused);
  await expect(makeFolder(join(folder, "dangling"), { what, hint: "name another" })).rejects.toMatchObject(refused);
  await expect(makeFolder(join(file, "a", "b"), { what })).rejects.toThrow(
    `${what}: a part of the path is not a folder`,
  );
});

test.runIf(existsSync("/proc/self"))("makeFolder() ends where the file system knows no new folders", async () => {
  for (const path of ["/proc/nowhere", "/proc/nowhere/out"]) {
    await expect(makeFolder(path, { what })).rejects.toThrow(
      new InputError(`${what}: no folder can be made in "/proc"`),
    );
  }
});

test("folders are made in one place: Node's own recursion need not end, and its errors are no sentences", () => {
  const source = join(import.meta.dirname, "..", "..", "src");
  const files = readdirSync(source, { recursive: true, encoding: "utf8" }).filter((name) => /\.tsx?$/.test(name));
  const making = files.filter((name) => /\bmk(dir|dtemp)(Sync)?\b/.test(readFileSync(join(source, name), "utf8")));
  expect(making).toEqual([join("base", "files.ts")]);
});
