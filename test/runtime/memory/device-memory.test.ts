/** What a graph of a GPU holds while it runs, as ONNX Runtime tells on the CPU: planning does not depend on the device. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { DsaConfig } from "../../../src/checkpoint/config/model-config.ts";
import { OnnxType } from "../../../src/checkpoint/dtype.ts";
import { buildSequenceGraph } from "../../../src/graph/frames/sequence-graph.ts";
import { attentionBytes, indexingBytes, scoreBlocks } from "../../../src/graph/frames/sequence-sizes.ts";
import { encodeModel } from "../../../src/graph/graph-builder.ts";
import { kernelsOf } from "../../../src/graph/layer/kernels.ts";
import { openModel } from "../../../src/graph/model-folder.ts";
import { SequenceBatch, sequenceShape } from "../../../src/runtime/loss/sequence-batch.ts";
import { deviceNeed, totalNeed } from "../../../src/runtime/loss/sequence-memory.ts";
import { loadRuntime, OnnxSession } from "../../../src/runtime/session/onnx-session.ts";
import { fixturePath } from "../../oracle.ts";

interface NodeEvent {
  cat: string;
  ts: number;
  args?: { op_name?: string; mem_bytes_requested_in_use?: string; input_type_shape?: Record<string, number[]>[] };
}

test("copies of keys are freed when a chunk has read them, and the chunk that needs most comes first", async () => {
  const folder = mkdtempSync(join(tmpdir(), "indexcache-memory-"));
  const model = await openModel(fixturePath("glm-groups"));
  const { config } = model;
  const shape = { batch: 1, length: 384, chunks: 12, chunkRows: 32 };
  // WebGPU's graph writes chunks out and cuts keys to slices, as CUDA's does on a large GPU.
  const graph = buildSequenceGraph(config, await model.weights(), shape, {
    precision: OnnxType.float,
    provider: "webgpu",
    boundaries: false,
  });
  const session = await OnnxSession.create(encodeModel(graph), "test", {
    ...{ device: "cpu", threads: 1, folder: model.path, solo: true },
    profilePrefix: join(folder, "profile"),
  });
  const { Tensor } = await loadRuntime();
  const batch = new SequenceBatch([Int32Array.from({ length: 384 }, (_, i) => (i * 37) % config.vocabSize)], shape);
  const rows = { input_ids: batch.ids, target_ids: batch.targets, position_ids: batch.positions };
  const switches = session.inputNames.filter((name) => /^(run|select)\./.test(name));
  await session.run({
    ...Object.fromEntries(Object.entries(rows).map(([name, ids]) => [name, new Tensor("int64", ids, [ids.length])])),
    ...Object.fromEntries(switches.map((name) => [name, new Tensor("bool", [true], [])])),
  });
  await session.release();
  const [file = ""] = readdirSync(folder);
  const events: NodeEvent[] = JSON.parse(readFileSync(join(folder, file), "utf8"));
  rmSync(folder, { recursive: true });
  const attention = events
    .filter(({ cat, args }) => cat === "Node" && args?.op_name === "MultiHeadAttention")
    .sort((a, b) => a.ts - b.ts)
    .map(({ args }) => ({
      keys: Object.values(args?.input_type_shape?.[1] ?? {})[0]?.[1],
      held: Number(args?.mem_bytes_requested_in_use),
    }));
  expect(attention).toHaveLength(config.numHiddenLayers * shape.chunks);
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    const chunks = attention.slice(layer * shape.chunks, (layer + 1) * shape.chunks);
    expect(chunks.map(({ keys }) => keys)).toEqual(
      Array.from({ length: shape.chunks }, (_, index) => (shape.chunks - index) * shape.chunkRows),
    );
    // The largest chunk reads the keys themselves, the second one has copies.
    const [, copied, ...smaller] = chunks.map(({ held }) => held);
    for (const held of smaller) expect(held).toBeLessThan(1.06 * (copied as number));
    expect(copied).toBeLessThan(1.25 * (attention[1]?.held as number));
  }
});

test("the plan of GLM-5's sizes is what an H200 held, and index scores are cut where they would be the widest step", () => {
  const config = {
    ...{
      hiddenSize: 6144,
      numAttentionHeads: 64,
      qkNopeHeadDim: 192,
      qkRopeHeadDim: 64,
      vHeadDim: 256,
      kvLoraRank: 512,
    },
    ...{ indexTopk: 2048, indexNHeads: 32, indexHeadDim: 128, vocabSize: 8192, intermediateSize: 2048 },
    ...{
      moeIntermediateSize: 2048,
      nRoutedExperts: 8,
      numExpertsPerTok: 2,
      numHiddenLayers: 4,
      indexerLayers: "FFFF",
      sparseLayers: [false, false, false, false],
    },
  } as DsaConfig;
  const kernels = kernelsOf("cuda", OnnxType.float16);
  const conversion = { inRuns: false, device: 949_289_984 * 2, run: 0 };
  // docs/gpu.md: nvidia-smi, MiB.
  for (const [length, held, blocks] of [
    [8192, 4609, 2],
    [32768, 7775, 4],
    [65536, 9875, 8],
  ] as const) {
    const shape = sequenceShape(config, [new Int32Array(length)], 8 * 2 ** 30, kernels);
    const need = deviceNeed(config, shape, { dtype: "float16", boundaries: false, kernels, conversion });
    expect(Math.abs(totalNeed(need) / (held * 2 ** 20) - 1)).toBeLessThan(0.1);
    const graph = { config, shape, kernels, settings: { precision: OnnxType.float16 } };
    expect(scoreBlocks(graph, length)).toBe(blocks);
    expect(indexingBytes(graph)).toBeLessThan(1.25 * attentionBytes(graph));
  }
});
