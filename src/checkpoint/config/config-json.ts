/**
 * `config.json` of the supported architectures, checked once and turned into the numbers that the graphs need.
 * Follows transformers' GlmMoeDsaConfig and DeepseekV32Config, including what they do with absent and ignored fields.
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { quoted } from "../../base/quoted.ts";
import { readText } from "../../formats/text-file.ts";
import { checkShape, parseJson } from "../../formats/validation.ts";
import type { Architecture } from "../architectures/architecture.ts";
import { architectures, type ModelType } from "../architectures/architectures.ts";
import { downloadHint, modelName } from "../hub-cache.ts";
import { readQuantization } from "../quantization.ts";
import { describeContradictions, ownPattern } from "./config-contradictions.ts";
import { configSchema, largestSizes, type RawConfig } from "./config-schema.ts";
import { identifyConfig } from "./identified-config.ts";
import type { DsaConfig } from "./model-config.ts";
import { sizeUpTo } from "./numbers.ts";
import { readRopeParameters } from "./rope-parameters.ts";

/**
 * Reads `config.json` of a folder.
 * @throws InputError if it is missing or malformed (field named), or where the architecture is not supported
 */
export async function readModelConfig(folder: string): Promise<DsaConfig> {
  const path = join(folder, "config.json");
  if ((await stat(folder).catch(() => undefined))?.isFile() === true) {
    throw new InputError(`${quoted(folder)} is a file, and MODEL is the folder of a checkpoint`, {
      hint: "inspect and search --dry-run also take a config.json alone, under that name",
    });
  }
  const text = await readText(path, `"${path}"`, {
    hint:
      downloadHint(folder) ??
      "MODEL is a Hugging Face checkpoint folder, one that indexcache export wrote, or owner/name of the Hugging Face cache",
  });
  const json = parseJson(text, z.unknown(), `"${path}"`);
  return parseModelConfig(json, path, modelName(folder));
}

/** Checks the content of a `config.json`; `path` is for messages, `name` is what the model is called in results. */
export function parseModelConfig(json: unknown, path: string, name: string): DsaConfig {
  const { modelType, fields, notes } = identifyConfig(json, path);
  const raw = checkShape(fields, configSchema, `"${path}"`);
  // compressed-tensors once wrote another name, MLX still does.
  const declared = fields.quantization_config ?? fields.compression_config ?? fields.quantization;
  const config = normalise(raw, modelType, path, name);
  return {
    ...config,
    ownSizes: readOwnSizes(architectures[modelType], fields, path),
    quantization: readQuantization(declared),
    notes: [...notes, ...describeContradictions(raw, path)],
  };
}

