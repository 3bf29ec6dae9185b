/** Result files as the commands write them, small enough to be read. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { AnalysisFile } from "../../../src/formats/analysis-file.ts";
import type { BenchFile } from "../../../src/formats/bench-file.ts";
import type { EvalResult } from "../../../src/formats/eval-result.ts";
import type { PatternFile } from "../../../src/formats/pattern-schema.ts";

const model = {
  name: "tiny <b>&</b> *wild*",
  architecture: "glm_moe_dsa",
  layers: 4,
  index_topk: 16,
  config_hash: "a".repeat(64),
  weight_hash: "b".repeat(64),
};

const calibration = { source: "text.jsonl", hash: "c".repeat(64), sequences: 2, tokens: 96 };

const tool = { version: "0.1.0", runtime: "onnxruntime-node 1.30.0", device: "cpu", dtype: "float32" };

export const search: PatternFile = {
  schema_version: 1,
  index_topk_pattern: "FSSF",
  model,
  calibration,
  baseline_loss: 2.5,
  loss: 2.625,
  trajectory: [
    {
      index_topk_pattern: "FFSF",
      flipped_layer: 2,
      loss: 2.5625,
      standard_error: 0.5,
      change: 0.0625,
      change_error: 0,
      candidates: [{ layer: 2, loss: 2.5625 }],
    },
    {
      index_topk_pattern: "FSSF",
      flipped_layer: 1,
      loss: 2.625,
      standard_error: 0.5,
      change: 0.125,
      change_error: 0.0625,
      candidates: [{ layer: 1, loss: 2.625 }],
    },
  ],
  patterns: [
    {
      full_layers: 2,
      index_topk_pattern: "FSSF",
      loss: 2.625,
      standard_error: 0.5,
      change: 0.125,
      change_error: 0.0625,
      found_by: "greedy",
      held_out: { loss: 2.75, change: 0.25, change_error: 0.125 },
    },
  ],
  search: {
    strategy: "greedy",
    evaluations: 6,
    layer_executions: { body: 18, indexer: 12, naive_body: 24, naive_indexer: 20 },
    seconds: 3.5,
  },
  tool: { ...tool, command: "indexcache search -o greedy.json" },
};

/** NLL of two sequences. */
const losses: Record<string, [number, number]> = {
  FFFF: [2, 3],
  FFSF: [2.0625, 3.0625],
  FSFF: [2.5, 3.5],
  FSSF: [2.0625, 3.1875],
};

export function journalText(): string {
  const fingerprint = {
    model_name: model.name,
    model_config_hash: model.config_hash,
    weight_hash: model.weight_hash,
    calibration_hash: calibration.hash,
    settings: { dtype: "float32" },
    search: { strategy: "greedy", objective: "nll" },
    tool_version: "0.1.0",
  };
  const header = { kind: "indexcache-search-journal", format: 2, fingerprint };
  const entries = Object.entries(losses).map(([pattern, sequences]) => ({
    pattern,
    sequences: sequences.map((loss, index) => ({ index, loss, tokens: 47 })),
    seconds: 1,
    executions: { body: 8, indexer: 8, naive_body: 8, naive_indexer: 8 },
  }));
  return [header, ...entries].map((line) => `${JSON.stringify(line)}\n`).join("");
}

const matrix = [
  [1, null, null, null],
  [0.5, 1, null, null],
  [0.4, 0.6, 1, null],
  [0.3, 0.4, 0.7, 1],
];

const statistic = {
  mean: matrix,
  by_position: [
    { from: 16, to: 31, queries: 30, mean: matrix },
    { from: 32, to: 48, queries: 34, mean: matrix },
  ],
};

export const analysis: AnalysisFile = {
  kind: "indexcache-analysis",
  schema_version: 1,
  model,
  calibration,
  index_topk_pattern: "FFFF",
  sources: [0, 1, 2, 3],
  queries: 64,
  overlap: statistic,
  recall: statistic,
  similarity: statistic,
  patterns: [
    {
      origin: "model",
      full_layers: 4,
      index_topk_pattern: "FFFF",
      mean_of_shared_layers: null,
      loss: 2.5,
      standard_error: 0.5,
      change: 0,
      change_standard_error: 0,
    },
    {
      origin: "similarity",
      full_layers: 2,
      index_topk_pattern: "FSFS",
      mean_of_shared_layers: { overlap: 0.6, recall: 0.6, similarity: 0.6 },
      loss: 2.75,
      standard_error: 0.5,
      change: 0.25,
      change_standard_error: 0.0625,
    },
    {
      origin: "searched",
      full_layers: 2,
      index_topk_pattern: "FSSF",
      mean_of_shared_layers: { overlap: 0.45, recall: 0.45, similarity: 0.45 },
      loss: 2.625,
      standard_error: 0.5,
      change: 0.125,
      change_standard_error: 0.03125,
    },
  ],
  sensitivity: {
    base: "FFFF",
    base_loss: 2.5,
    flips: [
      { layer: 1, loss: 2.6, change: 0.1, change_standard_error: 0.01 },
      { layer: 2, loss: 2.5625, change: 0.0625, change_standard_error: 0.01 },
      { layer: 3, loss: 2.8, change: 0.3, change_standard_error: 0.05 },
    ],
  },
  pairs: [{ layers: [1, 2], loss: 2.625, change: 0.125, interaction: -0.0375, interaction_standard_error: 0.01 }],
  seconds: 4,
  tool,
};

