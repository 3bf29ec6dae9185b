import { CommanderError } from "commander";
import { afterEach, expect, test, vi } from "vitest";
import { InputError, InterruptedError, RuntimeFailure, UsageError } from "../../src/base/errors.ts";
import { reportFailure } from "../../src/cli/console/failure.ts";

afterEach(() => void vi.restoreAllMocks());

/** Exit code and what was said on stderr. */
function report(error: unknown): { code: number; text: string } {
  let text = "";
  vi.spyOn(process.stderr, "write").mockImplementation((words) => {
    text += String(words);
    return true;
  });
  const code = reportFailure(error);
  return { code, text };
}

test("known errors are one line and a hint, each with its exit code", () => {
  expect(report(new InputError("No layers", { hint: "add one" }))).toEqual({
    code: 2,
    text: "error: No layers\nhint: add one\n",
  });
  expect(report(new UsageError("--retain is 0"))).toEqual({ code: 2, text: "error: --retain is 0\n" });
  expect(report(new RuntimeFailure("Cannot write", { cause: new Error("ENOSPC") }))).toEqual({
    code: 3,
    text: "error: Cannot write\n",
  });
  expect(report(new InterruptedError("Interrupted"))).toMatchObject({ code: 130 });
});

test("defects come with their stack", () => {
  const { code, text } = report(new TypeError("x is not a function"));
  expect(code).toBe(3);
  expect(text).toMatch(/^error: this is a defect of indexcache\nTypeError: x is not a function\n {4}at /);
  expect(report("thrown text")).toEqual({ code: 3, text: "error: this is a defect of indexcache\nthrown text\n" });
});

test("commander has spoken already", () => {
  expect(report(new CommanderError(0, "commander.helpDisplayed", ""))).toEqual({ code: 0, text: "" });
  expect(report(new CommanderError(1, "commander.unknownOption", "error: unknown option"))).toEqual({
    code: 2,
    text: "",
  });
});
