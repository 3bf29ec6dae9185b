import { describe, expect, test } from "vitest";
import { UsageError } from "../../src/base/errors.ts";
import { parseRetain } from "../../src/search/retain.ts";

describe("parseRetain()", () => {
  test.each([
    ["1/4", 16, 4],
    ["0.25", 16, 4],
    [".5", 16, 8],
    ["1/2", 47, 24],
    ["1/4", 47, 12],
    ["1/4", 78, 20],
    ["1/1000", 16, 1],
    ["0.01", 16, 1],
    ["1/1", 16, 16],
    ["1.0", 16, 16],
    ["1", 16, 1],
    ["16", 16, 16],
    ["7", 47, 7],
  ])("%s of %i layers keeps %i", (text, layers, expected) => {
    expect(parseRetain(text, layers)).toBe(expected);
  });

  test.each([
    "0",
    "0/4",
    "0.0",
    "17",
    "5/4",
    "1.1",
    "1/0",
    "0/0",
    "-1",
    "1e-1",
    "25%",
    "a",
    "",
    "1/",
    "1 / 4",
    "Infinity",
  ])("refuses %j", (text) => {
    expect(() => parseRetain(text, 16)).toThrow(UsageError);
  });
});