function normalise(
  raw: RawConfig,
  modelType: ModelType,
  path: string,
  name: string,
): Omit<DsaConfig, "ownSizes" | "quantization" | "notes"> {
  const refuse = (field: string, why: string): never => {
    throw new InputError(`"${path}": ${field} ${why}`);
  };
  const assumed = architectures[modelType].defaults;
  const layers = raw.num_hidden_layers;
  const heads = raw.num_attention_heads;
  const experts = routedExperts(raw, assumed.experts, refuse);
  const perToken = raw.num_experts_per_tok ?? 8;
  // An explicit null is a model without groups.
  const groups = raw.n_group === undefined ? assumed.groups : (raw.n_group ?? 1);
  const keptGroups = raw.topk_group === undefined ? Math.min(assumed.keptGroups, groups) : (raw.topk_group ?? 1);
  const indexHeadDim = raw.index_head_dim ?? 128;
  const qLoraRank = raw.q_lora_rank ?? refuse("q_lora_rank", "is missing: the indexer reads the query latent");
  if ((raw.num_key_value_heads ?? heads) !== heads)
    refuse("num_key_value_heads", `must equal num_attention_heads (${heads})`);
  if (perToken > experts) refuse("num_experts_per_tok", `is ${perToken}, there are ${experts} experts`);
  if (experts % groups !== 0) refuse("n_group", `is ${groups}, which does not divide ${experts} experts`);
  if (groups > 1 && experts / groups < 2) refuse("n_group", "leaves fewer than 2 experts a group");
  if (keptGroups > groups) refuse("topk_group", `is ${keptGroups}, there are ${groups} groups`);
  if (perToken > (experts / groups) * keptGroups) refuse("topk_group", "leaves fewer experts than num_experts_per_tok");
  if (indexHeadDim < raw.qk_rope_head_dim) refuse("index_head_dim", "is smaller than qk_rope_head_dim");
  const eos = raw.eos_token_id ?? [];
  const maxPositions = raw.max_position_embeddings ?? assumed.positions;
  return {
    name,
    modelType,
    vocabSize: raw.vocab_size,
    hiddenSize: raw.hidden_size,
    numHiddenLayers: layers,
    numAttentionHeads: heads,
    qLoraRank,
    kvLoraRank: raw.kv_lora_rank,
    qkNopeHeadDim: raw.qk_nope_head_dim,
    qkRopeHeadDim: raw.qk_rope_head_dim,
    vHeadDim: raw.v_head_dim,
    intermediateSize: raw.intermediate_size,
    moeIntermediateSize: raw.moe_intermediate_size ?? assumed.expertWidth,
    nRoutedExperts: experts,
    nSharedExperts: raw.n_shared_experts ?? 1,
    numExpertsPerTok: perToken,
    nGroup: groups,
    topkGroup: keptGroups,
    routedScalingFactor: raw.routed_scaling_factor ?? 2.5,
    normTopkProb: raw.norm_topk_prob ?? true,
    sparseLayers: sparseLayers(raw, assumed.denseLayers, refuse),
    rmsNormEps: raw.rms_norm_eps ?? assumed.normEps,
    attentionBias: raw.attention_bias ?? false,
    tieWordEmbeddings: raw.tie_word_embeddings ?? false,
    maxPositionEmbeddings: maxPositions,
    rope: readRopeParameters(raw, maxPositions, path),
    indexerRopeInterleave: raw.indexer_rope_interleave ?? assumed.indexerRopeInterleave,
    indexTopk: raw.index_topk ?? 2048,
    indexHeadDim,
    indexNHeads: raw.index_n_heads ?? assumed.indexHeads,
    indexerLayers: ownPattern(raw, path),
    bosTokenId: raw.bos_token_id ?? undefined,
    eosTokenIds: typeof eos === "number" ? [eos] : eos,
    padTokenId: raw.pad_token_id ?? undefined,
  };
}

/** @throws InputError for a size that is none */
function readOwnSizes({ ownSizes = {} }: Architecture, fields: Record<string, unknown>, path: string) {
  const shape = Object.fromEntries(
    Object.entries(ownSizes).map(([name, assumed]) => [name, sizeUpTo(largestSizes.width).default(assumed)]),
  );
  return checkShape(fields, z.object(shape), `"${path}"`);
}

/** The number of routed experts under any of its names; transformers knows all three. */
function routedExperts(raw: RawConfig, assumed: number, refuse: (field: string, why: string) => never): number {
  const names = ["n_routed_experts", "num_local_experts", "num_experts"] as const;
  const stated = names.flatMap((name) => (raw[name] == null ? [] : [{ name, value: raw[name] }]));
  const [first, ...others] = stated;
  const other = others.find(({ value }) => value !== first?.value);
  if (first !== undefined && other !== undefined)
    refuse(first.name, `is ${first.value} and ${other.name} is ${other.value}: they mean the same`);
  return first?.value ?? assumed;
}

/** `mlp_layer_types` decides where present; otherwise the first `first_k_dense_replace` layers are dense. */
function sparseLayers(raw: RawConfig, assumed: number, refuse: (field: string, why: string) => never): boolean[] {
  const layers = raw.num_hidden_layers;
  if (raw.mlp_layer_types == null)
    return Array.from({ length: layers }, (_, i) => i >= (raw.first_k_dense_replace ?? assumed));
  if (raw.mlp_layer_types.length !== layers) {
    refuse("mlp_layer_types", `has ${raw.mlp_layer_types.length} entries for ${layers} layers`);
  }
  return raw.mlp_layer_types.map((type) => type === "sparse");
}
