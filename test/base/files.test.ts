import { expect, test } from "vitest";
import { InputError, RuntimeFailure } from "../../src/base/errors.ts";
import { writeFailure } from "../../src/base/files.ts";

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
