/** xLLM: `index_topk_pattern` of config.json, checked strictly; there are no overrides on its command line. */
import type { Dialect, Engine, Schedule } from "../dialect.ts";
import type { IndexFields } from "../index-fields.ts";
import { everyIndexer, frequencyRule } from "../rules.ts";

const dialect: Dialect = {
  engine: "xllm",
  title: "xLLM",
  readFrom: "main of October 2026: xllm/core/layers DsaTopkSharePlan, models/llm/deepseek_v32.h and glm5.h",
  refusal: ({ family, modelType }) => {
    if (modelType === "hy_v4") return "nothing is known of xLLM serving Hy4";
    return family === "v4" ? "nothing is known of xLLM sharing indices of DeepSeek-V4" : undefined;
  },
  caveats: () => [
    "xLLM takes no overrides: the field has to stand in config.json (--write-config, or indexcache pattern apply)",
  ],
  fields: (pattern) => ({ index_topk_pattern: pattern }),
  schedule: (override, { fields, layers }) => schedule({ ...fields, ...override }, layers),
  leadingShared: "nothing in xLLM's plan checks it: the layer is told to reuse indices that nobody has made",
  argument: (fields) => [JSON.stringify(fields)],
  instead: "a field of config.json",
  facts: {
    gate: "none; use_index_cache and indexer_types are not read for DeepSeek-V3.2 and GLM-5",
    shortPattern: "fatal: the length must equal num_hidden_layers; letters other than F, f, S, s are fatal, too",
    prediction: "MTP layers run their own indexer and have no letter",
    pipeline: "not known: let stages begin with F",
  },
};

export const xllm: Engine = { engine: dialect.engine, title: dialect.title, at: () => dialect };

function schedule(fields: IndexFields, layers: number): Schedule {
  const pattern = fields.index_topk_pattern ?? "";
  const frequency = fields.index_topk_freq ?? 1;
  if (pattern.length === 0) {
    if (frequency <= 1) return everyIndexer(layers);
    const offset = fields.index_skip_topk_offset ?? 0;
    if (offset < 0) return { failure: "CHECK failed: DSA top-k sharing offset must be non-negative" };
    return frequencyRule(layers, frequency, offset > 0 ? offset - 1 : 1);
  }
  if (typeof pattern !== "string") return { failure: "index_topk_pattern is a list; xLLM reads a string" };
  if (pattern.length !== layers) {
    return { failure: `CHECK failed: the pattern has ${pattern.length} letters for ${layers} layers` };
  }
  const letters = pattern.toUpperCase();
  const foreign = [...letters].find((letter) => letter !== "F" && letter !== "S");
  if (foreign !== undefined) return { failure: `CHECK failed: the pattern only supports F and S, got ${foreign}` };
  return { letters };
}
