/** Vectors: published tables and formulas executed with SciPy; properties: what must hold for any scores. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { normalCdf, normalQuantile, studentCdf, studentQuantile } from "../../../src/base/distributions.ts";
import { compare, type PairedItem, type PairedStratum } from "../../../src/eval/statistics/comparison.ts";
import { studentInterval, wilsonInterval } from "../../../src/eval/statistics/intervals.ts";
import { itemsForDifference, minimumDetectableEffect, usualPower } from "../../../src/eval/statistics/power.ts";
import { holm, mcnemar, signFlipTest } from "../../../src/eval/statistics/significance.ts";
import { macroStandardError, stratumOf } from "../../../src/eval/statistics/strata.ts";

const settings = { margin: 0.01, power: usualPower, permutations: 500, seed: 1 };

/** `lost` items right under the baseline only, `gained` the reverse, the others alike. */
function pairs(lost: number, gained: number, items: number, score = 1): PairedItem[] {
  return Array.from({ length: items }, (_, i) => ({
    baseline: i < lost ? 1 : i < lost + gained ? 0 : score,
    candidate: i < lost ? 0 : i < lost + gained ? 1 : score,
    baselineLoss: 1,
    candidateLoss: 1 + i / 1000,
    sameOutput: i >= lost + gained,
  }));
}

const binary = (items: PairedItem[]): PairedStratum => ({ name: "task", scores: "binary", items });
const graded = (items: PairedItem[], name = "task"): PairedStratum => ({ name, scores: "graded", items });
const differences = (lost: number, gained: number, items: number) =>
  stratumOf(
    "t",
    pairs(lost, gained, items).map(({ baseline, candidate }) => ({ difference: candidate - baseline })),
  );

describe("distributions", () => {
  test("agree with tables", () => {
    expect(normalCdf(1.959963984540054)).toBeCloseTo(0.975, 12);
    expect(normalQuantile(0.95)).toBeCloseTo(1.6448536269514722, 10);
    expect(normalQuantile(0.8)).toBeCloseTo(0.8416212335729143, 10);
    expect(normalQuantile(1e-6)).toBeCloseTo(-4.753424308822899, 8);
    expect(studentQuantile(0.975, 1)).toBeCloseTo(12.706204736, 6);
    expect(studentQuantile(0.975, 10)).toBeCloseTo(2.228138852, 8);
    expect(studentQuantile(0.975, 1000)).toBeCloseTo(1.962339081, 8);
    expect(studentCdf(0, 7)).toBe(0.5);
  });
});

describe("McNemar's test", () => {
  test.each([
    [10, 2, 0.038574, 0.022461],
    [8, 1, 0.039062, 0.021484],
    [15, 5, 0.041389, 0.026604],
    [30, 18, 0.111403, 0.085433],
    [6, 0, 0.03125, 0.015625],
    [5, 0, 0.0625, 0.03125],
    [5, 5, 1, 1],
    [0, 0, 1, 1],
  ])("%i lost and %i gained", (lost, gained, exact, midP) => {
    expect(mcnemar(lost, gained).exact).toBeCloseTo(exact, 5);
    expect(mcnemar(lost, gained).midP).toBeCloseTo(midP, 5);
    expect(mcnemar(gained, lost)).toEqual(mcnemar(lost, gained));
  });

  test("thousands of pairs neither underflow nor overflow", () => {
    expect(mcnemar(2000, 2100).exact).toBeCloseTo(0.1221, 3);
  });
});

