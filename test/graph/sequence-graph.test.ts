/** The sequence graph in every provider's formulation, run on the CPU, against the stages. */
import { beforeAll, describe, expect, it } from "vitest";
import { OnnxType } from "../../src/checkpoint/dtype.ts";
import { buildSequenceGraph, sequenceSpec } from "../../src/graph/frames/sequence-graph.ts";
import {
  postAttentionBytes,
  type SequenceGraphSettings,
  type SequenceShape,
} from "../../src/graph/frames/sequence-rows.ts";
import { gatherBlocks, readableKeys } from "../../src/graph/frames/sequence-sizes.ts";
import { encodeModel } from "../../src/graph/graph-builder.ts";
import { kernelsOf } from "../../src/graph/layer/kernels.ts";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import { isFull, type Pattern, parsePattern } from "../../src/pattern/pattern.ts";
import { SequenceBatch } from "../../src/runtime/loss/sequence-batch.ts";
import { StagedLosses } from "../../src/runtime/loss/staged-loss.ts";
import { type Feeds, floats, loadRuntime, OnnxSession } from "../../src/runtime/session/onnx-session.ts";
import { fixturePath } from "../oracle.ts";

const settings = (provider: SequenceGraphSettings["provider"]): SequenceGraphSettings => ({
  precision: OnnxType.float,
  provider,
  boundaries: false,
});

function someWindows(model: ModelFolder, lengths: number[]): Int32Array[] {
  let state = 7;
  return lengths.map((length) =>
    Int32Array.from({ length }, () => {
      state = (state * 1103515245 + 12345) % 2147483648;
      return state % model.config.vocabSize;
    }),
  );
}

/** Mean loss of each window by a whole-sequence graph, for each pattern: one session runs them all. */
async function lossesOf(
  model: ModelFolder,
  windows: Int32Array[],
  patterns: readonly Pattern[],
  shape: SequenceShape,
  graphSettings: SequenceGraphSettings,
): Promise<number[][]> {
  const { Tensor } = await loadRuntime();
  const { config } = model;
  const graph = encodeModel(buildSequenceGraph(config, await model.weights(), shape, graphSettings));
  const session = await OnnxSession.create(graph, "test", {
    device: "cpu",
    threads: 1,
    folder: model.path,
    solo: true,
  });
  try {
    const batch = new SequenceBatch(windows, shape);
    const rows: Record<string, BigInt64Array> = {
      input_ids: batch.ids,
      target_ids: batch.targets,
      position_ids: batch.positions,
    };
    const found: number[][] = [];
    for (const pattern of patterns) {
      const feeds: Feeds = {};
      for (const { name } of sequenceSpec(config, shape, graphSettings).inputs) {
        const values = rows[name];
        const [kind, layer] = name.split(".");
        feeds[name] =
          values === undefined
            ? new Tensor("bool", Uint8Array.of(kind === "run" || isFull(pattern, Number(layer)) ? 1 : 0), [])
            : new Tensor("int64", values, [values.length]);
      }
      const all = floats((await session.run(feeds)).negative_log_likelihood, "negative_log_likelihood");
      found.push(
        batch.lossRows.map((places) => places.reduce((sum, row) => sum + (all[row] as number), 0) / places.length),
      );
    }
    return found;
  } finally {
    await session.release();
  }
}

/** One chunk; several, of which the last is padded; several sequences at once, also of other lengths. */
const shapes: Record<string, { lengths: number[]; shape: SequenceShape }> = {
  "one chunk": { lengths: [80, 80], shape: { batch: 2, length: 80, chunks: 1, chunkRows: 80 } },
  "padded chunks": { lengths: [90], shape: { batch: 1, length: 96, chunks: 3, chunkRows: 32 } },
  "chunks of a batch": { lengths: [90, 61], shape: { batch: 3, length: 96, chunks: 6, chunkRows: 16 } },
};

describe.each(["glm-groups", "glm-pattern", "glm-shared", "v32-yarn", "v32-fp8"])("%s", (fixture) => {
  let model: ModelFolder;
  let patterns: Pattern[];
  /** By shape, the stages' losses of both patterns. */
  const expected = new Map<string, number[][]>();
  beforeAll(async () => {
    model = await openModel(fixturePath(fixture));
    const full = model.config.indexerLayers;
    patterns = [full, parsePattern(`F${"S".repeat(full.length - 1)}`)];
    for (const [name, { lengths }] of Object.entries(shapes)) {
      const windows = someWindows(model, lengths);
      const staged = await StagedLosses.open(model, windows, { device: "cpu", threads: 1, stateBytes: 0 });
      const found: number[][] = [];
      for (const pattern of patterns) {
        found.push((await staged.evaluate(pattern, {})).sequences.map(({ loss }) => loss));
      }
      expected.set(name, found);
      await staged.release();
    }
  });

  it.each(
    (["cpu", "cuda", "webgpu"] as const).flatMap((provider) =>
      Object.keys(shapes).map((name) => [provider, name] as const),
    ),
  )("%s's graph in %s has the stages' losses", async (provider, name) => {
    const { lengths, shape } = shapes[name] as (typeof shapes)[string];
    const losses = await lossesOf(model, someWindows(model, lengths), patterns, shape, settings(provider));
    expect(losses).toHaveLength(2);
    for (const [place, found] of losses.entries()) {
      expect(found).toHaveLength(lengths.length);
      for (const [index, loss] of found.entries()) {
        expect(loss).toBeCloseTo(expected.get(name)?.[place]?.[index] as number, 5);
      }
    }
  });
});

