import { expect, test } from "vitest";
import { formatSearchReport } from "../../src/report/search/search-report.ts";
import { search } from "./document/evidence.ts";

/** The report of a refinement that took these steps and tried so many patterns after greedy's. */
function refined(steps: readonly (readonly [string, readonly number[]])[], tried: number): string {
  const records = steps.map(([pattern, layers], index) => ({
    index_topk_pattern: pattern,
    flipped_layers: [...layers],
    loss: 2.5 + index / 16,
    standard_error: 0.5,
    candidates: 1,
  }));
  const patterns = search.patterns?.map((found) => ({
    ...found,
    steps: records,
    second_look: { first_pattern: found.index_topk_pattern, first_loss: 2.5, gain: 0, gain_error: null, tried },
  }));
  return formatSearchReport({ ...search, trajectory: [], patterns });
}

test("steps name the layers that they share, and mark one that is Full again", () => {
  const greedy = formatSearchReport(search);
  expect(greedy).toMatch(/^Step {2}Shared {2}Full/);
  expect(greedy).toMatch(/^ {3}2 {7}1 {5}2 /m);
  const straight = refined(
    [
      ["FFSF", [2]],
      ["FSSF", [1]],
    ],
    5,
  );
  expect(straight).toMatch(/^Step {2}Shared {2}Full/);
  expect(straight).toMatch(/^ {3}2 {7}1 {5}2 /m);
  expect(straight).not.toContain("Full again");
  const exchanged = refined(
    [
      ["FFSF", [2]],
      ["FSFF", [1, 2]],
    ],
    5,
  );
  expect(exchanged).toMatch(/^ {3}2 {4}1 2F {5}3 /m);
  expect(exchanged).toContain("F after a layer: Full again");
});

test("a refinement that had nothing left to try does not boast of it", () => {
  expect(refined([["FSSF", [1, 2]]], 5)).toContain("none of 5 better");
  const nothing = refined([["FSSF", [1, 2]]], 0);
  expect(nothing).toContain("none left to try");
  expect(nothing).not.toContain("0 more patterns");
});

test("the summary is folded by words to the width of a terminal, and to no width in a file", () => {
  const summary = (columns?: number) => (formatSearchReport(search, columns).split("\n\n").at(-1) ?? "").split("\n");
  expect(Math.max(...summary().map((line) => line.length))).toBeGreaterThan(50);
  expect(Math.max(...summary(50).map((line) => line.length))).toBeLessThanOrEqual(50);
  expect(summary(50).join(" ").replaceAll(/\s+/g, " ")).toBe(summary().join(" ").replaceAll(/\s+/g, " "));
});