describe("intervals", () => {
  test("Wilson at the ends and in the middle", () => {
    expect(wilsonInterval(0, 10, 0.95)).toEqual({ low: 0, high: expect.closeTo(0.277533, 6) });
    expect(wilsonInterval(1, 10, 0.95)).toEqual({ low: expect.closeTo(0.722467, 6), high: 1 });
    expect(wilsonInterval(0.5, 100, 0.95)).toEqual({
      low: expect.closeTo(0.40383, 4),
      high: expect.closeTo(0.59617, 4),
    });
  });

  test("Student's is that of the textbook, and of clusters that of their sums", () => {
    const one = stratumOf(
      "t",
      [1, 2, 3, 4, 5].map((difference) => ({ difference })),
    );
    expect(macroStandardError([one])).toBeCloseTo(Math.sqrt(2.5 / 5), 12);
    const interval = studentInterval([one], 0.95);
    expect(interval?.low).toBeCloseTo(3 - 2.776445 * Math.sqrt(0.5), 5);
    const doubled = stratumOf(
      "t",
      [1, 2, 3, 4, 5].flatMap((difference) => [0, 1].map(() => ({ difference, cluster: String(difference) }))),
    );
    // The same articles asked twice are no more evidence.
    expect(macroStandardError([doubled])).toBeCloseTo(Math.sqrt(2.5 / 5), 12);
  });

  test("one unit has no spread", () => {
    expect(studentInterval([stratumOf("t", [{ difference: 1 }])], 0.95)).toBeUndefined();
  });
});

describe("sizes", () => {
  test.each([
    [0.01, 0.01, 783],
    [0.02, 0.01, 1568],
    [0.05, 0.01, 3923],
    [0.1, 0.01, 7847],
    [0.05, 0.02, 979],
    [0.1, 0.03, 870],
  ])("two-sided, %f discordant, difference %f", (discordance, difference, items) => {
    expect(itemsForDifference(discordance, difference)).toBe(items);
  });

  test.each([
    [0.02, 500, 1.8],
    [0.05, 500, 2.8],
    [0.1, 500, 4],
    [0.1, 100, 8.8],
    [0.05, 4750, 0.9],
  ])("smallest difference that is seen: %f discordant of %i", (discordance, items, points) => {
    expect((minimumDetectableEffect(discordance, items) ?? Number.NaN) * 100).toBeCloseTo(points, 0.9);
  });

  test("a hundred items with 5% discordant show nothing", () => {
    expect(minimumDetectableEffect(0.05, 100)).toBeUndefined();
    expect(minimumDetectableEffect(0, 100)).toBeUndefined();
  });
});

test("Holm multiplies the smallest the most and keeps the order", () => {
  expect(holm([0.01, 0.04, 0.03, 0.005])).toEqual([0.03, 0.06, 0.06, 0.02].map((value) => expect.closeTo(value, 12)));
  expect(holm([0.5, 0.9])).toEqual([1, 1]);
  expect(holm([])).toEqual([]);
});

describe("the sign-flip test", () => {
  test("counts all patterns of a few units", () => {
    const strata = [
      stratumOf(
        "t",
        [1, 1, 1, 1, 1, 0, 0].map((difference) => ({ difference })),
      ),
    ];
    expect(signFlipTest(strata, { permutations: 10, seed: 1 })).toBe(2 / 32);
  });

  test("draws patterns of many, near the exact p of McNemar's", () => {
    const p = signFlipTest([differences(30, 18, 200)], { permutations: 20_000, seed: 1 });
    expect(p).toBeCloseTo(0.1114, 1.9);
  });
});

