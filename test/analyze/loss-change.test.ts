import { expect, test } from "vitest";
import { lossChange, measureFlips, measurePairs } from "../../src/analyze/loss-change.ts";
import { type Pattern, parsePattern } from "../../src/pattern/pattern.ts";
import { meanLoss } from "../../src/runtime/loss/mean-loss.ts";
import type { Measurement } from "../../src/runtime/measurement.ts";

/** Texts that differ a lot, and flips that cost each of them almost the same; layers 2 and 3 cost 0.5 more together. */
function measure(pattern: Pattern): Measurement {
  const cost = (0.1 + Number(pattern[2] === "S") * 0.2 + Number(pattern[3] === "S") * 0.3) * Number(pattern !== "FFFF");
  const together = pattern[2] === "S" && pattern[3] === "S" ? 0.5 : 0;
  const sequences = [1, 5, 9].map((loss, index) => ({
    loss: loss + cost + together + 0.01 * index * cost,
    tokens: 10,
  }));
  const executions = { body: 0, indexer: 0, naiveBody: 0, naiveIndexer: 0 };
  return { pattern, ...meanLoss(sequences), sequences, seconds: 0, executions };
}

test("changes are paired over sequences", async () => {
  const base = measure(parsePattern("FFFF"));
  const flips = await measureFlips(base, async (pattern) => measure(pattern));
  expect(flips.map(({ layer }) => layer)).toEqual([1, 2, 3]);
  expect(flips[1]?.change).toBeCloseTo(0.3 * 1.01, 10);
  expect(base.standardError).toBeGreaterThan(2);
  expect(flips[1]?.standardError).toBeLessThan(0.01);
  expect(lossChange(base, base)).toEqual({ change: 0, standardError: 0 });
});

test("the interaction of a pair is what its flips do not explain", async () => {
  const base = measure(parsePattern("FFFF"));
  const asked: [Pattern, Pattern][] = [];
  const flips = await measureFlips(base, async (pattern) => measure(pattern));
  const pairs = await measurePairs(base, flips, async (pattern, from) => {
    asked.push([pattern, from]);
    return measure(pattern);
  });
  expect(pairs.map(({ layers }) => layers)).toEqual([
    [1, 2],
    [1, 3],
    [2, 3],
  ]);
  // Each departs from the flip of its lower layer, whose states are kept.
  expect(asked).toContainEqual(["FFSS", "FFSF"]);
  // 0.1 is in each change once: together once less than apart.
  expect(pairs[0]?.interaction.change).toBeCloseTo(-0.1 * 1.01, 10);
  expect(pairs[2]?.interaction.change).toBeCloseTo(0.5 - 0.1 * 1.01, 10);
});
