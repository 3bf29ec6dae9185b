/**
 * Pipeline parallelism: at which layers the stages of a serving engine begin. An engine that does not send
 * `topk_indices` to the next stage needs an F there; the formulas differ between engines in how they hand out the
 * layers that are left over when the stages do not divide the model.
 */
import { UsageError } from "../base/errors.ts";

interface PipelineRule {
  /** Layers of each stage. */
  sizes(layers: number, stages: number): number[];
  /** Are the indices of the last Full layer sent on to the next stage? Where not, a stage must begin with F. */
  carriesIndices: boolean;
  /** Where a user sets other stage sizes by hand. */
  override: string;
  /** What the rule was read from. */
  source: string;
}

/** One more layer for those stages, of `count`, that `isLarger` names. */
function shares(layers: number, stages: number, isLarger: (stage: number, remainder: number) => boolean): number[] {
  const base = Math.floor(layers / stages);
  return Array.from({ length: stages }, (_, stage) => base + (isLarger(stage, layers % stages) ? 1 : 0));
}

/** The last stage never gets one more (it has the output embedding); those before it do, from the last one down. */
function lastStaysSmall(layers: number, stages: number): number[] {
  return shares(layers, stages, (stage, remainder) => stage < stages - 1 && stage >= stages - 1 - remainder);
}

const rules = {
  vllm: {
    sizes: lastStaysSmall,
    carriesIndices: false,
    override: "VLLM_PP_LAYER_PARTITION",
    source: "vllm/distributed/utils.py get_pp_indices; a stage sends hidden_states and residual only",
  },
  sglang: {
    sizes: (layers, stages) => shares(layers, stages, (stage, remainder) => stage >= stages - remainder),
    carriesIndices: true,
    override: "SGLANG_PP_LAYER_PARTITION",
    source: "sglang/srt/distributed/utils.py get_pp_indices; PP proxy top-k buffer since #28532 (June 2026)",
  },
  "tensorrt-llm": {
    sizes: (layers, stages) => shares(layers, stages, (stage, remainder) => stage < remainder),
    carriesIndices: false,
    override: "pp_partition",
    source: "tensorrt_llm/mapping.py pp_layers; nothing was found that sends indices to the next stage",
  },
  "vllm-ascend": {
    sizes: lastStaysSmall,
    carriesIndices: false,
    override: "VLLM_PP_LAYER_PARTITION",
    source: "vLLM's get_pp_indices; sending indices on is an open pull request (#15614)",
  },
  atom: {
    sizes: lastStaysSmall,
    carriesIndices: true,
    override: "VLLM_PP_LAYER_PARTITION",
    source: "atom/models/utils.py get_pp_indices; model_runner.py sends indices since #1882 (ffdf3bb5, August 2026)",
  },
} as const satisfies Record<string, PipelineRule>;

/** Engines that split a model into pipeline stages. (transformers has none: `device_map` runs every layer in one process.) */
export type PipelineEngine = keyof typeof rules;

export const pipelineEngines = Object.keys(rules) as PipelineEngine[];

/**
 * First layer of each stage, ascending from 0, as the engine splits `layers` backbone layers by itself.
 * @throws UsageError if there are more stages than layers
 */
export function stageStarts(engine: PipelineEngine, layers: number, stages: number): number[] {
  if (!Number.isSafeInteger(stages) || stages < 1 || stages > layers) {
    throw new UsageError(
      `${layers} layers cannot be split into ${stages} pipeline stages: 1 to ${layers} are possible`,
    );
  }
  return startsOf(rules[engine].sizes(layers, stages));
}

/**
 * First layer of each stage of a split that the user has set by hand (`VLLM_PP_LAYER_PARTITION=16,15,15,15`).
 * @throws UsageError if the sizes do not add up to the model's layers
 */
export function partitionStarts(sizes: readonly number[], layers: number): number[] {
  const sum = sizes.reduce((total, size) => total + size, 0);
  if (sizes.length === 0 || sizes.some((size) => !Number.isSafeInteger(size) || size < 1)) {
    throw new UsageError(
      `A pipeline partition is a list of whole numbers from 1 up, not ${sizes.join(",") || "empty"}`,
    );
  }
  if (sum !== layers) {
    throw new UsageError(`The pipeline partition ${sizes.join(",")} has ${sum} layers, the model has ${layers}`);
  }
  return startsOf(sizes);
}

/** Layers that this engine needs Full whatever a pattern says: stage starts where indices are not sent on, otherwise layer 0. */
export function requiredFull(engine: PipelineEngine, starts: readonly number[]): number[] {
  return rules[engine].carriesIndices ? [0] : [...starts];
}

function startsOf(sizes: readonly number[]): number[] {
  let start = 0;
  return sizes.map((size) => {
    const first = start;
    start += size;
    return first;
  });
}
