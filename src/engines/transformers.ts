/** Hugging Face transformers: GLM-5 only. The field is `indexer_types`, read while the model is built. */
import type { Dialect } from "./dialect.ts";
import { type IndexFields, indexerTypes, lettersOfTypes } from "./index-fields.ts";
import { frequencyRule, typesRule } from "./rules.ts";

export const transformers: Dialect = {
  engine: "transformers",
  title: "Hugging Face transformers",
  readFrom: "5.17.0 and 5.18.0: models/glm_moe_dsa/configuration_glm_moe_dsa.py",
  refusal: ({ modelType }) => {
    if (modelType === undefined || modelType === "glm_moe_dsa") return undefined;
    return modelType === "deepseek_v32"
      ? "transformers' DeepseekV32Config keeps these fields and ignores them: every layer runs its indexer"
      : `transformers has no field for sharing indices of ${modelType}`;
  },
  caveats: ({ modelType }) =>
    modelType === undefined ? ["transformers shares indices of glm_moe_dsa only; DeepSeek-V3.2 ignores the field"] : [],
  fields: (pattern) => ({ indexer_types: indexerTypes(pattern) }),
  strongerField: "indexer_types",
  schedule: (fields, { layers }) => {
    if (fields.indexer_types != null) return typesRule(layers, fields.indexer_types);
    const pattern = fields.index_topk_pattern;
    if (pattern == null) {
      return frequencyRule(layers, Math.max(fields.index_topk_freq ?? 1, 1), (fields.index_skip_topk_offset ?? 2) - 1);
    }
    if (typeof pattern !== "string") return typesRule(layers, pattern);
    const foreign = [...pattern].find((letter) => letter !== "F" && letter !== "S");
    if (foreign !== undefined) return { failure: `KeyError: '${foreign}' in index_topk_pattern` };
    if (pattern.length < layers) {
      return { failure: `IndexError: index_topk_pattern ends before layer ${pattern.length}` };
    }
    return { letters: pattern.slice(0, layers) };
  },
  leadingShared: "transformers raises a ValueError at the first forward call",
  argument: (fields) => [pythonArgument(fields)],
  facts: {
    gate: "none; indexer_types wins over index_topk_pattern, and that over index_topk_freq",
    shortPattern: "IndexError while the model is built",
    prediction: "weights of MTP layers are not loaded",
    pipeline: "no stages: device_map runs every layer in one process",
  },
};

/** A keyword argument of `from_pretrained`: the letters stay legible, the config gets the list. */
function pythonArgument(fields: IndexFields): string {
  const letters = lettersOfTypes(fields.indexer_types ?? []) ?? "";
  return `indexer_types=[{"F": "full", "S": "shared"}[letter] for letter in "${letters}"]`;
}
