import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { PairStatistics } from "../../src/analyze/pair-statistics.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { fullLayers, parsePattern } from "../../src/pattern/pattern.ts";
import { type LayerObservation, LayerObserver } from "../../src/runtime/stages/layer-observer.ts";
import { fixturePath, readOracle } from "../oracle.ts";

const matrix = z.array(z.array(z.number().nullable()));
const statistic = z.object({
  mean: matrix,
  by_position: z.array(z.object({ queries: z.number(), mean: matrix })),
});
const oracleSchema = z.array(
  z.object({
    pattern: z.string().transform((text) => parsePattern(text)),
    sources: z.array(z.number()),
    queries: z.number(),
    overlap: statistic,
    recall: statistic,
    similarity: statistic,
  }),
);

describe.each(["glm-groups", "glm-shared", "v32-yarn"])("%s against transformers", (name) => {
  const runs = oracleSchema.parse(JSON.parse(readFileSync(`${fixturePath(name)}/analysis.json`, "utf8")));

  test.each(runs.map((run) => [run.pattern, run] as const))(
    "%s: overlap, recall and similarity",
    async (pattern, run) => {
      const model = await openModel(fixturePath(name));
      const { numHiddenLayers, indexerLayers, indexTopk } = model.config;
      const statistics = new PairStatistics(numHiddenLayers, fullLayers(indexerLayers), indexTopk);
      const observer = await LayerObserver.open(model, 1);
      for (const ids of readOracle(name).sequences) {
        for await (const observation of observer.observe(Int32Array.from(ids), pattern)) statistics.add(observation);
      }
      await observer.release();
      expect(statistics.sources).toEqual(run.sources);
      expect(statistics.queries).toBe(run.queries);
      const result = statistics.result();
      for (const of of ["overlap", "recall", "similarity"] as const) {
        const found = result[of];
        const wanted = run[of];
        expectClose(found.mean, wanted.mean);
        expect(found.by_position.map(({ queries }) => queries)).toEqual(
          wanted.by_position.map(({ queries }) => queries),
        );
        for (const [index, bucket] of found.by_position.entries()) {
          expectClose(bucket.mean, wanted.by_position[index]?.mean ?? []);
        }
      }
      expect(result.overlap.by_position[0]).toMatchObject({ from: indexTopk, to: 2 * indexTopk });
      expect(result.overlap.by_position[1]).toMatchObject({ from: 2 * indexTopk + 1, to: 4 * indexTopk });
    },
  );
});

test("layers that come and go, each for all sequences at once, show what they show when all stay", async () => {
  const model = await openModel(fixturePath("glm-groups"));
  const { numHiddenLayers: layers, indexerLayers, indexTopk } = model.config;
  const windows = readOracle("glm-groups").sequences.map((ids) => Int32Array.from(ids));
  const whole = new PairStatistics(layers, fullLayers(indexerLayers), indexTopk);
  const staying = await LayerObserver.open(model, 1);
  for (const ids of windows) for await (const seen of staying.observe(ids, indexerLayers)) whole.add(seen);
  await staying.release();
  const inTurn = new PairStatistics(layers, fullLayers(indexerLayers), indexTopk);
  const room = { staysFrom: layers, headStays: false, stays: 0, passing: 0 };
  const passing = await LayerObserver.open(model, 1, room);
  const observed = windows.map((ids) => passing.observe(ids, indexerLayers));
  for (let layer = 0; layer < layers; layer++) {
    for (const sequence of observed) inTurn.add((await sequence.next()).value as LayerObservation);
  }
  await passing.release();
  expect(inTurn.result()).toEqual(whole.result());
});

function expectClose(found: readonly (readonly (number | null)[])[], wanted: readonly (readonly (number | null)[])[]) {
  expect(found.map((row) => row.map((value) => value === null))).toEqual(
    wanted.map((row) => row.map((value) => value === null)),
  );
  const flat = wanted.flat();
  for (const [index, value] of found.flat().entries()) {
    expect(Math.abs((value ?? 0) - (flat[index] ?? 0))).toBeLessThan(1e-5);
  }
}
