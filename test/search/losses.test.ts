import { describe, expect, test } from "vitest";
import { studentCdf, studentQuantile } from "../../src/base/distributions.ts";
import { parsePattern } from "../../src/pattern/pattern.ts";
import { Frontier, knee } from "../../src/search/frontier.ts";
import { LossTable } from "../../src/search/losses.ts";
import { isWorse } from "../../src/search/screening/raced.ts";

const start = parsePattern("FFF");
const other = parsePattern("FSF");

describe("LossTable", () => {
  test("weighs by tokens and compares in pairs", () => {
    const table = new LossTable([0, 1, 2], start);
    for (const [index, loss] of [1, 2, 4].entries()) table.add(start, index, { loss, tokens: index === 2 ? 200 : 100 });
    for (const [index, loss] of [1.1, 2.1, 4.1].entries())
      table.add(other, index, { loss, tokens: index === 2 ? 200 : 100 });
    expect(table.evaluation(start)).toMatchObject({ loss: 2.75, change: 0, changeError: 0, complete: true });
    const { loss, change, changeError } = table.evaluation(other);
    expect([loss, change]).toEqual([expect.closeTo(2.85, 12), expect.closeTo(0.1, 12)]);
    expect(changeError).toBeCloseTo(0, 12);
    expect(table.lowerBound(other)).toBeCloseTo(2.85, 12);
  });

  test("estimates what was measured in part by its difference to the start", () => {
    const table = new LossTable([0, 1], start);
    table.add(start, 0, { loss: 1, tokens: 10 });
    table.add(start, 1, { loss: 3, tokens: 10 });
    table.add(other, 0, { loss: 1.25, tokens: 10 });
    expect(table.missing(other, [0, 1])).toEqual([1]);
    expect(table.evaluation(other)).toMatchObject({ loss: 2.25, change: 0.25, sequences: 1, complete: false });
    expect(table.lowerBound(other)).toBe(0.625);
  });
});

describe("Student's t", () => {
  test.each([
    [0.05, 3, 2.353363],
    [0.025, 10, 2.228139],
    [0.01, 1, 31.820516],
    [0.025, 1000, 1.962339],
    [0.1, 15, 1.340606],
  ])("is above the quantile with probability %d at %i degrees of freedom", (alpha, degrees, t) => {
    expect(-studentQuantile(alpha, degrees)).toBeCloseTo(t, 5);
    expect(studentCdf(t, degrees)).toBeCloseTo(1 - alpha, 6);
    expect(studentCdf(-t, degrees)).toBeCloseTo(alpha, 6);
  });

  test("drops nothing on one sequence, within a tie, or within chance", () => {
    expect(isWorse({ mean: 1, standardError: null, sequences: 1 }, 0.1)).toBe(false);
    expect(isWorse({ mean: 5e-6, standardError: 0, sequences: 9 }, 0.1)).toBe(false);
    expect(isWorse({ mean: 0.1, standardError: 0.1, sequences: 9 }, 0.1)).toBe(false);
    expect(isWorse({ mean: 0.2, standardError: 0.1, sequences: 9 }, 0.1)).toBe(true);
  });
});

describe("Frontier", () => {
  const found = (pattern: string, loss: number) => ({
    pattern: parsePattern(pattern),
    evaluation: { loss, standardError: 0, change: 0, changeError: 0, sequences: 1, complete: true },
    steps: [],
    foundBy: "greedy",
  });

  test("keeps the first of what ties, and what is better by more", () => {
    const frontier = new Frontier();
    expect(frontier.offer(found("FSF", 2))).toBe(true);
    expect(frontier.offer(found("FFS", 2 - 5e-6))).toBe(false);
    expect(frontier.at(2)?.pattern).toBe("FSF");
    expect(frontier.offer(found("FFS", 1.9))).toBe(true);
    frontier.offer(found("FFF", 1));
    expect(frontier.all.map(({ pattern }) => pattern)).toEqual(["FFF", "FFS"]);
  });

  test("has its knee where the loss begins to rise", () => {
    const losses = [9, 4, 1.1, 1.05, 1.02, 1.01, 1];
    expect(knee(losses.map((loss, index) => ({ size: index + 1, loss })))).toBe(3);
    expect(
      knee([
        { size: 1, loss: 2 },
        { size: 2, loss: 1 },
      ]),
    ).toBeUndefined();
    expect(knee([1, 2, 3].map((size) => ({ size, loss: 1 })))).toBeUndefined();
  });
});
