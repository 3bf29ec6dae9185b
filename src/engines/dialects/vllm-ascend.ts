/** vLLM on Ascend NPUs: vLLM's rule for DeepSeek-V3.2 and GLM-5, a rule of its own for DeepSeek-V4. */
import { hfOverrides } from "../argument.ts";
import type { Dialect, Engine, Schedule } from "../dialect.ts";
import type { IndexFields } from "../index-fields.ts";
import { everyIndexer, frequencyRule, patternRule, patternThenFrequency } from "../rules.ts";
import type { ServedModel } from "../served-model.ts";

const dialect: Dialect = {
  engine: "vllm-ascend",
  title: "vllm-ascend",
  readFrom: "main at 182b75ea (August 2026): patch/worker/patch_deepseek_v2.py, models/deepseek_v4/model.py",
  refusal: ({ modelType }) =>
    modelType === "hy_v4" ? "nothing is known of vllm-ascend sharing indices of Hy4" : undefined,
  caveats: (model) =>
    model.family === "dsa"
      ? ["with context parallelism, versions before #14914 compute every layer's indices whatever the pattern says"]
      : [],
  // No indexer_types: a "shared" entry drops the module, and the loader then refuses the tensors that GLM-5 ships.
  fields: (pattern) => ({ use_index_cache: true, index_topk_pattern: pattern }),
  configKeeps: ["indexer_types"],
  schedule: (override, model) => {
    const fields = { ...model.fields, ...override };
    return model.family === "v4" ? v4Schedule(fields, model) : patternThenFrequency(fields, model.layers);
  },
  leadingShared: "vllm-ascend reads a buffer that nobody has written (DeepSeek-V4: AssertionError)",
  argument: hfOverrides,
  flag: "--hf-overrides",
  facts: {
    gate: "use_index_cache is required for DeepSeek-V4",
    shortPattern: "layers past the end are Full, without a word",
    prediction: "MTP layers run their own indexer and have no letter",
    pipeline: "a stage that begins with S is a ValueError since #14088 (August 2026), and stale indices before",
  },
};

export const vllmAscend: Engine = { engine: dialect.engine, title: dialect.title, at: () => dialect };

function v4Schedule(fields: IndexFields, { indexers }: ServedModel): Schedule {
  if (fields.use_index_cache !== true) return everyIndexer(indexers.length);
  const pattern = fields.index_topk_pattern;
  if (pattern == null) return frequencyRule(indexers.length, fields.index_topk_freq ?? 1, 1);
  if (pattern[0] !== "F") return { failure: "AssertionError: index_topk_pattern must start with F" };
  return { letters: patternRule(indexers.length, pattern) };
}
