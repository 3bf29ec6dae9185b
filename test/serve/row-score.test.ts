/** Log-probabilities, ranks and most likely tokens of a row of logits. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { RuntimeFailure } from "../../src/base/errors.ts";
import { logProbability } from "../../src/runtime/generate/sampling.ts";
import { RowDistribution } from "../../src/serve/row-score.ts";

const rows = fc
  .array(fc.integer({ min: -6, max: 6 }), { minLength: 1, maxLength: 40 })
  .map((values) => Float32Array.from(values, (value) => value / 2));

test("the most likely tokens are the first of all by logit, the lowest id first among equals", () => {
  fc.assert(
    fc.property(rows, fc.nat(25), (logits, count) => {
      const sorted = [...logits.keys()].sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b);
      const top = new RowDistribution(logits).top(count);
      expect(top.map(({ id }) => id)).toEqual(sorted.slice(0, count));
    }),
  );
});

test("every number of a row is the same wherever it is asked for, and what the sampler computes", () => {
  fc.assert(
    fc.property(rows, fc.nat(), (logits, seed) => {
      const id = seed % logits.length;
      const { logprob, rank, top } = new RowDistribution(logits).score(id, logits.length);
      expect(top.find((token) => token.id === id)?.logprob).toBe(logprob);
      expect(logprob).toBeCloseTo(logProbability(logits, id), 12);
      expect(rank).toBe(1 + [...logits].filter((logit) => logit > (logits[id] as number)).length);
    }),
  );
});

test.each([[[Number.NaN, 1]], [[Number.POSITIVE_INFINITY, 1]], [[Number.NEGATIVE_INFINITY]]])(
  "a row of %j is the model's failure",
  (values) => {
    expect(() => new RowDistribution(Float32Array.from(values))).toThrow(RuntimeFailure);
  },
);
