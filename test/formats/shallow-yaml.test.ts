import { describe, expect, test } from "vitest";
import { parseShallowYaml } from "../../src/formats/shallow-yaml.ts";

test("documents are read as YAML says, with their errors", () => {
  const [first, second] = parseShallowYaml("a: [1, {b: c}]\nd:\n  - e: f\n---\n[1\n");
  expect(first?.toJS()).toEqual({ a: [1, { b: "c" }], d: [{ e: "f" }] });
  expect(first?.errors).toEqual([]);
  expect(second?.errors).not.toEqual([]);
});

describe("levels that nobody writes", () => {
  // "[{" a hundred thousand times ended the process: a regular expression was compiled where the stack ended.
  test.each(["[{", "{", "- ", "a: ", "? ", "[a: ", "[\n", "- - "])("%j is refused", (flood) => {
    for (const times of [150, 30_000]) expect(() => parseShallowYaml(flood.repeat(times))).toThrow("100 levels");
  });

  test("ninety are read", () => {
    expect(parseShallowYaml("[".repeat(90) + "]".repeat(90))[0]?.errors).toEqual([]);
  });
});
