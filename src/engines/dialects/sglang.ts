/** SGLang. A letter for each backbone layer; DeepSeek-V4 is not wired in a release. */
import { jsonArgument } from "../argument.ts";
import { builtFields } from "../derived-types.ts";
import type { Dialect, Engine, Schedule } from "../dialect.ts";
import { type IndexFields, sharingFields } from "../index-fields.ts";
import { isSince, type Release, type ReleasesRead } from "../release.ts";
import { frequencyRule, patternRule, patternThenFrequency, sharedTypesRule } from "../rules.ts";
import type { ServedModel } from "../served-model.ts";

const releases: ReleasesRead = {
  oldest: "0.5.16",
  newest: "0.5.23",
  read: ["0.5.16", "0.5.17", "0.5.18", "0.5.19", "0.5.20", "0.5.21", "0.5.23"],
};

/** `indexer_types` is asked first since then, and Hy4 is served. */
const TYPES_SINCE = "0.5.20";

export const sglang: Engine = { engine: "sglang", title: "SGLang", releases, at };

function at(release: Release): Dialect {
  const typesFirst = isSince(release, TYPES_SINCE);
  const version = release.join(".");
  return {
    engine: "sglang",
    title: "SGLang",
    version,
    readFrom: `SGLang ${version}: srt/configs/model_config.py dsa_layer_skips_topk`,
    refusal: ({ family, modelType }) => {
      if (modelType === "hy_v4" && !typesFirst) return `SGLang serves Hy4 since ${TYPES_SINCE}, not ${version}`;
      return family === "v4"
        ? "SGLang does not share indices of DeepSeek-V4 in any release (pull requests #26274 and #32771 are open)"
        : undefined;
    },
    caveats: () => [],
    optionFault: (options, letters) =>
      options.includes("--enable-two-batch-overlap") && letters.includes("S")
        ? "SGLang refuses --enable-two-batch-overlap together with Shared layers (ValueError at start)"
        : undefined,
    // Both fields: 0.5.19 and older read the pattern only, 0.5.20 and newer ask the types first, which transformers' config
    // class of GLM-5 has filled in by then.
    fields: sharingFields,
    ...(typesFirst ? { strongerField: "indexer_types" as const } : {}),
    schedule: (override, model) => schedule(override, model, release),
    leadingShared: "SGLang has no indices to hand to the first layer and crashes",
    argument: (fields) => [`--json-model-override-args ${jsonArgument(fields)}`],
    flag: "--json-model-override-args",
    facts: {
      gate: typesFirst
        ? "none; indexer_types wins over index_topk_pattern, and transformers' config class of GLM-5 always has it"
        : "none: use_index_cache and indexer_types are ignored",
      shortPattern: "layers past the end are Full, without a word",
      prediction: "the NextN layer computes its own indices and has no letter",
      pipeline: "indices go with the hidden states since #28532 (June 2026); --enable-two-batch-overlap is refused",
    },
  };
}

function schedule(override: IndexFields, model: ServedModel, release: Release): Schedule {
  const built = builtFields(model);
  if ("failure" in built) return built;
  const fields: IndexFields = { ...built, ...override };
  if (isSince(release, TYPES_SINCE) && fields.indexer_types != null)
    return sharedTypesRule(model.layers, fields.indexer_types);
  const factor = isSince(release, "0.5.18") ? (fields.cli_factor ?? 1) : 1;
  if (factor < 1) return { failure: `AssertionError: cli_factor must be positive, got ${factor}` };
  if (factor > 1) return frequencyRule(model.layers, factor, 0);
  const { index_topk_pattern: pattern, index_topk_freq: frequency, index_skip_topk_offset: offset } = fields;
  if (pattern != null) return { letters: patternRule(model.layers, pattern) };
  if (frequency != null && frequency < 1) {
    return { failure: `AssertionError: index_topk_freq must be positive, got ${frequency}` };
  }
  if (offset != null && offset < 1) {
    return { failure: `AssertionError: index_skip_topk_offset must be positive, got ${offset}` };
  }
  // Without an offset max(layer - 1, 0), which is vLLM's default of 2 in other words.
  return patternThenFrequency(fields, model.layers);
}
