import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type AnalysisFile, formatAnalysisFile, readAnalysisFile } from "../../src/formats/analysis-file.ts";
import { readBenchFile } from "../../src/formats/bench-file.ts";
import { costsAt, formatLatencyFile, type LatencyFile, readLatencyFile } from "../../src/formats/latency-file.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const folder = temporaryFolder("file");

const hash = "0".repeat(64);
const statistic = {
  mean: [
    [1, null],
    [0.5, 1],
  ],
  by_position: [
    {
      from: 4,
      to: 8,
      queries: 3,
      mean: [
        [1, null],
        [0.5, 1e-7],
      ],
    },
  ],
};
const analysis: AnalysisFile = {
  kind: "indexcache-analysis",
  schema_version: 1,
  model: { name: "m", architecture: "glm_moe_dsa", layers: 2, index_topk: 4, config_hash: hash, weight_hash: hash },
  calibration: { source: "s", hash, sequences: 1, tokens: 8 },
  index_topk_pattern: "FF",
  sources: [0, 1],
  queries: 3,
  overlap: statistic,
  recall: statistic,
  similarity: statistic,
  patterns: [],
  sensitivity: { base: "FF", base_loss: 1, flips: [{ layer: 1, loss: 1, change: -1e-8, change_standard_error: 0 }] },
  seconds: 1,
  tool: { version: "0", runtime: "r", device: "cpu", dtype: "float32" },
};

describe("analysis file", () => {
  test("is read back as it was written, a matrix row a line", async () => {
    const path = join(folder, "analysis.json");
    const text = formatAnalysisFile(analysis);
    await writeFile(path, text);
    expect(await readAnalysisFile(path)).toEqual(analysis);
    expect(text).toContain("[1, null],\n");
    expect(text).toContain("[0.5, 1e-7]\n");
  });

  test("matrices of another model are refused by name", async () => {
    const path = join(folder, "short.json");
    await writeFile(path, JSON.stringify({ ...analysis, recall: { ...statistic, mean: [[1, null]] } }));
    await expect(readAnalysisFile(path)).rejects.toThrow(
      `Analysis file "${path}": "recall.mean" is not 2 rows (model.layers) of 2 numbers (sources)`,
    );
    await writeFile(path, JSON.stringify({ ...analysis, queries: -1 }));
    await expect(readAnalysisFile(path)).rejects.toThrow(/"queries": /);
  });
});

const latency: LatencyFile = {
  kind: "indexcache-latency",
  schema_version: 1,
  model: {
    name: "m",
    architecture: "glm_moe_dsa",
    layers: 2,
    geometry: {
      hidden_size: 8,
      num_attention_heads: 2,
      q_lora_rank: 4,
      kv_lora_rank: 4,
      qk_nope_head_dim: 2,
      qk_rope_head_dim: 2,
      v_head_dim: 2,
      index_n_heads: 2,
      index_head_dim: 4,
      index_topk: 16,
    },
    random_weights: null,
  },
  machine: { cpu: "c", threads: 1, memory_bytes: 1, platform: "linux x64" },
  costs: [{ phase: "decode", context: 1024, other_seconds: 1, full_layer_seconds: 3, shared_layer_seconds: 2 }],
  tool: { version: "0", runtime: "r", device: "cpu" },
};

test("a latency file gives the costs that predictions take", async () => {
  const path = join(folder, "latency.json");
  await writeFile(path, formatLatencyFile(latency));
  const file = await readLatencyFile(path);
  expect(costsAt(file, "decode", 1024, path)).toEqual({
    otherSeconds: 1,
    fullLayerSeconds: 3,
    sharedLayerSeconds: 2,
  });
  expect(() => costsAt(file, "decode", 512, path)).toThrow("has no decode at 512 tokens; it has 1024");
  expect(() => costsAt(file, "prefill", 1024, path)).toThrow("it has none at all");
});

test("a file of another kind, or none, is one clear sentence", async () => {
  const path = join(folder, "latency.json");
  await writeFile(path, formatLatencyFile(latency));
  await expect(readBenchFile(path)).rejects.toThrow(/Bench file ".*latency.json": "kind": /);
  await expect(readBenchFile(join(folder, "none.json"))).rejects.toThrow(/Cannot read bench file .*: no such file/);
});