describe("a comparison", () => {
  test("of an arm with itself is identical", () => {
    const items = pairs(0, 0, 30).map((item) => ({ ...item, candidateLoss: item.baselineLoss }));
    const result = compare([binary(items)], settings, true);
    expect(result).toMatchObject({ difference: 0, p: 1, lost: 0, gained: 0, verdict: "identical" });
  });

  test("is not identical where only the loss of the gold answer moved", () => {
    expect(compare([binary(pairs(0, 0, 30))], settings).verdict).toBe("inconclusive");
  });

  test("of thousands of equal scores is non-inferior, of thirty it is open", () => {
    expect(compare([binary(pairs(0, 0, 2000))], settings)).toMatchObject({
      note: "ceiling",
      verdict: "non-inferior",
    });
    const few = compare([graded(pairs(0, 0, 30))], settings);
    expect(few.interval_method).toBe("bounded mean");
    expect(few).toMatchObject({ verdict: "inconclusive", items_needed: 299 - 30 });
  });

  // The chance of seeing no loss in n items that lose 1% is 0.99^n: 5% at 299.
  test.each([
    ["one binary task", (items: number) => [binary(pairs(0, 0, items))]],
    ["one graded task", (items: number) => [graded(pairs(0, 0, items))]],
  ])("without a loss passes at a margin of one point from 299 items on: %s", (_, made) => {
    for (const [items, verdict] of [
      [162, { verdict: "inconclusive", items_needed: 137 }],
      [163, { verdict: "inconclusive", items_needed: 136 }],
      [298, { verdict: "inconclusive", items_needed: 1 }],
      [299, { verdict: "non-inferior" }],
    ] as const) {
      expect(compare(made(items), settings)).toMatchObject(verdict);
    }
  });

  test("of six tasks of 28 items without a loss asks for as many as pass: 50 of each", () => {
    const six = (items: number) => Array.from({ length: 6 }, (_, t) => graded(pairs(0, 0, items), `task ${t}`));
    expect(compare(six(28), settings)).toMatchObject({ verdict: "inconclusive", items_needed: 6 * 22 });
    expect(compare(six(49), settings).verdict).toBe("inconclusive");
    expect(compare(six(50), settings).verdict).toBe("non-inferior");
  });

  test("asks for no number that a million items would not settle", () => {
    expect(compare([binary(pairs(0, 0, 40))], { ...settings, margin: 0 })).toMatchObject({
      verdict: "inconclusive",
      items_needed: undefined,
    });
    const tiny = compare([graded(pairs(1, 1, 40))], { ...settings, margin: 1e-5 });
    expect(tiny).toMatchObject({ verdict: "inconclusive", items_needed: undefined });
  });

  test("of a tenth of the items lost is inferior", () => {
    const result = compare([binary(pairs(60, 5, 500))], settings);
    expect(result).toMatchObject({ lost: 60, gained: 5, test: "mcnemar", verdict: "inferior" });
    expect(result.difference).toBeCloseTo(-0.11, 12);
  });

  test("of two patterns that are alike to the last bit cannot tell, and can where losses were not measured", () => {
    const items = pairs(0, 0, 500).map((item) => ({ ...item, candidateLoss: item.baselineLoss }));
    expect(compare([binary(items)], settings)).toMatchObject({
      note: "no effect",
      verdict: "inconclusive",
    });
    const unknown = items.map((item) => ({ ...item, baselineLoss: undefined, candidateLoss: undefined }));
    expect(compare([binary(unknown)], settings).verdict).toBe("non-inferior");
  });

  test("on the floor proves nothing, however many items there are", () => {
    const result = compare([binary(pairs(0, 0, 5000, 0))], settings);
    expect(result).toMatchObject({ note: "floor", verdict: "inconclusive" });
    expect(result.items_needed).toBeUndefined();
    // The pattern's own luck changes nothing: the baseline has nothing to lose.
    expect(compare([binary(pairs(0, 30, 5000, 0))], settings)).toMatchObject({ note: "floor" });
  });

  test("of a baseline that scores no more than the margin cannot lose more than that", () => {
    const lost = (share: number) => [
      binary(pairs(0, 0, 5000, 0).map((item, i) => ({ ...item, baseline: i < share * 5000 ? 1 : 0 }))),
    ];
    expect(compare(lost(0.009), settings)).toMatchObject({ note: "floor", verdict: "inconclusive" });
    expect(compare(lost(0.02), settings)).toMatchObject({ note: undefined, verdict: "inferior" });
  });

  test("of choices that are guessed cannot tell, and can above chance or where outputs become worse than guesses", () => {
    const choices = (right: number, candidate: number, items = 500) => [
      binary(
        pairs(0, 0, items).map((item, i) => ({
          ...item,
          chance: 0.25,
          baseline: i < right * items ? 1 : 0,
          candidate: i < candidate * items ? 1 : 0,
        })),
      ),
    ];
    expect(compare(choices(0.27, 0.27), settings)).toMatchObject({
      note: "floor",
      verdict: "inconclusive",
    });
    expect(compare(choices(0.35, 0.35), settings)).toMatchObject({
      note: undefined,
      verdict: "non-inferior",
    });
    expect(compare(choices(0.27, 0.02), settings).verdict).toBe("inferior");
  });

  test("the items needed are near those of the published table", () => {
    // 5% discordant: 3,092 fresh items for a margin of 1 point by the normal approximation.
    const needed = compare([binary(pairs(25, 25, 1000))], settings).items_needed ?? 0;
    expect(needed + 1000).toBeGreaterThan(2700);
    expect(needed + 1000).toBeLessThan(3200);
  });

  test("that is worse than the margin asks for what proves it, if that is sooner", () => {
    const { difference, verdict, items_needed: needed } = compare([binary(pairs(3, 0, 40))], settings);
    expect(difference).toBeCloseTo(-0.075, 12);
    expect(verdict).toBe("inconclusive");
    expect(needed).toBeLessThan(60);
  });

  test("of 10,000 graded items that all differ takes no time", () => {
    const items = pairs(0, 0, 10_000).map((item, i) => ({ ...item, candidate: 1 - Math.abs(Math.sin(i)) / 9 }));
    const before = process.cpuUsage();
    compare([graded(items)], settings);
    const { user, system } = process.cpuUsage(before);
    // 0.4 s of CPU time; the limit is for slow machines.
    expect((user + system) / 1e6).toBeLessThan(3);
  });

  test("clustered binary scores get no McNemar test", () => {
    const items = pairs(3, 1, 20).map((item, i) => ({ ...item, cluster: `article ${i >> 1}` }));
    expect(compare([binary(items)], settings).test).toBe("sign-flip");
  });

  const item = fc.record({
    baseline: fc.integer({ min: 0, max: 4 }).map((hits) => hits / 4),
    candidate: fc.integer({ min: 0, max: 4 }).map((hits) => hits / 4),
    baselineLoss: fc.double({ min: 0, max: 9, noNaN: true }),
    candidateLoss: fc.double({ min: 0, max: 9, noNaN: true }),
    cluster: fc.option(fc.constantFrom("a", "b", "c"), { nil: undefined }),
    sameOutput: fc.boolean(),
  });
  const strata = fc
    .array(fc.array(item, { minLength: 2, maxLength: 25 }), { minLength: 1, maxLength: 3 })
    .map((lists) => lists.map((items, index) => graded(items, `task ${index}`)));
  const swapped = (given: readonly PairedStratum[]): PairedStratum[] =>
    given.map((stratum) => ({
      ...stratum,
      items: stratum.items.map((one) => ({
        ...one,
        baseline: one.candidate,
        candidate: one.baseline,
        baselineLoss: one.candidateLoss,
        candidateLoss: one.baselineLoss,
      })),
    }));

  test("swapping the arms negates the difference and keeps p", () => {
    fc.assert(
      fc.property(strata, (given) => {
        const there = compare(given, settings);
        const back = compare(swapped(given), settings);
        expect(back.difference).toBeCloseTo(-there.difference, 12);
        expect(back.p).toBe(there.p);
        expect([back.lost, back.gained]).toEqual([there.gained, there.lost]);
        expect(back.interval.low).toBeCloseTo(-there.interval.high, 9);
        expect(back.gold_loss?.difference).toBeCloseTo(-(there.gold_loss?.difference ?? 0), 9);
      }),
      { numRuns: 40 },
    );
  });

  test("an arm compared with itself never loses or gains", () => {
    fc.assert(
      fc.property(strata, (given) => {
        const itself = given.map((stratum) => ({
          ...stratum,
          items: stratum.items.map((one) => ({
            ...one,
            candidate: one.baseline,
            candidateLoss: one.baselineLoss,
            sameOutput: true,
          })),
        }));
        expect(compare(itself, settings, true)).toMatchObject({
          difference: 0,
          p: 1,
          verdict: "identical",
        });
      }),
      { numRuns: 20 },
    );
  });

  test("the interval holds the difference", () => {
    fc.assert(
      fc.property(strata, (given) => {
        const { difference, interval } = compare(given, settings);
        expect(interval.low).toBeLessThanOrEqual(difference);
        expect(interval.high).toBeGreaterThanOrEqual(difference);
      }),
      { numRuns: 40 },
    );
  });
});
