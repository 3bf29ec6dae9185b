/** vLLM. DeepSeek-V3.2 and GLM-5 take a letter for each backbone layer, DeepSeek-V4 one for each C4A layer. */
import { hfOverrides } from "../argument.ts";
import { builtFields, shipsIndexer } from "../derived-types.ts";
import type { Dialect, Engine, LoadFault, Schedule } from "../dialect.ts";
import { type IndexFields, indexerTypes } from "../index-fields.ts";
import { isSince, type Release, type ReleasesRead } from "../release.ts";
import { everyIndexer, frequencyRule, patternThenFrequency, typesRule } from "../rules.ts";
import type { ServedModel } from "../served-model.ts";

const releases: ReleasesRead = {
  oldest: "0.22.0",
  newest: "0.33.0",
  read: ["0.22.0", "0.22.1", "0.23.0", "0.24.0", "0.25.0", "0.25.1", "0.28.0", "0.29.0", "0.30.0", "0.32.0", "0.33.0"],
};

/** The first release whose registry has `HYV4ForCausalLM` as far as was read. */
const HY_V4_SINCE = "0.33.0";

export const vllm: Engine = { engine: "vllm", title: "vLLM", releases, at };

function at(release: Release): Dialect {
  const gated = !isSince(release, "0.23");
  return {
    engine: "vllm",
    title: "vLLM",
    version: release.join("."),
    readFrom: `vLLM ${release.join(".")}: ${isSince(release, "0.29") ? "models/deepseek_v32" : "model_executor/models/deepseek_v2.py"}`,
    refusal: ({ modelType }) =>
      modelType === "hy_v4" && !isSince(release, HY_V4_SINCE)
        ? `vLLM ${release.join(".")} was not read for Hy4; ${HY_V4_SINCE} was`
        : undefined,
    caveats: (model) =>
      model.family === "v4"
        ? ["vLLM shares indices of DeepSeek-V4 only in builds with pull request #51209; others ignore these fields"]
        : [],
    loadFault: (letters, model) => loadFault(letters, model, release),
    // Hy4's class asks indexer_types first, which its config class always fills in.
    fields: (pattern, { modelType }) => ({
      use_index_cache: true,
      index_topk_pattern: pattern,
      ...(modelType === "hy_v4" ? { indexer_types: indexerTypes(pattern) } : {}),
    }),
    schedule: (override, model) => {
      const fields = { ...model.fields, ...override };
      if (model.family === "v4") return v4Schedule(fields, model);
      if (model.modelType === "hy_v4") return hyV4Schedule(override, model);
      if (gated && fields.use_index_cache !== true) return everyIndexer(model.layers);
      return frequencyFault(fields) ?? patternThenFrequency(withOffset(fields, gated), model.layers);
    },
    leadingShared: "vLLM reads a buffer that nobody has written: wrong tokens, no error",
    argument: hfOverrides,
    flag: "--hf-overrides",
    facts: {
      gate: gated
        ? "use_index_cache is required; index_skip_topk_offset is not read"
        : "none since 0.23.0: use_index_cache is ignored (0.22 required it)",
      shortPattern: "layers past the end are Full, without a word",
      prediction: "MTP layers always run their own indexer and have no letter",
      pipeline:
        "indices stay in a buffer of their rank: a stage that begins with S reads stale ones, without an error (DeepSeek-V4: ValueError)",
    },
  };
}

/**
 * Shared layers have no indexer module since 0.24, and a loader that meets tensors of one ends with a KeyError unless it
 * drops them: 0.25 to 0.28 do (#46600). Since 0.29 both architectures are served by another class, whose loader does not.
 */
function loadFault(letters: string, model: ServedModel, release: Release): LoadFault | undefined {
  if (model.family !== "dsa" || model.modelType === "hy_v4") return undefined;
  const fused = isSince(release, "0.29");
  if (!fused && !(isSince(release, "0.24") && !isSince(release, "0.25"))) return undefined;
  const layers = [...letters].flatMap((letter, layer) =>
    letter === "S" && shipsIndexer(layer, model) !== false ? [layer] : [],
  );
  const [first] = layers;
  if (first === undefined) return undefined;
  const certain = model.shipped !== undefined || model.path !== undefined;
  const version = release.join(".");
  const fails = `vLLM ${version} cannot load a checkpoint that has indexer weights of Shared layers (KeyError: 'layers.${first}.self_attn.indexer.wq_b.weight')`;
  return {
    message: certain
      ? `${fails}, and this one has them on ${layers.length} of its Shared layers`
      : `${fails}: DeepSeek-V3.2, GLM-5 and GLM-5.1 have them, GLM-5.2 and 5.3 do not`,
    waysOut: [
      "serve a checkpoint without them: indexcache pattern apply MODEL PATTERN -o FOLDER",
      "drop them at load with the kit: indexcache kit FOLDER, then PYTHONPATH=FOLDER INDEXCACHE_SKIP_UNUSED_INDEXERS=1 and --worker-extension-cls indexcache_live.vllm.PatternExtension (docs/serving.md)",
      fused
        ? "serve with vLLM 0.25 to 0.28 (--engine-version), whose loader drops them"
        : "serve with vLLM 0.25 to 0.28, whose loader drops them",
      ...(fused
        ? ['"architectures": ["DeepseekV3ForCausalLM"] in the override picks the older class (read, not tried)']
        : []),
    ],
    certain,
  };
}

/** 0.22 knew no offset: layers after the first count from 1. */
function withOffset(fields: IndexFields, gated: boolean): IndexFields {
  return gated ? { ...fields, index_skip_topk_offset: null } : fields;
}

function frequencyFault(fields: IndexFields): { failure: string } | undefined {
  if (fields.index_topk_pattern != null || fields.index_topk_freq !== 0) return undefined;
  return { failure: "ZeroDivisionError: index_topk_freq is 0" };
}

/** `compute_skip_topk_layers` of models/hy_v4: the types decide, and its config class always has them. */
function hyV4Schedule(override: IndexFields, model: ServedModel): Schedule {
  const built = builtFields(model);
  if ("failure" in built) return built;
  const types = { ...built, ...override }.indexer_types ?? [];
  if (types.length !== model.layers) {
    return { failure: `ValueError: indexer_types has ${types.length} entries for ${model.layers} layers` };
  }
  return typesRule(model.layers, types);
}

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
