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

describe("LossTable across the worst source", () => {
  const third = parsePattern("FFS");
  /** Two sources of two sequences: what each pattern loses on each of them. */
  function filled(table: LossTable): LossTable {
    const losses = { FFF: [1, 2, 5, 6], FSF: [1.5, 2.5, 5, 6], FFS: [1, 2, 5.2, 6.4] };
    for (const [pattern, own] of Object.entries(losses)) {
      for (const [index, loss] of own.entries())
        table.add(parsePattern(pattern), index, { loss, tokens: index < 2 ? 10 : 30 });
    }
    return table;
  }
  const options = {
    sources: [
      [0, 1],
      [2, 3],
    ],
    across: "worst" as const,
  };

  test("a pattern changes what it changes where it loses most", () => {
    const table = filled(new LossTable([0, 1, 2, 3], start, options));
    const mean = filled(new LossTable([0, 1, 2, 3], start));
    expect(mean.evaluation(other).change).toBeCloseTo(0.125, 12);
    expect(mean.evaluation(third).change).toBeCloseTo(0.225, 12);
    expect(table.evaluation(start)).toMatchObject({ loss: 4.5, change: 0 });
    expect(table.evaluation(other)).toMatchObject({ loss: 5, change: 0.5, changeError: 0, complete: true });
    const { loss, change, changeError } = table.evaluation(third);
    expect([loss, change, changeError]).toEqual([4.8, 0.3, 0.1].map((value) => expect.closeTo(value, 12)));
  });

  test("two patterns that lose most on different sources are compared there, with both errors", () => {
    const table = filled(new LossTable([0, 1, 2, 3], start, options));
    expect(table.difference(other, third)).toEqual({
      mean: expect.closeTo(0.2, 12),
      standardError: expect.closeTo(0.1, 12),
      sequences: 4,
    });
    expect(table.difference(third, start).mean).toBeCloseTo(0.3, 12);
  });

  test("a bound is that of the source that has lost most so far", () => {
    const table = new LossTable([0, 1, 2, 3], start, options);
    for (const index of [0, 1, 2, 3]) table.add(start, index, { loss: 0, tokens: 10 });
    table.add(other, 0, { loss: 3, tokens: 10 });
    table.add(other, 3, { loss: 1, tokens: 10 });
    expect(table.lowerBound(other)).toBe(1.5);
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
