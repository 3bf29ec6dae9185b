/** The bench file: what `bench -o FILE` writes and `report` reads. docs/bench-format.md explains it. */
import { z } from "zod";
import { clockNames } from "../base/clock.ts";
import { count, letters, positive, seconds, toolIdentity } from "./fields.ts";
import { readText } from "./text-file.ts";
import { parseJson } from "./validation.ts";

/** Readers refuse any other number; it goes up when an old reader would misunderstand a new file. */
const BENCH_SCHEMA_VERSION = 1;

export const benchModel = z.object({
  name: z.string(),
  architecture: z.string().describe("model_type of config.json"),
  layers: positive,
  geometry: z
    .object({
      hidden_size: positive,
      num_attention_heads: positive,
      q_lora_rank: positive,
      kv_lora_rank: positive,
      qk_nope_head_dim: positive,
      qk_rope_head_dim: positive,
      v_head_dim: positive,
      index_n_heads: positive,
      index_head_dim: positive,
      index_topk: positive,
    })
    .describe("what decides the cost of attention and indexer"),
  random_weights: z
    .object({
      seed: count,
      reduced: z
        .array(z.object({ field: z.string(), from: count, to: count }))
        .describe("fields of the config that were made smaller than the model's"),
    })
    .nullable()
    .describe("null for a model's own weights"),
});

export const benchMachine = z.object({
  cpu: z.string(),
  threads: positive.describe("CPU threads of each session"),
  memory_bytes: positive,
  platform: z.string(),
});

const spread = z.object({ median: z.number(), low: z.number(), high: z.number() });

const arm = z.object({
  pattern: z.string().describe("name of an entry of patterns"),
  seconds: spread.describe("over repeats: of a prefill of the whole context, of one decoded token"),
  tokens_per_second: z.number().min(0),
  speedup: spread.describe("seconds of all Full layers / seconds of this pattern, in the same repeat"),
  limit: z.number().describe("Amdahl's limit: the speed-up if Shared layers cost nothing for their indexers"),
  of_limit: z.number().describe("median speedup / limit"),
});

const measured = z.object({
  context: positive.describe("tokens; decode appends one more"),
  chunks: z
    .object({ timed: positive, all: positive })
    .optional()
    .describe("query chunks of a prefill; where fewer are timed, they stand for their neighbours"),
  arms: z.array(arm).min(1).describe("every layer Full first"),
  indexers: z.object({
    share: z.number().describe("1 - seconds without indexers / seconds with all of them: sets the limit"),
    share_low: z.number().optional().describe("of the repeats; at or below 0 the share is within noise"),
    share_high: z.number().optional(),
    seconds_without: spread.describe("the same graph with every layer's selection given to it"),
    alone_share: z.number().describe("layers x seconds of one indexer's own graph / seconds with all of them"),
    seconds_alone: spread.describe("of one layer's indexer as a graph of its own"),
  }),
  costs: z
    .object({ other_seconds: seconds, full_layer_seconds: seconds, shared_layer_seconds: seconds })
    .describe("what the medians make of one layer"),
});

export const benchFileSchema = z
  .object({
    kind: z.literal("indexcache-bench"),
    schema_version: z.literal(BENCH_SCHEMA_VERSION),
    model: benchModel,
    machine: benchMachine,
    settings: z.object({
      repeats: positive,
      decode_tokens: positive,
      clock: z.enum(clockNames).describe("cpu: seconds that the process computed, all threads together"),
      one_graph: z
        .boolean()
        .optional()
        .describe("all patterns ran in one graph, for want of memory; each in one of its own where absent"),
    }),
    patterns: z
      .array(
        z.object({
          name: z.string(),
          index_topk_pattern: letters,
          full_layers: positive,
          weight_bytes: count.describe("as loaded, in the dtype of `tool`; weights of Shared layers' indexers are not"),
          latent_bytes_per_token: count,
          indexer_key_bytes_per_token: count,
        }),
      )
      .min(1),
    prefill: z.array(measured),
    decode: z.array(measured),
    tool: toolIdentity,
  })
  .meta({ title: "IndexCache bench file" });

export type BenchFile = z.infer<typeof benchFileSchema>;
export type BenchMeasurement = BenchFile["prefill"][number];

/** @throws InputError naming the file and the field */
export async function readBenchFile(path: string): Promise<BenchFile> {
  const text = await readText(path, `bench file "${path}"`, { hint: "indexcache bench -o FILE writes one" });
  return parseJson(text, benchFileSchema, `Bench file "${path}"`, "docs/bench-format.md describes the file");
}

export function formatBenchFile(file: BenchFile): string {
  return `${JSON.stringify(benchFileSchema.parse(file), null, 2)}\n`;
}
