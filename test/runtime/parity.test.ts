import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import { fullLayers, isFull, sourceLayer } from "../../src/pattern/pattern.ts";
import { openDecoder } from "../../src/runtime/generate/decoder.ts";
import { openLossEvaluator } from "../../src/runtime/loss/loss-evaluator.ts";
import type { PatternEvaluator } from "../../src/runtime/measurement.ts";
import { type SelectedKeys, StageModel } from "../../src/runtime/stages/stage-model.ts";
import { copyFixture } from "../checkpoint/safetensors-file.ts";
import { fixturePath, largestDifference, oracleLogits, readOracle, untiedFixtures } from "../oracle.ts";

/** The checkpoint as if all of its indexers had been trained: the oracle ran patterns with each of them. */
async function withoutSharing(name: string): Promise<string> {
  const folder = await copyFixture(name);
  const path = join(folder, "config.json");
  const config = JSON.parse(await readFile(path, "utf8"));
  await writeFile(path, JSON.stringify({ ...config, index_topk_pattern: null, index_topk_freq: 1 }));
  return folder;
}

const cpu = { device: "cpu", threads: 1, workers: 1 } as const;

describe.each(untiedFixtures)("%s against transformers", (name) => {
  const oracle = readOracle(name);
  const windows = oracle.sequences.map((ids) => Int32Array.from(ids));
  let folder: string;
  let model: ModelFolder;
  let evaluator: PatternEvaluator;
  let stages: StageModel;

  beforeAll(async () => {
    folder = oracle.native_pattern === oracle.indexers_present ? fixturePath(name) : await withoutSharing(name);
    model = await openModel(folder);
    evaluator = await openLossEvaluator(model, windows, cpu);
    stages = await StageModel.open(model, cpu);
  });
  afterAll(async () => {
    await evaluator.release();
    await stages.release();
    if (folder !== fixturePath(name)) await rm(folder, { recursive: true });
  });

  test("the config says which layers run an indexer", async () => {
    expect((await openModel(fixturePath(name))).config.indexerLayers).toBe(oracle.native_pattern);
    expect(model.config.indexerLayers).toBe(oracle.indexers_present);
  });

  test.each(oracle.runs.map((run) => [run.pattern, run.sequence, run] as const))(
    "%s, sequence %i: hidden states at every boundary and selected keys",
    async (pattern, sequence, run) => {
      const { hidden: embedded, rows } = await stages.embed(windows[sequence] as Int32Array);
      const width = model.config.hiddenSize;
      const selected = new Map<number, SelectedKeys[]>();
      let hidden = embedded;
      for (let layer = 0; layer <= model.config.numHiddenLayers; layer++) {
        for (const [i, row] of run.boundary_rows.entries()) {
          const wanted = run.boundaries[layer]?.[i] ?? [];
          const found = hidden.subarray(row * width, (row + 1) * width);
          expect(largestDifference(found, wanted)).toBeLessThan(1e-4);
        }
        if (layer === model.config.numHiddenLayers) break;
        if (isFull(pattern, layer)) {
          selected.set(layer, (await stages.selectKeys(layer, hidden, rows)).selected);
          const wanted = run.indexers.find((indexer) => indexer.layer === layer)?.top_k;
          expect(visibleKeys(selected.get(layer) ?? [], rows.length)).toEqual(wanted);
        }
        const keys = selected.get(sourceLayer(pattern, layer)) ?? [];
        hidden = (await stages.runBody(layer, hidden, rows, keys)).hidden;
      }
    },
  );

  test.each(oracle.runs.map((run) => [run.pattern, run.sequence, run] as const))(
    "%s, sequence %i: logits in one prefill, and through the cache in chunks and single tokens",
    async (pattern, sequence, run) => {
      const ids = oracle.sequences[sequence] ?? [];
      const wanted = oracleLogits(name, run);
      const row = (index: number) =>
        wanted.subarray(index * oracle.vocabulary_size, (index + 1) * oracle.vocabulary_size);
      const whole = await openDecoder(model, pattern, cpu);
      expect(largestDifference(await whole.prefill(ids), row(ids.length - 1))).toBeLessThan(1e-4);
      await whole.release();
      const cached = await openDecoder(model, pattern, { ...cpu, capacity: 8 });
      expect(largestDifference(await cached.prefill(ids.slice(0, 20)), row(19))).toBeLessThan(1e-4);
      expect(largestDifference(await cached.decode(ids[20] ?? -1), row(20))).toBeLessThan(1e-4);
      expect(largestDifference(await cached.prefill(ids.slice(21, 24)), row(23))).toBeLessThan(1e-4);
      for (let i = 24; i < ids.length; i++) {
        expect(largestDifference(await cached.decode(ids[i] ?? -1), row(i))).toBeLessThan(1e-4);
      }
      await cached.release();
    },
  );

  test("LM loss of every pattern, whatever pattern's states are reused", async () => {
    for (const { pattern, mean_nll, loss } of oracle.losses) {
      const fresh = await evaluator.evaluate(pattern);
      expect(fresh.loss).toBeCloseTo(loss, 4);
      expect(
        largestDifference(
          fresh.sequences.map((sequence) => sequence.loss),
          mean_nll,
        ),
      ).toBeLessThan(1e-4);
      const reused = await evaluator.evaluate(pattern, { base: oracle.indexers_present });
      expect(reused.sequences).toEqual(fresh.sequences);
      expect(reused.loss).toBe(fresh.loss);
    }
  });

  test("greedy generation", async () => {
    for (const { pattern, prompt, tokens } of oracle.generations) {
      const decoder = await openDecoder(model, pattern, cpu);
      const generated: number[] = [];
      let logits = await decoder.prefill(prompt);
      while (generated.length < tokens.length) {
        const next = argmax(logits);
        generated.push(next);
        logits = await decoder.decode(next);
      }
      expect(generated).toEqual(tokens);
      await decoder.release();
    }
  });

  test("a decoder stores keys of Full layers alone", async () => {
    const pattern = oracle.losses.at(-1)?.pattern ?? oracle.native_pattern;
    const decoder = await openDecoder(model, pattern, cpu);
    await decoder.prefill(oracle.sequences[0]?.slice(0, 30) ?? []);
    const perRow = 4 * model.config.indexHeadDim;
    expect(decoder.cacheBytes.indexerKey).toBe(30 * perRow * fullLayers(pattern).length);
    await decoder.release();
  });
});

/** Selected keys of each row that the row may see, ascending. */
function visibleKeys(chunks: readonly SelectedKeys[], length: number): number[][] {
  const rows: number[][] = [];
  for (const { indices, width } of chunks) {
    for (let start = 0; start < indices.length; start += width) {
      const row = rows.length;
      const keys = [...indices.subarray(start, start + width)].filter((key) => key <= row);
      rows.push(keys.sort((a, b) => a - b));
    }
  }
  expect(rows).toHaveLength(length);
  return rows;
}

function argmax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if ((values[i] ?? 0) > (values[best] ?? 0)) best = i;
  return best;
}
