/** Index scores tie exactly (at 0, by ReLU): torch takes any of the tied keys, ONNX Runtime on CPU the lowest index. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { openModel } from "../../src/graph/model-folder.ts";
import { openLossEvaluator } from "../../src/runtime/loss/loss-evaluator.ts";
import type { PatternEvaluator } from "../../src/runtime/measurement.ts";
import { StageModel } from "../../src/runtime/stages/stage-model.ts";
import { fixturePath, largestDifference, readOracle } from "../oracle.ts";

const oracle = readOracle("v32-ties");
const cpu = { device: "cpu", threads: 1, workers: 1 } as const;
let evaluator: PatternEvaluator;
let stages: StageModel;

beforeAll(async () => {
  const model = await openModel(fixturePath("v32-ties"));
  stages = await StageModel.open(model, cpu);
  evaluator = await openLossEvaluator(
    model,
    oracle.sequences.map((ids) => Int32Array.from(ids)),
    cpu,
  );
});
afterAll(async () => {
  await evaluator.release();
  await stages.release();
});

test("losses equal transformers' with ties to the lowest index", async () => {
  for (const { pattern, mean_nll } of oracle.losses_ties_to_lowest_index ?? []) {
    const { sequences } = await evaluator.evaluate(pattern);
    expect(
      largestDifference(
        sequences.map(({ loss }) => loss),
        mean_nll,
      ),
    ).toBeLessThan(1e-4);
  }
});

test("ties matter: with torch's choice the losses differ by more than rounding", async () => {
  const [torch] = oracle.losses;
  const { sequences } = await evaluator.evaluate(torch?.pattern ?? oracle.native_pattern);
  expect(
    largestDifference(
      sequences.map(({ loss }) => loss),
      torch?.mean_nll ?? [],
    ),
  ).toBeGreaterThan(1e-2);
});

test("selected keys of layer 0 have the scores of torch's choice, key by key", async () => {
  for (const run of oracle.runs.filter(({ pattern }) => pattern === oracle.native_pattern)) {
    const { hidden, rows } = await stages.embed(Int32Array.from(oracle.sequences[run.sequence] ?? []));
    const [chosen] = run.indexers;
    let row = 0;
    for (const { indices, width } of (await stages.selectKeys(0, hidden, rows)).selected) {
      for (let start = 0; start < indices.length; start += width, row++) {
        const scores = chosen?.scores?.[row] ?? [];
        const ours = [...indices.subarray(start, start + width)].filter((key) => key <= row);
        const theirs = chosen?.top_k[row] ?? [];
        const scoresOf = (keys: number[]) => keys.map((key) => scores[key] ?? NaN).sort((a, b) => a - b);
        expect(largestDifference(scoresOf(ours), scoresOf(theirs))).toBeLessThan(1e-5);
      }
    }
    expect(row).toBe(rows.length);
  }
});
