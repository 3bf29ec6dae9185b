/** TensorRT-LLM (PyTorch backend). Overrides of the config go into an options file, under `model_kwargs`. */
import { jsonArgument } from "../argument.ts";
import type { Dialect, Engine } from "../dialect.ts";
import { frequencyRule } from "../rules.ts";

const OPTIONS_FILE = "indexcache.yaml";

const dialect: Dialect = {
  engine: "tensorrt-llm",
  title: "TensorRT-LLM",
  readFrom:
    "main after #15574 (July 2026): llmapi/llm_args.py _is_full_indexer_layer, _torch/model_config.py model_kwargs",
  refusal: ({ family, modelType }) => {
    if (modelType === "hy_v4") return "nothing is known of TensorRT-LLM sharing indices of Hy4";
    return family === "v4" ? "nothing is known of TensorRT-LLM sharing indices of DeepSeek-V4" : undefined;
  },
  caveats: () => [
    "model_kwargs reaches the config in the PyTorch backend only; AutoDeploy drops fields that the config lacks",
  ],
  fields: (pattern) => ({ index_topk_pattern: pattern }),
  schedule: (override, { layers, fields: own }) => {
    const fields = { ...own, ...override };
    const pattern = fields.index_topk_pattern;
    const schedule =
      pattern == null
        ? frequencyRule(layers, Math.max(fields.index_topk_freq ?? 1, 1), (fields.index_skip_topk_offset ?? 2) - 1)
        : { letters: Array.from({ length: layers }, (_, layer) => letterOf(pattern[layer])).join("") };
    // Layer 0 is forced to Full, with a warning in the log.
    return "letters" in schedule ? { letters: `F${schedule.letters.slice(1)}` } : schedule;
  },
  leadingShared: "TensorRT-LLM makes layer 0 Full and logs a warning",
  argument: (fields) => [
    `echo ${jsonArgument({ model_kwargs: fields })} > ${OPTIONS_FILE}`,
    `--extra_llm_api_options ${OPTIONS_FILE}`,
  ],
  flag: "--extra_llm_api_options",
  facts: {
    gate: "none: use_index_cache and indexer_types are not read",
    shortPattern: "layers past the end are Full, without a word; lower-case s shares",
    prediction: "MTP layers are always Full and have no letter",
    pipeline: "nothing was found that sends indices to the next stage: let every stage begin with F",
  },
};

export const tensorrtLlm: Engine = { engine: dialect.engine, title: dialect.title, at: () => dialect };

function letterOf(letter: string | undefined): string {
  return letter?.toUpperCase() === "S" ? "S" : "F";
}
