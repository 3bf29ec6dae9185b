/**
 * A model's config.json made small enough for random weights on this machine: fewer layers and experts, narrower MLPs, a
 * smaller vocabulary. Attention and indexer keep their shapes.
 */
import { UsageError } from "../../base/errors.ts";
import { parseModelConfig } from "./config-json.ts";
import { identifyConfig } from "./identified-config.ts";
import type { DsaConfig } from "./model-config.ts";

/** What is to be made smaller; absent ones stay. */
export interface Reduction {
  layers?: number;
  experts?: number;
  mlpWidth?: number;
  vocabulary?: number;
}

export interface ReducedConfig {
  /** The new config.json. */
  json: Record<string, unknown>;
  config: DsaConfig;
  /** Fields that became smaller. */
  reduced: { field: string; from: number; to: number }[];
}

/** Fields that say which layers share and how weights are stored: here every layer has an indexer, and weights are float32. */
const droppedFields = [
  "indexer_types",
  "index_topk_pattern",
  "index_topk_freq",
  "index_skip_topk_offset",
  "quantization_config",
  "mlp_layer_types",
  "first_k_dense_replace",
  "num_local_experts",
  "num_experts",
  "dtype",
  "torch_dtype",
];

/**
 * @param json the content of config.json
 * @param path for messages
 * @throws InputError for a config that is not supported, UsageError for a number larger than the model's
 */
export function reduceConfig(json: unknown, path: string, name: string, reduction: Reduction): ReducedConfig {
  const whole = parseModelConfig(json, path, name);
  const reduced: ReducedConfig["reduced"] = [];
  const smaller = (field: string, from: number, to: number | undefined, option: string): number => {
    if (to === undefined || to === from) return from;
    if (to > from) throw new UsageError(`${option} is ${to}; "${path}" has ${from} (${field})`);
    reduced.push({ field, from, to });
    return to;
  };
  const layers = smaller("num_hidden_layers", whole.numHiddenLayers, reduction.layers, "--layers");
  // The last layers are what most of the model is like: the first few are dense.
  const sparse = whole.sparseLayers.slice(whole.numHiddenLayers - layers);
  const experts = smaller("n_routed_experts", whole.nRoutedExperts, reduction.experts, "--experts");
  const grouped = experts % whole.nGroup === 0 && experts / whole.nGroup >= 2;
  const perToken = Math.min(whole.numExpertsPerTok, experts);
  const fits = grouped && perToken <= (experts / whole.nGroup) * whole.topkGroup;
  const width = (field: string, from: number): number =>
    reduction.mlpWidth === undefined || from <= reduction.mlpWidth
      ? from
      : smaller(field, from, reduction.mlpWidth, "--mlp-width");
  const { fields, modelType } = identifyConfig(json, path);
  const kept = Object.entries(fields).filter(([field]) => !droppedFields.includes(field));
  const small = {
    ...Object.fromEntries(kept),
    model_type: modelType,
    num_hidden_layers: layers,
    mlp_layer_types: sparse.map((routes) => (routes ? "sparse" : "dense")),
    n_routed_experts: experts,
    num_experts_per_tok: smaller("num_experts_per_tok", whole.numExpertsPerTok, perToken, "--experts"),
    n_group: fits ? whole.nGroup : smaller("n_group", whole.nGroup, 1, "--experts"),
    topk_group: fits ? whole.topkGroup : smaller("topk_group", whole.topkGroup, 1, "--experts"),
    intermediate_size: width("intermediate_size", whole.intermediateSize),
    moe_intermediate_size: width("moe_intermediate_size", whole.moeIntermediateSize),
    vocab_size: smaller("vocab_size", whole.vocabSize, reduction.vocabulary, "--vocabulary"),
    dtype: "float32",
  };
  return { json: small, config: parseModelConfig(small, path, name), reduced };
}
