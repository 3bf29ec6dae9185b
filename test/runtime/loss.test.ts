/**
 * Losses of some of the windows: the same bits as those of all, whoever computes them and whatever is kept. The built
 * program opens the evaluators: it has the program of a child beside it.
 */
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import { firstDifference, type Pattern, parsePattern, withShared } from "../../src/pattern/pattern.ts";
import type { EvaluateOptions, PatternEvaluator, RowExecutions } from "../../src/runtime/measurement.ts";
import { fixturePath } from "../oracle.ts";

/** Longer than `index_topk`, of lengths of their own. */
const windows = Array.from({ length: 6 }, (_, index) =>
  Int32Array.from({ length: 70 + 5 * index }, (_, position) => 3 + ((index * 57 + position * (position + 31)) % 80)),
);
const everyWindow = windows.map((_, index) => index);
const plenty = 2 ** 30;

const built = pathToFileURL(join(import.meta.dirname, "..", "..", "dist", "runtime", "loss.js")).href;

let model: ModelFolder;
let openLossEvaluator: typeof import("../../src/runtime/loss.ts").openLossEvaluator;
let full: Pattern;
/** By pattern, the loss of every window without any reuse. */
const wanted = new Map<Pattern, number[]>();

beforeAll(async () => {
  ({ openLossEvaluator } = await import(built));
  model = await openModel(fixturePath("glm-groups"));
  full = model.config.indexerLayers;
  const flips = [1, 2, 3, 4].map((layer) => withShared(full, layer));
  const patterns = [full, ...flips, ...flips.map((pattern) => withShared(pattern, 2)), parsePattern("FSSSS")];
  const evaluator = await open({ workers: 1, stateBytes: 0 });
  for (const pattern of patterns) wanted.set(pattern, lossesOf(await evaluator.evaluate(pattern)));
  await evaluator.release();
});

function open(settings: { workers: number; stateBytes?: number; dtype?: "float16" }): Promise<PatternEvaluator> {
  return openLossEvaluator(model, windows, { device: "cpu", threads: 1, stateBytes: plenty, ...settings });
}

const lossesOf = ({ sequences }: { sequences: { loss: number }[] }): number[] => sequences.map(({ loss }) => loss);

/** Bytes of the states of one sequence and one pattern, by the model's sizes. */
function statesOf(length: number): number {
  const { hiddenSize, indexTopk, kvLoraRank, qkRopeHeadDim, indexHeadDim } = model.config;
  const first = 5 * (kvLoraRank + qkRopeHeadDim) + 4 * indexHeadDim;
  return 4 * (length * (6 * hiddenSize + 4 * indexTopk) + indexTopk * first);
}

/** A race's way: blocks of candidates, a base that changes half way, blocks that no base has touched. */
const race: { pattern: Pattern; options: EvaluateOptions }[] = [
  ["FFFFF", "FFFFF", [0, 1]],
  ["FFSFF", "FFFFF", [1, 0]],
  ["FFFSF", "FFFFF", [0, 1]],
  ["FFFSF", "FFFFF", [2, 3, 5]],
  ["FFFFS", "FFFFF", [3]],
  ["FFSSF", "FFFSF", [4, 0, 2]],
  ["FFSFS", "FFFSF", [5]],
  ["FFFSF", "FFFSF", [1, 2, 3, 4, 5, 0]],
  ["FSSSS", undefined, [4]],
  ["FSFFF", "FFFFF", undefined],
].map(([pattern, base, sequences]) => ({
  pattern: pattern as Pattern,
  options: {
    ...(base === undefined ? {} : { base: base as Pattern }),
    ...(sequences === undefined ? {} : { sequences: sequences as number[] }),
  },
}));

describe.each([
  { workers: 1, stateBytes: plenty },
  { workers: 1, stateBytes: 500_000 },
  { workers: 2, stateBytes: plenty },
  { workers: 4, stateBytes: 1_000_000 },
])("$workers process(es) with $stateBytes bytes of states", (settings) => {
  test("give the losses of full passes, in the order asked for", async () => {
    const evaluator = await open(settings);
    for (const { pattern, options } of race) {
      const { sequences = everyWindow } = options;
      const measurement = await evaluator.evaluate(pattern, options);
      expect(lossesOf(measurement)).toEqual(sequences.map((index) => wanted.get(pattern)?.[index]));
      const tokens = sequences.map((index) => (windows[index]?.length ?? 0) - 1);
      expect(measurement.tokens).toBe(tokens.reduce((sum, count) => sum + count));
      const total = measurement.sequences.reduce((sum, { loss, tokens }) => sum + loss * tokens, 0);
      expect(measurement.loss).toBeCloseTo(total / measurement.tokens, 12);
    }
    await evaluator.release();
  });
});

