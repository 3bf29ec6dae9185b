import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { RuntimeFailure, UsageError } from "../../src/base/errors.ts";
import { createSampler, mostLikely, type SamplingOptions } from "../../src/runtime/generate/sampling.ts";

/** Logits whose softmax is the given distribution. */
function logitsOf(...probabilities: number[]): Float32Array {
  return Float32Array.from(probabilities, Math.log);
}

/** How often each id is drawn, as fractions. */
function frequencies(logits: Float32Array, options: SamplingOptions, draws = 20_000): number[] {
  const sample = createSampler({ seed: 7, ...options });
  const counts = new Array<number>(logits.length).fill(0);
  for (let i = 0; i < draws; i++) {
    const id = sample(logits);
    counts[id] = (counts[id] ?? 0) + 1 / draws;
  }
  return counts;
}

function expectClose(found: number[], expected: number[]): void {
  for (const [id, probability] of expected.entries()) expect(found[id]).toBeCloseTo(probability, 1.5);
}

describe("greedy", () => {
  test("is the default, and takes the lowest id among equals", () => {
    expect(createSampler()(Float32Array.of(1, 3, 3, 2))).toBe(1);
    expect(createSampler({ temperature: 0, topK: 3 })(Float32Array.of(1, 3, 3, 2))).toBe(1);
    expect(mostLikely(Float32Array.of(Number.NEGATIVE_INFINITY, -5))).toBe(1);
  });

  test("does not hide numbers that are none", () => {
    expect(() => mostLikely(Float32Array.of(1, Number.NaN))).toThrow(RuntimeFailure);
    expect(() => mostLikely(new Float32Array())).toThrow(RuntimeFailure);
  });
});

describe("sampling", () => {
  const logits = logitsOf(0.1, 0.5, 0.15, 0.25);

  test("follows the softmax at temperature 1", () => {
    expectClose(frequencies(logits, { temperature: 1 }), [0.1, 0.5, 0.15, 0.25]);
  });

  test("sharpens below and flattens above", () => {
    const squares = [0.01, 0.25, 0.0225, 0.0625];
    const total = 0.345;
    expectClose(
      frequencies(logits, { temperature: 0.5 }),
      squares.map((square) => square / total),
    );
    expectClose(frequencies(logits, { temperature: 1000 }), [0.25, 0.25, 0.25, 0.25]);
  });

  test("top-k keeps the k most likely", () => {
    expectClose(frequencies(logits, { topK: 2 }), [0, 2 / 3, 0, 1 / 3]);
    expect(frequencies(logits, { topK: 1 })).toEqual([0, expect.closeTo(1), 0, 0]);
  });

  test("top-p keeps the fewest that reach p, after top-k", () => {
    expectClose(frequencies(logits, { topP: 0.7 }), [0, 2 / 3, 0, 1 / 3]);
    expectClose(frequencies(logits, { topP: 0.8 }), [0, 5 / 9, 1.5 / 9, 2.5 / 9]);
    expect(frequencies(logits, { topP: 1e-9 })).toEqual([0, expect.closeTo(1), 0, 0]);
    // Of the two that top-k leaves, the first has 2/3: enough for 0.6, though 0.5 of the whole would not be.
    expect(frequencies(logits, { topK: 2, topP: 0.6 })).toEqual([0, expect.closeTo(1), 0, 0]);
  });

  test("gives the same tokens for the same seed, and others for another", () => {
    const draw = (seed: number): number[] => {
      const sample = createSampler({ temperature: 1, seed });
      return Array.from({ length: 40 }, () => sample(logits));
    };
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1)).not.toEqual(draw(2));
  });

  test("draws from a nucleus that sorting the whole vocabulary would give", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: -40, max: 40 }), { minLength: 1, maxLength: 30 }),
        fc.double({ min: 0.01, max: 1, noNaN: true }),
        (scores, topP) => {
          const values = Float32Array.from(scores, (score) => score / 8);
          const weights = Array.from(values, (value) => Math.exp(value));
          const total = weights.reduce((sum, weight) => sum + weight, 0);
          const order = weights
            .map((weight, id) => ({ id, p: weight / total }))
            .sort((a, b) => b.p - a.p || a.id - b.id);
          let reached = 0;
          const allowed = new Set<number>();
          for (const { id, p } of order) {
            // Half a unit of rounding either way.
            if (reached > topP + 1e-9) break;
            allowed.add(id);
            reached += p;
          }
          const sample = createSampler({ topP, seed: 3 });
          for (let i = 0; i < 20; i++) expect(allowed).toContain(sample(values));
        },
      ),
    );
  });

  test.each<SamplingOptions>([
    { temperature: -1 },
    { temperature: Number.NaN },
    { temperature: Number.POSITIVE_INFINITY },
    { topK: 0 },
    { topK: 1.5 },
    { topP: 0 },
    { topP: 1.1 },
  ])("refuses %j", (options) => {
    expect(() => createSampler(options)).toThrow(UsageError);
  });
});
