/**
 * Losses of some of the windows: the same bits as those of all, whoever computes them and whatever is kept. The built
 * program opens the evaluators: it has the program of a child beside it.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import { type Pattern, parsePattern, withShared } from "../../src/pattern/pattern.ts";
import type { LossSettings } from "../../src/runtime/loss/loss-evaluator.ts";
import type { EvaluateOptions, PatternEvaluator, RowExecutions } from "../../src/runtime/measurement.ts";
import { copyFixture, pokeTensor } from "../checkpoint/safetensors-file.ts";
import { fixturePath } from "../oracle.ts";

/** Longer than `index_topk`, of lengths of their own. */
const windows = Array.from({ length: 6 }, (_, index) =>
  Int32Array.from({ length: 70 + 5 * index }, (_, position) => 3 + ((index * 57 + position * (position + 31)) % 80)),
);
const everyWindow = windows.map((_, index) => index);
const plenty = 2 ** 30;

const built = pathToFileURL(join(import.meta.dirname, "..", "..", "dist", "runtime", "loss", "loss-evaluator.js")).href;

let model: ModelFolder;
let openLossEvaluator: typeof import("../../src/runtime/loss/loss-evaluator.ts").openLossEvaluator;
let full: Pattern;
/** By pattern, the loss of every window without any reuse. */
const wanted = new Map<Pattern, number[]>();

beforeAll(async () => {
  ({ openLossEvaluator } = await import(built));
  model = await openModel(fixturePath("glm-groups"));
  full = model.config.indexerLayers;
  const flips = [1, 2, 3, 4].map((layer) => withShared(full, layer));
  const pairs = flips.flatMap((pattern) => [2, 3].map((layer) => withShared(pattern, layer)));
  const patterns = [full, ...flips, ...pairs, parsePattern("FSSSS")];
  const evaluator = await open({ workers: 1, stateBytes: 0 });
  for (const pattern of patterns) wanted.set(pattern, lossesOf(await evaluator.evaluate(pattern)));
  await evaluator.release();
});

function open(settings: Partial<LossSettings> & { workers: number }): Promise<PatternEvaluator> {
  const defaults = { device: "cpu", threads: 1, stateBytes: plenty, spillBytes: 0 } as const;
  return openLossEvaluator(model, windows, { ...defaults, ...settings });
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
  { workers: 1, stateBytes: 0, spillBytes: plenty },
  { workers: 2, stateBytes: 200_000, spillBytes: 400_000 },
])("%o", (settings) => {
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

describe("the states of candidates", () => {
  const rows = windows.reduce((sum, { length }) => sum + length, 0);
  const flip = (layer: number): Pattern => withShared(full, layer);

  /** Every candidate of the full pattern, then layer 1 on the base that flipped layer 3. */
  async function twoSteps(settings: Partial<LossSettings> & { workers: number }) {
    const evaluator = await open(settings);
    for (const layer of [1, 2, 3, 4]) await evaluator.evaluate(flip(layer), { base: full });
    const pattern = withShared(flip(3), 1);
    const measurement = await evaluator.evaluate(pattern, { base: flip(3) });
    await evaluator.release();
    expect(lossesOf(measurement)).toEqual(wanted.get(pattern));
    return measurement.executions;
  }

  test.each<Partial<LossSettings> & { workers: number }>([
    { workers: 1 },
    { workers: 3 },
    { workers: 1, stateBytes: 0, spillBytes: plenty },
  ])("are the next base's, and start its candidates where the bases part (%o)", async (settings) => {
    const executions = await twoSteps(settings);
    expect(executions.body).toBe((5 - 3) * windows.length);
    expect(executions.rows?.kept).toBe((5 - 3 + 3 - 1) * rows);
  });

  test("are dropped for want of memory: the base runs again where it differs", async () => {
    const executions = await twoSteps({ workers: 1, stateBytes: 6 * statesOf(95) });
    expect(executions.body).toBe((5 - 3 + 5 - 1) * windows.length);
    expect(executions.rows?.kept).toBe(0);
  });

  test.each([
    { named: true, runs: 0 },
    { named: false, runs: 3 },
  ])("stay first where the caller names them ($named)", async ({ named, runs }) => {
    const bases = windows.reduce((sum, { length }) => sum + statesOf(length), 0);
    const evaluator = await open({ workers: 1, stateBytes: 1.8 * bases });
    const sequences = [0, 1, 2];
    for (const layer of [2, 4]) await evaluator.evaluate(flip(layer), { base: full, sequences });
    await evaluator.evaluate(flip(3), { base: full, sequences, keep: named ? [flip(4)] : [] });
    const measurement = await evaluator.evaluate(flip(4), { base: flip(4), sequences });
    expect(measurement.executions.body).toBe(runs);
    expect(lossesOf(measurement)).toEqual(wanted.get(flip(4))?.slice(0, 3));
    await evaluator.release();
  });
});

test.each<Partial<LossSettings>>([
  {},
  { objective: "kl" },
  { dtype: "float16" },
  { dtype: "float16", objective: "kl" },
])("a value that is not finite is found in its layer, and the sequence has its own number (%o)", async (settings) => {
  const folder = await copyFixture("glm-groups");
  const norm = "model.layers.3.input_layernorm.weight";
  await pokeTensor(join(folder, "model.safetensors"), norm, 0, new Uint8Array(Float32Array.of(Number.NaN).buffer));
  const damaged = await openModel(folder);
  const place = { device: "cpu", workers: 2, threads: 1, stateBytes: plenty } as const;
  const evaluator = await openLossEvaluator(damaged, windows, { ...place, ...settings });
  await expect(evaluator.evaluate(full, { base: full, sequences: [5] })).rejects.toMatchObject({
    code: "E_RUNTIME",
    message: expect.stringMatching(/^Sequence [135]: layer 3 returns values that are not finite, with pattern [FS]+$/),
  });
  await evaluator.release();
  await rm(folder, { recursive: true });
});

test("a window that is not there is refused, and so are sizes that are none", async () => {
  for (const settings of [{ stateBytes: -1 }, { spillBytes: Number.POSITIVE_INFINITY }, { top: 0.5 }]) {
    await expect(open({ workers: 1, ...settings })).rejects.toThrow(RangeError);
  }
  const evaluator = await open({ workers: 1 });
  for (const sequences of [[], [6], [-1], [0.5]]) {
    await expect(evaluator.evaluate(full, { sequences })).rejects.toThrow(RangeError);
  }
  await evaluator.release();
});