test("float16 batches give the losses of all windows when asked for some", async () => {
  const evaluator = await open({ workers: 1, dtype: "float16" });
  const pattern = withShared(full, 2);
  const all = lossesOf(await evaluator.evaluate(pattern, { base: full }));
  await evaluator.evaluate(full, { base: full });
  const { sequences, executions } = await evaluator.evaluate(pattern, { base: full, sequences: [4, 1] });
  expect(sequences.map(({ loss }) => loss)).toEqual([all[4], all[1]]);
  expect(executions.naiveBody).toBe(2 * 5);
  await evaluator.release();
});

test("a base is run on the sequences that are asked for, and on no other", async () => {
  const evaluator = await open({ workers: 1 });
  const pattern = withShared(full, 3);
  const first = await evaluator.evaluate(pattern, { base: full, sequences: [2] });
  expect(first.executions).toMatchObject({ body: 5 + 2, indexer: 5 + 1, naiveBody: 5, naiveIndexer: 4 });
  const both = await evaluator.evaluate(withShared(full, 4), { base: full, sequences: [2, 5] });
  expect(both.executions.body).toBe(1 + (5 + 1));
  await evaluator.release();
});

test("what each saving spared adds up to full passes", async () => {
  const evaluator = await open({ workers: 2 });
  const rows = windows.reduce((sum, { length }) => sum + length, 0);
  const sums: RowExecutions = { run: 0, prefix: 0, invariant: 0, kept: 0 };
  let evaluations = 0;
  const evaluate = async (pattern: Pattern, base: Pattern) => {
    const { executions } = await evaluator.evaluate(pattern, { base });
    for (const key of Object.keys(sums) as (keyof RowExecutions)[]) sums[key] += executions.rows?.[key] ?? NaN;
    expect(sums.run + sums.prefix + sums.invariant + sums.kept).toBe(5 * rows * ++evaluations);
    return executions;
  };
  await evaluate(full, full);
  expect(sums).toMatchObject({ prefix: 0, invariant: 0, kept: 0 });
  await evaluate(withShared(full, 3), full);
  const invariant = model.config.indexTopk * windows.length;
  expect(sums).toMatchObject({ prefix: 3 * rows, invariant: 2 * invariant, kept: 0 });
  await evaluator.release();
});

describe("the states of the best candidate", () => {
  const step = (base: Pattern, layers: number[]): Pattern[] => layers.map((layer) => withShared(base, layer));

  /** Candidates of the full pattern, then those of the best of them; the executions of each. */
  async function steps(settings: { workers: number; stateBytes?: number }, options: EvaluateOptions = {}) {
    const evaluator = await open(settings);
    const first: { pattern: Pattern; loss: number }[] = [];
    for (const pattern of step(full, [1, 2, 3, 4])) {
      first.push(await evaluator.evaluate(pattern, { base: full, ...options }));
    }
    const { pattern: base } = first.reduce((best, tried) => (tried.loss < best.loss ? tried : best));
    const [next] = step(base, base === withShared(full, 4) ? [3] : [4]) as [Pattern];
    const measurement = await evaluator.evaluate(next, { base, ...options });
    await evaluator.release();
    expect(lossesOf(measurement)).toEqual(wanted.get(next));
    return { base, flipped: base.indexOf("S"), from: firstDifference(next, base), ...measurement };
  }

  test.each([1, 3])("are there when it becomes the base (%i processes)", async (workers) => {
    const { executions, from, flipped } = await steps({ workers });
    expect(executions.body).toBe((5 - from) * windows.length);
    const rows = windows.reduce((sum, { length }) => sum + length, 0);
    expect(executions.rows?.kept).toBe((5 - flipped) * rows);
  });

  test("are dropped for want of memory, and the base runs again where it differs", async () => {
    const { executions, from, flipped } = await steps({ workers: 1, stateBytes: 6 * statesOf(95) });
    expect(executions.body).toBe((5 - from + 5 - flipped) * windows.length);
    expect(executions.rows?.kept).toBe(0);
  });

  test("are those of the patterns that the caller names", async () => {
    const evaluator = await open({ workers: 2 });
    const [one, two, three] = step(full, [2, 3, 4]) as [Pattern, Pattern, Pattern];
    await evaluator.evaluate(one, { base: full, keep: [], sequences: [0, 1, 2] });
    await evaluator.evaluate(two, { base: full, keep: [one], sequences: [0, 1, 2] });
    await evaluator.evaluate(three, { base: full, keep: [one], sequences: [0, 1, 2] });
    const kept = await evaluator.evaluate(one, { base: one, keep: [two], sequences: [0, 1, 2] });
    expect(kept.executions.body).toBe(0);
    expect(lossesOf(kept)).toEqual(wanted.get(one)?.slice(0, 3));
    const dropped = await evaluator.evaluate(two, { base: two, keep: [], sequences: [0, 1, 2] });
    expect(dropped.executions.body).toBe(3 * 3);
    await evaluator.release();
  });
});

test("a window that is not there is refused", async () => {
  const evaluator = await open({ workers: 1 });
  for (const sequences of [[], [6], [-1], [0.5]]) {
    await expect(evaluator.evaluate(full, { sequences })).rejects.toThrow(RangeError);
  }
  await evaluator.release();
});
