import { expect, test } from "vitest";
import { benchFileSchema } from "../../src/formats/bench-file.ts";
import { parsePattern } from "../../src/pattern/pattern.ts";
import {
  benchMeasurement,
  isAboveLimit,
  isWithinNoise,
  latencyRecord,
  spreadOf,
} from "../../src/report/bench/bench-record.ts";
import { formatBenchReport } from "../../src/report/bench/bench-report.ts";

const patterns = [
  { name: "full", pattern: parsePattern("FFFF") },
  { name: "quarter", pattern: parsePattern("FSSS") },
];

/** Layers of 1 s, indexers of 1.5 s, 2 s for the rest; the machine slows down by half and back. */
const slowness = [1, 1.5, 1];
const timings = {
  patterns: [slowness.map((slow) => slow * 12), slowness.map((slow) => slow * 8)],
  withoutIndexers: slowness.map((slow) => slow * 6),
  alone: slowness.map((slow) => slow * 1.2),
  other: slowness.map((slow) => slow * 2),
};

test("share, limit and costs of a layer from the extremes; speed-ups within each repeat", () => {
  const found = benchMeasurement(patterns, { context: 100, tokens: 100, timings });
  expect(found.indexers).toMatchObject({ share: 0.5, alone_share: expect.closeTo(0.4, 10) as number });
  expect(found.costs).toEqual({ other_seconds: 2, full_layer_seconds: 2.5, shared_layer_seconds: 1 });
  expect(found.arms[0]).toMatchObject({ limit: 1, of_limit: 1, tokens_per_second: 100 / 12 });
  expect(found.arms[1]).toMatchObject({
    seconds: { median: 8, low: 8, high: 12 },
    speedup: { median: 1.5, low: 1.5, high: 1.5 },
    limit: expect.closeTo(12 / 7.5, 10) as number,
    of_limit: expect.closeTo(7.5 / 8, 10) as number,
  });
});

test("a model that shares by itself: its own indexers are the whole", () => {
  const own = [
    { name: "full", pattern: parsePattern("FFSS") },
    { name: "one", pattern: parsePattern("FSSS") },
  ];
  const found = benchMeasurement(own, { context: 1, tokens: 1, timings });
  expect(found.costs.full_layer_seconds - found.costs.shared_layer_seconds).toBeCloseTo(3, 10);
  expect(found.arms[1]?.limit).toBeCloseTo(12 / 9, 10);
});

test("a bench file, its latency file and its table", () => {
  const measured = benchMeasurement(patterns, { context: 4096, tokens: 4096, timings, chunks: { timed: 2, all: 16 } });
  const file = benchFileSchema.parse({
    kind: "indexcache-bench",
    schema_version: 1,
    model: {
      name: "m",
      architecture: "glm_moe_dsa",
      layers: 4,
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
      random_weights: { seed: 3, reduced: [{ field: "num_hidden_layers", from: 78, to: 4 }] },
    },
    machine: { cpu: "c", threads: 1, memory_bytes: 1, platform: "linux x64" },
    settings: { repeats: 3, decode_tokens: 4, clock: "cpu" },
    patterns: patterns.map(({ name, pattern }) => ({
      name,
      index_topk_pattern: pattern,
      full_layers: 4,
      weight_bytes: 1024,
      latent_bytes_per_token: 96,
      indexer_key_bytes_per_token: 64,
    })),
    prefill: [measured],
    decode: [benchMeasurement(patterns, { context: 4096, tokens: 1, timings })],
    tool: { version: "0", runtime: "r", device: "cpu" },
  });
  expect(latencyRecord(file).costs).toEqual([
    { phase: "prefill", context: 4096, other_seconds: 2, full_layer_seconds: 2.5, shared_layer_seconds: 1 },
    { phase: "decode", context: 4096, other_seconds: 2, full_layer_seconds: 2.5, shared_layer_seconds: 1 },
  ]);
  const table = formatBenchReport(file);
  expect(table).toContain("random, seed 3; smaller: num_hidden_layers 78 -> 4");
  expect(table).toMatch(/quarter +4 +8\.00 +512 +1\.50x +1\.50 to 1\.50 +1\.60x +0\.94/);
  expect(table).toContain("* 4,096: from 2 of 16 query chunks");
  expect(table).toContain("Memory, float32, caches");
  const half = { ...file, tool: { ...file.tool, dtype: "float16" } };
  expect(formatBenchReport(half)).toContain("Memory, float16, caches");
  const folded = formatBenchReport(file, 80);
  expect(Math.max(...folded.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
  expect(folded).toMatch(/quarter +4 +8\.00 +512 +1\.50x +1\.60x +0\.94\n {2}speed-up, low to high: 1\.50 to 1\.50\n/);
});

test("a spread is the median between the lowest and the highest", () => {
  expect(spreadOf([5, 1, 2])).toEqual({ median: 2, low: 1, high: 5 });
  expect(spreadOf([5, 1, 2, 3])).toEqual({ median: 2.5, low: 1, high: 5 });
  expect(() => spreadOf([])).toThrow(RangeError);
});

test("a share that noise swallows is no share, and sets no limit", () => {
  const noisy = { ...timings, withoutIndexers: [17.9, 18, 17.9] };
  const measured = benchMeasurement(patterns, { context: 100, tokens: 100, timings: noisy });
  expect(measured.indexers.share).toBeLessThan(0);
  expect(isWithinNoise(measured)).toBe(true);
  expect(isWithinNoise(benchMeasurement(patterns, { context: 100, tokens: 100, timings }))).toBe(false);
});

test("a speed-up above what indexers that cost nothing would give is flagged", () => {
  const fast = { ...timings, patterns: [timings.patterns[0] as number[], slowness.map((slow) => slow * 4)] };
  const [, arm] = benchMeasurement(patterns, { context: 100, tokens: 100, timings: fast }).arms;
  expect(arm).toBeDefined();
  expect(isAboveLimit(arm as NonNullable<typeof arm>)).toBe(true);
});
