/** ROCm ATOM. Its offset counts one lower than vLLM's, and DeepSeek-V4 patterns have a letter for every layer. */
import { hfOverrides } from "../argument.ts";
import { derivesTypes } from "../derived-types.ts";
import type { Dialect, Engine, Schedule } from "../dialect.ts";
import { type IndexFields, indexerTypes } from "../index-fields.ts";
import { everyIndexer, frequencyRule, patternRule, sharedTypesRule } from "../rules.ts";
import type { ServedModel } from "../served-model.ts";

const dialect: Dialect = {
  engine: "atom",
  title: "ROCm ATOM",
  readFrom: "main at ffdf3bb5 (August 2026): atom/models/deepseek_v2.py, deepseek_v4.py, model_engine/model_runner.py",
  refusal: ({ modelType }) => (modelType === "hy_v4" ? "nothing is known of ATOM sharing indices of Hy4" : undefined),
  caveats: (model) => {
    if (writesTypes(model)) {
      return [
        "ATOM prefers indexer_types, which config.json has or transformers' config class may fill in: the override sets both. Layers that become shared get no indexer module; whether the loader then accepts their tensors was not checked",
      ];
    }
    return model.path === undefined
      ? [
          "ATOM prefers indexer_types, where config.json has it, to a pattern: give --model, and the override replaces it",
        ]
      : [];
  },
  fields: (pattern, model) =>
    model.family === "v4"
      ? { use_index_cache: true, index_topk_pattern: absolutePattern(pattern, model) }
      : {
          use_index_cache: true,
          index_topk_pattern: pattern,
          ...(writesTypes(model) ? { indexer_types: indexerTypes(pattern) } : {}),
        },
  strongerField: "indexer_types",
  schedule: (override, model) => {
    const fields = { ...model.fields, ...override };
    return model.family === "v4" ? v4Schedule(fields, model) : schedule(fields, model);
  },
  leadingShared: "ATOM reads indices that nobody has written (DeepSeek-V4: the layer computes its own)",
  argument: hfOverrides,
  flag: "--hf-overrides",
  facts: {
    gate: "use_index_cache, or index_topk_freq above 1; a pattern alone is ignored",
    shortPattern: "layers past the end are Full, without a word (IndexError with pipeline stages)",
    prediction: "MTP layers run their own indexer and have no letter",
    pipeline: "indices go to the next stage since #1882 (August 2026)",
  },
};

export const atom: Engine = { engine: dialect.engine, title: dialect.title, at: () => dialect };

function writesTypes({ modelType, fields }: ServedModel): boolean {
  return derivesTypes(modelType) || fields.indexer_types != null;
}

function schedule(fields: IndexFields, { layers }: ServedModel): Schedule {
  const frequency = fields.index_topk_freq ?? 1;
  if (fields.use_index_cache !== true && frequency <= 1) return everyIndexer(layers);
  if (fields.indexer_types != null) return sharedTypesRule(layers, fields.indexer_types);
  if (fields.index_topk_pattern != null) return { letters: patternRule(layers, fields.index_topk_pattern) };
  return frequencyRule(layers, frequency, fields.index_skip_topk_offset ?? 1);
}

/** The pattern is read at absolute layer ids; the frequency counts indexers, and ignores the offset. */
function v4Schedule(fields: IndexFields, { indexers, layers }: ServedModel): Schedule {
  if (fields.use_index_cache !== true) return everyIndexer(indexers.length);
  const pattern = fields.index_topk_pattern;
  const plain: Schedule =
    pattern == null
      ? frequencyRule(indexers.length, fields.index_topk_freq ?? 1, 0)
      : { letters: indexers.map((layer) => patternRule(layers, pattern)[layer]).join("") };
  if ("failure" in plain) return plain;
  // A Shared layer without a Full one before it computes its own indices.
  const first = plain.letters.indexOf("F");
  const head = first === -1 ? plain.letters.length : first;
  return { letters: "F".repeat(head) + plain.letters.slice(head) };
}

/** Layers without an indexer get an F, which nobody reads. */
function absolutePattern(pattern: string, { indexers, layers }: ServedModel): string {
  const letters = Array.from({ length: layers }, () => "F");
  for (const [ordinal, layer] of indexers.entries()) letters[layer] = pattern[ordinal] ?? "F";
  return letters.join("");
}