it.each([
  ["cpu", {}],
  ["cuda", {}],
  ["cuda", { mostGathered: 2 ** 16 }],
] as const)("gathers the selected rows of late queries in %s's graph, %o", async (provider, kernelSettings) => {
  const model = await openModel(fixturePath("glm-groups"));
  const length = 1024;
  const windows = someWindows(model, [length]);
  const shape = { batch: 1, length, chunks: 16, chunkRows: 64 };
  const kernels = kernelsOf(provider, OnnxType.float, kernelSettings);
  const graphSettings = { ...settings(provider), ...kernelSettings };
  const blocks = gatherBlocks({ config: model.config, shape, kernels, settings: graphSettings });
  expect(blocks > 1).toBe("mostGathered" in kernelSettings);
  // In a loop, where nothing is known before the run.
  expect(shape.chunks * model.config.numHiddenLayers).toBeGreaterThan(kernels.writtenOut);
  expect(readableKeys({ config: model.config, shape, kernels })).toBeLessThan(length - 128);
  const staged = await StagedLosses.open(model, windows, { device: "cpu", threads: 1, stateBytes: 0 });
  const full = model.config.indexerLayers;
  const expected = (await staged.evaluate(full, {})).sequences[0]?.loss as number;
  const [[found] = []] = await lossesOf(model, windows, [full], shape, graphSettings);
  expect(found).toBeCloseTo(expected, 4);
  await staged.release();
});

it("takes what follows attention chunk by chunk where all rows would be too much", async () => {
  const read = await openModel(fixturePath("glm-groups"));
  const { lengths, shape } = shapes["padded chunks"] as (typeof shapes)[string];
  const windows = someWindows(read, lengths);
  const staged = await StagedLosses.open(read, windows, { device: "cpu", threads: 1, stateBytes: 0 });
  const full = read.config.indexerLayers;
  const expected = (await staged.evaluate(full, {})).sequences[0]?.loss as number;
  const model = { ...read, config: { ...read.config, intermediateSize: 2 ** 40 } };
  expect(postAttentionBytes(read.config, shape)).toBeGreaterThan(0);
  expect(postAttentionBytes(model.config, shape)).toBe(0);
  const [[found] = []] = await lossesOf(model, windows, [full], shape, settings("cuda"));
  expect(found).toBeCloseTo(expected, 5);
  await staged.release();
});

it("selects all keys of sequences no longer than index_topk", async () => {
  const model = await openModel(fixturePath("glm-groups"));
  const length = model.config.indexTopk;
  const windows = someWindows(model, [length]);
  const shape = { batch: 1, length, chunks: 1, chunkRows: length };
  const staged = await StagedLosses.open(model, windows, { device: "cpu", threads: 1, stateBytes: 0 });
  const expected = (await staged.evaluate(model.config.indexerLayers, {})).sequences[0]?.loss as number;
  const own = [model.config.indexerLayers];
  const [[found] = []] = await lossesOf(model, windows, own, shape, settings("cuda"));
  expect(found).toBeCloseTo(expected, 5);
  await staged.release();
});

it.each(["cpu", "cuda", "webgpu"] as const)("%s's graph has the stages' divergences", async (provider) => {
  const model = await openModel(fixturePath("glm-groups"));
  const { lengths, shape } = shapes["chunks of a batch"] as (typeof shapes)[string];
  const [windows, top] = [someWindows(model, lengths), 20];
  const own = model.config.indexerLayers;
  const pattern = parsePattern("FSFSF");
  const staged = await StagedLosses.open(model, windows, { device: "cpu", threads: 1, stateBytes: 0, top });
  const expected = (await staged.evaluate(pattern, {})).sequences.map(({ kl }) => kl as number);
  await staged.release();
  const graphSettings = { ...settings(provider), top };
  const { Tensor } = await loadRuntime();
  const graph = encodeModel(buildSequenceGraph(model.config, await model.weights(), shape, graphSettings));
  const session = await OnnxSession.create(graph, "test", {
    device: "cpu",
    threads: 1,
    folder: model.path,
    solo: true,
  });
  const batch = new SequenceBatch(windows, shape);
  const flag = (value: boolean) => new Tensor("bool", Uint8Array.of(value ? 1 : 0), []);
  const run = async (pattern: Pattern, baseline: Float32Array) => {
    const feeds: Feeds = {
      input_ids: new Tensor("int64", batch.ids, [batch.ids.length]),
      target_ids: new Tensor("int64", batch.targets, [batch.ids.length]),
      position_ids: new Tensor("int64", batch.positions, [batch.ids.length]),
      own_pattern: flag(pattern === own),
      own_distribution: new Tensor("float32", baseline, [baseline.length / (1 + 2 * top), 1 + 2 * top]),
    };
    for (const layer of own.split("").keys()) {
      feeds[`run.${layer}`] = flag(true);
      if (layer > 0) feeds[`select.${layer}`] = flag(isFull(pattern, layer));
    }
    return floats((await session.run(feeds)).divergence, "divergence");
  };
  const found = await run(pattern, await run(own, new Float32Array()));
  await session.release();
  for (const [index, rows] of batch.lossRows.entries()) {
    const kl = rows.reduce((sum, row) => sum + (found[2 * row + 1] as number), 0) / rows.length;
    expect(kl).toBeCloseTo(expected[index] as number, 5);
    expect(kl).toBeGreaterThan(1e-3);
  }
});
