/** vLLM. DeepSeek-V3.2 and GLM-5 take a letter for each backbone layer, DeepSeek-V4 one for each C4A layer. */
import { hfOverrides } from "./argument.ts";
import type { Dialect, Schedule } from "./dialect.ts";
import type { IndexFields } from "./index-fields.ts";
import { everyIndexer, frequencyRule, patternThenFrequency } from "./rules.ts";
import type { ServedModel } from "./served-model.ts";

export const vllm: Dialect = {
  engine: "vllm",
  title: "vLLM",
  readFrom:
    "main at 002d6073 (2026): model_executor/models/deepseek_v2.py, introduced by #37735; DeepSeek-V4 from pull request #51209",
  refusal: () => undefined,
  caveats: (model) =>
    model.family === "v4"
      ? ["vLLM shares indices of DeepSeek-V4 only in builds with pull request #51209; others ignore these fields"]
      : [],
  fields: (pattern) => ({ use_index_cache: true, index_topk_pattern: pattern }),
  schedule: (fields, model) =>
    model.family === "v4" ? v4Schedule(fields, model) : patternThenFrequency(fields, model.layers),
  leadingShared: "vLLM reads a buffer that nobody has written: wrong tokens, no error",
  argument: hfOverrides,
  flag: "--hf-overrides",
  facts: {
    gate: "use_index_cache is required by the first releases and ignored by newer ones",
    shortPattern: "layers past the end are Full, without a word",
    prediction: "MTP layers always run their own indexer and have no letter",
    pipeline:
      "indices stay in a buffer of their rank: a stage that begins with S reads stale ones, without an error (DeepSeek-V4: ValueError)",
  },
};

/** #51209 is strict: alphabet, length and first letter are errors; the offset is not read. */
function v4Schedule(fields: IndexFields, { indexers }: ServedModel): Schedule {
  if (fields.use_index_cache !== true) return everyIndexer(indexers.length);
  const pattern = fields.index_topk_pattern;
  if (pattern == null) return frequencyRule(indexers.length, fields.index_topk_freq ?? 1, 0);
  const letters = [...pattern].join("");
  if (!/^[FS]*$/.test(letters)) return { failure: "ValueError: index_topk_pattern has letters other than F and S" };
  if (letters.length !== indexers.length) {
    return {
      failure: `ValueError: index_topk_pattern has ${letters.length} letters for ${indexers.length} C4A layers`,
    };
  }
  if (letters[0] === "S") return { failure: "ValueError: the first C4A layer must be F" };
  return { letters };
}
