/** Hugging Face transformers: GLM-5 and Hy4. The field is `indexer_types`, read while the model is built. */
import { builtSchedule, derivesTypes } from "../derived-types.ts";
import type { Dialect, Engine } from "../dialect.ts";
import { type IndexFields, indexerTypes, lettersOfTypes } from "../index-fields.ts";
import { isSince, type Release, type ReleasesRead } from "../release.ts";

const releases: ReleasesRead = { oldest: "5.17.0", newest: "5.24.0", read: ["5.17.0", "5.18.0", "5.24.0"] };

export const transformers: Engine = { engine: "transformers", title: "Hugging Face transformers", releases, at };

function at(release: Release): Dialect {
  const version = release.join(".");
  return {
    engine: "transformers",
    title: "Hugging Face transformers",
    version,
    readFrom: `transformers ${version}: models/glm_moe_dsa/configuration_glm_moe_dsa.py`,
    refusal: ({ modelType }) => {
      if (modelType === undefined || (derivesTypes(modelType) && (modelType !== "hy_v4" || isSince(release, "5.24")))) {
        return undefined;
      }
      return modelType === "deepseek_v32"
        ? "transformers' DeepseekV32Config keeps these fields and ignores them: every layer runs its indexer"
        : `transformers ${version} has no field for sharing indices of ${modelType}`;
    },
    caveats: ({ modelType }) =>
      modelType === undefined
        ? ["transformers shares indices of glm_moe_dsa only; DeepSeek-V3.2 ignores the field"]
        : [],
    fields: (pattern) => ({ indexer_types: indexerTypes(pattern) }),
    strongerField: "indexer_types",
    // Keyword arguments of from_pretrained reach the config before its class looks at them, as config.json does.
    schedule: (override, model) => builtSchedule({ ...model.fields, ...override }, model),
    leadingShared: "transformers raises a ValueError at the first forward call",
    argument: (fields) => [pythonArgument(fields)],
    facts: {
      gate: "none; indexer_types wins over index_topk_pattern, and that over index_topk_freq",
      shortPattern: "IndexError while the model is built",
      prediction: "weights of MTP layers are not loaded",
      pipeline: "no stages: device_map runs every layer in one process",
    },
  };
}

/** A keyword argument of `from_pretrained`: the letters stay legible, the config gets the list. */
function pythonArgument(fields: IndexFields): string {
  const letters = lettersOfTypes(fields.indexer_types ?? []) ?? "";
  return `indexer_types=[{"F": "full", "S": "shared"}[letter] for letter in "${letters}"]`;
}
