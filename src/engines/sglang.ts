/** SGLang. A letter for each backbone layer; DeepSeek-V4 is not wired in a release. */
import { jsonArgument } from "./argument.ts";
import type { Dialect } from "./dialect.ts";
import { frequencyRule, patternThenFrequency } from "./rules.ts";

export const sglang: Dialect = {
  engine: "sglang",
  title: "SGLang",
  readFrom: "v0.5.19 and main of August 2026: srt/configs/model_config.py dsa_layer_skips_topk",
  refusal: (model) =>
    model.family === "v4"
      ? "SGLang does not share indices of DeepSeek-V4 in any release (pull requests #26274 and #32771 are open)"
      : undefined,
  caveats: () => [],
  fields: (pattern) => ({ use_index_cache: true, index_topk_pattern: pattern }),
  schedule: (fields, model) => {
    const { index_skip_topk_offset: offset, index_topk_pattern: pattern } = fields;
    if (pattern == null && offset != null && offset <= 0) {
      return { failure: `ValueError: index_skip_topk_offset is ${offset}; it must be positive` };
    }
    // Without an offset max(layer - 1, 0), which is vLLM's default of 2 in other words.
    return pattern == null && offset == null
      ? frequencyRule(model.layers, fields.index_topk_freq ?? 1, 1)
      : patternThenFrequency(fields, model.layers);
  },
  leadingShared: "SGLang has no indices to hand to the first layer and crashes",
  argument: (fields) => [`--json-model-override-args ${jsonArgument(fields)}`],
  flag: "--json-model-override-args",
  facts: {
    gate: "none: use_index_cache is ignored",
    shortPattern: "layers past the end are Full, without a word (IndexError before June 2026)",
    prediction: "the NextN layer computes its own indices and has no letter",
    pipeline: "indices go with the hidden states since #28532 (June 2026); before, a stage that begins with S crashes",
  },
};
