/** The two ways of bounding a difference, against published values and against what they are of simple samples. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Random } from "../../../src/base/random.ts";
import {
  type BoundedSample,
  lowerBoundOfMean,
  probabilityBelow,
  upperBoundOfMean,
} from "../../../src/eval/statistics/bounded-mean.ts";
import {
  exceedanceP,
  lowerBoundOfDifference,
  tangoScore,
  upperBoundOfDifference,
} from "../../../src/eval/statistics/paired-score.ts";

describe("the score of paired shares", () => {
  test("gives Tango's interval of Bentur's 21 patients (Fagerland, Lydersen and Laake 2014): -0.517 to -0.026", () => {
    const discordant = { lost: 7, gained: 1 };
    expect(tangoScore(discordant, 21, -0.5172)).toBeCloseTo(1.96, 3);
    expect(tangoScore(discordant, 21, -0.026)).toBeCloseTo(-1.96, 3);
    // The exact one is a little wider.
    expect(lowerBoundOfDifference(discordant, 21, 0.975)).toBeCloseTo(-0.537, 3);
    expect(upperBoundOfDifference(discordant, 21, 0.975)).toBeCloseTo(-0.02, 3);
  });

  test.each([1, 5, 33, 163, 299])("of %i pairs without a change is the exact binomial bound", (items) => {
    const none = { lost: 0, gained: 0 };
    expect(lowerBoundOfDifference(none, items, 0.95)).toBeCloseTo(-(1 - 0.05 ** (1 / items)), 5);
    expect(exceedanceP(none, items, -0.01)).toBeCloseTo(0.99 ** items, 9);
  });

  test("of many pairs is the normal limit", () => {
    const discordant = { lost: 2000, gained: 2100 };
    const error = Math.sqrt(0.41 - 0.01 ** 2) / 100;
    expect(lowerBoundOfDifference(discordant, 10_000, 0.95)).toBeCloseTo(0.01 - 1.6449 * error, 4);
  });

  test("rejects less than alpha of the time whatever the discordance, counted over all outcomes", () => {
    const [items, difference, alpha] = [40, -0.05, 0.05];
    for (const gained of [0, 0.01, 0.05, 0.2]) {
      let rejected = 0;
      for (let y = 0; y <= items; y++) {
        for (let x = 0; x <= items - y; x++) {
          const chance = trinomial(items, y, gained - difference, x, gained);
          if (chance > 1e-9 && exceedanceP({ lost: y, gained: x }, items, difference) <= alpha) rejected += chance;
        }
      }
      expect(rejected).toBeLessThan(alpha + 0.001);
    }
  });
});

function trinomial(items: number, y: number, lost: number, x: number, gained: number): number {
  let log = 0;
  for (let k = 0; k < y; k++) log += Math.log(((items - k) / (k + 1)) * lost);
  for (let k = 0; k < x; k++) log += Math.log(((items - y - k) / (k + 1)) * gained);
  return Math.exp(log + (items - x - y) * Math.log(1 - lost - gained));
}

describe("the bounded mean", () => {
  const counted = (lost: number, items: number): BoundedSample => ({
    values: [
      { value: -1, weight: 1, count: lost },
      { value: 0, weight: 1, count: items - lost },
    ],
    unseenWeight: 1,
    floor: -1,
  });

  // scipy.stats.beta.ppf(0.95, lost + 1, items - lost)
  test.each([
    [0, 1, 0.95],
    [0, 299, 0.009969147],
    [1, 100, 0.046559811],
    [5, 100, 0.102253377],
    [50, 100, 0.586378285],
  ])("of %i lost of %i is Clopper and Pearson's bound", (lost, items, expected) => {
    expect(lowerBoundOfMean(counted(lost, items), 0.95)).toBeCloseTo(-expected, 7);
  });

  test("is the quantile of means under drawn weights", () => {
    const values = Array.from({ length: 20 }, (_, i) => ({
      value: 0.6 * Math.sin(7 * i),
      weight: 1 + (i % 3),
      count: 1,
    }));
    const sample = { values, unseenWeight: 2, floor: -1 };
    const random = Random.forPart(1, "bounded mean");
    const draw = () => -Math.log(1 - random.unit());
    const draws = Array.from({ length: 40_000 }, () => {
      let [total, first] = [2 * draw(), 0];
      first = -total;
      for (const { value, weight } of values) {
        const drawn = weight * draw();
        total += drawn;
        first += drawn * value;
      }
      return first / total;
    });
    for (const confidence of [0.6, 0.95, 0.99]) {
      const bound = lowerBoundOfMean(sample, confidence);
      const below = draws.filter((mean) => mean < bound).length / draws.length;
      expect(Math.abs(below - (1 - confidence))).toBeLessThan(0.01);
      expect(probabilityBelow(sample, bound)).toBeCloseTo(1 - confidence, 6);
    }
  });

  test("holds for any values: within the range, mirrored, wider with more confidence", () => {
    const value = fc.record({
      value: fc.double({ min: -1, max: 1, noNaN: true }),
      weight: fc.double({ min: 0.1, max: 3, noNaN: true }),
      count: fc.integer({ min: 1, max: 300 }),
    });
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 30 }), (values) => {
        const sample = { values, unseenWeight: 3, floor: -1 };
        const mirrored = { ...sample, values: values.map((one) => ({ ...one, value: -one.value })) };
        const [low, lower] = [lowerBoundOfMean(sample, 0.95), lowerBoundOfMean(sample, 0.975)];
        const total = values.reduce((sum, { weight, count }) => sum + weight * count, 0);
        const mean = values.reduce((sum, one) => sum + one.weight * one.count * one.value, 0) / total;
        expect(lower).toBeGreaterThanOrEqual(-1);
        expect(lower).toBeLessThanOrEqual(low + 1e-7);
        expect(low).toBeLessThanOrEqual(mean + 1e-9);
        expect(upperBoundOfMean(mirrored, 0.95)).toBeCloseTo(-low, 9);
      }),
      { numRuns: 200 },
    );
  });
});
