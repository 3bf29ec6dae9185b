/** LMDeploy: GLM-5 only, by `indexer_types`, which transformers' config class has filled in before overrides come. */
import { hfOverrides } from "../argument.ts";
import { builtFields } from "../derived-types.ts";
import type { Dialect, Engine } from "../dialect.ts";
import { indexerTypes } from "../index-fields.ts";
import type { Release, ReleasesRead } from "../release.ts";
import { everyIndexer, sharedTypesRule } from "../rules.ts";

const releases: ReleasesRead = { oldest: "0.18.0", newest: "0.18.0", read: ["0.18.0"] };

export const lmdeploy: Engine = { engine: "lmdeploy", title: "LMDeploy", releases, at };

function at(release: Release): Dialect {
  return {
    engine: "lmdeploy",
    title: "LMDeploy",
    version: release.join("."),
    readFrom: `LMDeploy ${release.join(".")}: pytorch/models/glm_moe_dsa.py _get_layer_indexer_type, pytorch/config.py override_hf_config`,
    refusal: ({ modelType }) =>
      modelType === undefined || modelType === "glm_moe_dsa"
        ? undefined
        : `LMDeploy shares indices of glm_moe_dsa only: its ${modelType === "deepseek_v32" ? "DeepSeek-V3.2 builds every indexer" : `classes do not know ${modelType} sharing`}`,
    caveats: ({ modelType }) => (modelType === undefined ? ["LMDeploy shares indices of glm_moe_dsa only"] : []),
    fields: (pattern) => ({ indexer_types: indexerTypes(pattern) }),
    strongerField: "indexer_types",
    schedule: (override, model) => {
      const built = builtFields(model);
      if ("failure" in built) return built;
      const types = { ...built, ...override }.indexer_types;
      if (types == null) return everyIndexer(model.layers);
      return sharedTypesRule(model.layers, types);
    },
    leadingShared: "LMDeploy raises a RuntimeError: the indices are reused before anything has written them",
    argument: hfOverrides,
    flag: "--hf-overrides",
    facts: {
      gate: "none; index_topk_pattern and index_topk_freq count only in config.json, through transformers' config class",
      shortPattern: "layers past the end of indexer_types are Full, without a word",
      prediction: "MTP layers run their own indexer and have no letter",
      pipeline: "nothing was found that sends indices to the next stage",
    },
  };
}