const spread = (median: number) => ({ median, low: median * 0.95, high: median * 1.05 });

function measured(context: number, speedup: number, limit: number): BenchFile["prefill"][number] {
  const arm = (pattern: string, ratio: number, bound: number) => ({
    pattern,
    seconds: spread(1 / ratio),
    tokens_per_second: context * ratio,
    speedup: spread(ratio),
    limit: bound,
    of_limit: ratio / bound,
  });
  return {
    context,
    arms: [arm("full", 1, 1), arm("greedy", speedup, limit)],
    indexers: { share: 0.5, seconds_without: spread(0.5), alone_share: 0.45, seconds_alone: spread(0.1) },
    costs: { other_seconds: 0.1, full_layer_seconds: 0.2, shared_layer_seconds: 0.1 },
  };
}

export const bench: BenchFile = {
  kind: "indexcache-bench",
  schema_version: 1,
  model: {
    name: "shape",
    architecture: "glm_moe_dsa",
    layers: 4,
    geometry: {
      hidden_size: 64,
      num_attention_heads: 4,
      q_lora_rank: 16,
      kv_lora_rank: 16,
      qk_nope_head_dim: 8,
      qk_rope_head_dim: 8,
      v_head_dim: 8,
      index_n_heads: 2,
      index_head_dim: 16,
      index_topk: 16,
    },
    random_weights: { seed: 0, reduced: [{ field: "num_hidden_layers", from: 78, to: 4 }] },
  },
  machine: { cpu: "a processor", threads: 2, memory_bytes: 8e9, platform: "linux x64" },
  settings: { repeats: 3, decode_tokens: 8, clock: "wall" },
  patterns: [
    {
      name: "full",
      index_topk_pattern: "FFFF",
      full_layers: 4,
      weight_bytes: 4000,
      latent_bytes_per_token: 96,
      indexer_key_bytes_per_token: 256,
    },
    {
      name: "greedy",
      index_topk_pattern: "FSSF",
      full_layers: 2,
      weight_bytes: 3000,
      latent_bytes_per_token: 96,
      indexer_key_bytes_per_token: 128,
    },
  ],
  prefill: [measured(512, 1.2, 1.25), measured(4096, 1.45, 1.5)],
  decode: [measured(512, 1.1, 1.2)],
  tool,
};

const interval = { low: -0.08, high: 0.02 };

export const evaluation: EvalResult = {
  schema_version: 1,
  suite: { name: "ruler-core", version: 1, task_versions: { niah_single_1: 1 } },
  model: {
    name: model.name,
    config_hash: model.config_hash,
    weight_hash: model.weight_hash,
    tokenizer_hash: "d".repeat(64),
    chat_template: "none",
    chat_template_hash: null,
  },
  settings: { seed: 42 },
  statistics: { margin: 0.01, alpha: 0.05, permutations: 1000, seed: 42 },
  arms: ["full", "greedy"].map((name, index) => ({
    name,
    index_topk_pattern: index === 0 ? "FFFF" : "FSSF",
    full_layers: index === 0 ? 4 : 2,
    prompt_tokens: 5000,
    generated_tokens: 100,
    prefill_seconds: 2,
    decode_seconds: 1,
  })),
  rows: (["task", "overall"] as const).map((kind) => ({
    kind,
    name: kind === "task" ? "niah_single_1" : "overall",
    endpoint: "generation",
    metric: "string_match_all",
    scores: "binary",
    items: 50,
    cells: 1,
    counts: { truncated: 0, too_long: 0 },
    arms: [0.9, 0.87].map((score) => ({
      score,
      interval: { low: score - 0.1, high: score + 0.1 },
      empty: 0,
      cut_off: 0,
    })),
    comparisons: [
      {
        arm: 1,
        items: 50,
        difference: -0.03,
        interval,
        interval_method: "agresti-min",
        bounds: interval,
        p: 0.3,
        test: "mcnemar",
        lost: 2,
        gained: 1,
        same_outputs: 40,
        verdict: "inconclusive",
        items_needed: 400,
      },
    ],
  })),
  notes: [],
  skipped_tasks: [],
  bad_records: [],
  prompts_sha256: "e".repeat(64),
  wall_seconds: 3,
  tool: { version: "0.1.0", runtime: "onnxruntime-node 1.30.0" },
};

/** Writes the named files into a folder; the journal belongs to greedy.json. */
export async function writeEvidence(folder: string): Promise<void> {
  const files = { "greedy.json": search, "analysis.json": analysis, "bench.json": bench, "eval.json": evaluation };
  for (const [name, content] of Object.entries(files)) await writeFile(join(folder, name), JSON.stringify(content));
  await writeFile(join(folder, "greedy.json.journal.jsonl"), journalText());
}
