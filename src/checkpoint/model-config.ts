/**
 * `config.json` of the supported architectures, checked once and turned into the numbers that the graphs need.
 * Follows transformers' GlmMoeDsaConfig and DeepseekV32Config, including what they do with absent and ignored fields.
 */
import { basename, join, resolve } from "node:path";
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import { readText } from "../formats/text-file.ts";
import { checkShape, parseJson } from "../formats/validation.ts";
import { fullPattern, type Pattern, parsePattern, requireLayers } from "../pattern/pattern.ts";
import { frequencyPattern } from "../pattern/schedule.ts";
import { type RopeParameters, readRopeParameters, ropeSchema } from "./rope.ts";

export const supportedModelTypes = ["glm_moe_dsa", "deepseek_v32"] as const;
export type ModelType = (typeof supportedModelTypes)[number];

/** Eps of q_a_layernorm, kv_a_layernorm and the indexer's k_norm: transformers ignores `rms_norm_eps` there. */
export const latentNormEps = 1e-6;

/** The numbers of a model. Names follow config.json. */
export interface DsaConfig {
  name: string;
  modelType: ModelType;
  vocabSize: number;
  hiddenSize: number;
  numHiddenLayers: number;
  numAttentionHeads: number;
  qLoraRank: number;
  kvLoraRank: number;
  qkNopeHeadDim: number;
  qkRopeHeadDim: number;
  vHeadDim: number;
  intermediateSize: number;
  moeIntermediateSize: number;
  nRoutedExperts: number;
  nSharedExperts: number;
  numExpertsPerTok: number;
  nGroup: number;
  topkGroup: number;
  routedScalingFactor: number;
  normTopkProb: boolean;
  /** One entry a layer: does the layer route to experts? */
  sparseLayers: boolean[];
  rmsNormEps: number;
  attentionBias: boolean;
  tieWordEmbeddings: boolean;
  maxPositionEmbeddings: number;
  rope: RopeParameters;
  /** Does the indexer rotate neighbouring pairs (GLM) or halves (DeepSeek-V3.2)? */
  indexerRopeInterleave: boolean;
  indexTopk: number;
  indexHeadDim: number;
  indexNHeads: number;
  /** The schedule that config.json asks for. */
  nativePattern: Pattern;
  /**
   * F where the checkpoint owns an indexer: at least the Full layers of the native pattern, and Shared ones of a
   * checkpoint that ships its indexers anyway (GLM-5.1 with a pattern in its config). A pattern can be Full only there.
   */
  indexerLayers: Pattern;
  /** Edge of the FP8 blocks, `[rows, columns]`. */
  weightBlockSize: [number, number];
  bosTokenId: number | undefined;
  eosTokenIds: number[];
  padTokenId: number | undefined;
}

const count = z.number().int().positive();
const tokenIds = z.union([z.number().int(), z.array(z.number().int())]).nullish();

const configSchema = z.object({
  vocab_size: count,
  hidden_size: count,
  num_hidden_layers: count,
  num_attention_heads: count,
  num_key_value_heads: count.optional(),
  q_lora_rank: count.nullish(),
  kv_lora_rank: count,
  qk_nope_head_dim: count,
  qk_rope_head_dim: count.refine((dim) => dim % 2 === 0, "must be even"),
  v_head_dim: count,
  intermediate_size: count,
  moe_intermediate_size: count.optional(),
  n_routed_experts: count.optional(),
  num_local_experts: count.optional(),
  num_experts: count.optional(),
  n_shared_experts: z.number().int().nonnegative().nullish(),
  num_experts_per_tok: count.optional(),
  n_group: count.nullish(),
  topk_group: count.nullish(),
  routed_scaling_factor: z.number().optional(),
  norm_topk_prob: z.boolean().optional(),
  scoring_func: z.literal("sigmoid").nullish(),
  topk_method: z.literal("noaux_tc").nullish(),
  hidden_act: z.literal("silu").optional(),
  first_k_dense_replace: z.number().int().nonnegative().optional(),
  mlp_layer_types: z.array(z.enum(["dense", "sparse"])).nullish(),
  rms_norm_eps: z.number().positive().optional(),
  attention_bias: z.boolean().optional(),
  tie_word_embeddings: z.boolean().optional(),
  max_position_embeddings: count.optional(),
  rope_theta: z.number().positive().optional(),
  rope_parameters: ropeSchema.nullish(),
  rope_scaling: ropeSchema.nullish(),
  index_topk: count,
  index_head_dim: count,
  index_n_heads: count,
  indexer_rope_interleave: z.boolean().optional(),
  indexer_types: z.array(z.enum(["full", "shared"])).nullish(),
  index_topk_pattern: z.union([z.string(), z.array(z.enum(["full", "shared"]))]).nullish(),
  index_topk_freq: z.number().int().nullish(),
  index_skip_topk_offset: z.number().int().nonnegative().nullish(),
  quantization_config: z
    .object({ quant_method: z.string().optional(), weight_block_size: z.tuple([count, count]).nullish() })
    .nullish(),
  bos_token_id: z.number().int().nullish(),
  eos_token_id: tokenIds,
  pad_token_id: z.number().int().nullish(),
});

type RawConfig = z.infer<typeof configSchema>;

/**
 * Reads `config.json` of a folder.
 * @throws InputError where it is missing or malformed (field named), or where the architecture is not supported
 */
export async function readModelConfig(folder: string): Promise<DsaConfig> {
  const path = join(folder, "config.json");
  const text = await readText(path, `"${path}"`, {
    hint: "MODEL is a Hugging Face checkpoint folder or one that indexcache export wrote",
  });
  const json = parseJson(text, z.unknown(), `"${path}"`);
  return parseModelConfig(json, path, basename(resolve(folder)));
}

/** Checks the content of a `config.json`; `path` is for messages, `name` is what the model is called in results. */
export function parseModelConfig(json: unknown, path: string, name: string): DsaConfig {
  const typed = z.object({ model_type: z.string() }).safeParse(json);
  if (!typed.success) throw new InputError(`"${path}" has no model_type`);
  const modelType = supportedModelTypes.find((type) => type === typed.data.model_type);
  if (modelType === undefined) {
    throw new InputError(
      `"${path}": model_type "${typed.data.model_type}" is not supported; supported are ${supportedModelTypes.join(" and ")}`,
    );
  }
  return normalise(checkShape(json, configSchema, `"${path}"`), modelType, path, name);
}

function normalise(raw: RawConfig, modelType: ModelType, path: string, name: string): DsaConfig {
  const refuse = (field: string, why: string): never => {
    throw new InputError(`"${path}": ${field} ${why}`);
  };
  const layers = raw.num_hidden_layers;
  const heads = raw.num_attention_heads;
  const experts = raw.n_routed_experts ?? raw.num_local_experts ?? raw.num_experts ?? 256;
  const perToken = raw.num_experts_per_tok ?? 8;
  const groups = raw.n_group ?? 1;
  const keptGroups = raw.topk_group ?? 1;
  const qLoraRank = raw.q_lora_rank ?? refuse("q_lora_rank", "is missing: the indexer reads the query latent");
  if ((raw.num_key_value_heads ?? heads) !== heads)
    refuse("num_key_value_heads", `must equal num_attention_heads (${heads})`);
  if (perToken > experts) refuse("num_experts_per_tok", `is ${perToken}, there are ${experts} experts`);
  if (experts % groups !== 0) refuse("n_group", `is ${groups}, which does not divide ${experts} experts`);
  if (groups > 1 && experts / groups < 2) refuse("n_group", "leaves fewer than 2 experts a group");
  if (keptGroups > groups) refuse("topk_group", `is ${keptGroups}, there are ${groups} groups`);
  if (perToken > (experts / groups) * keptGroups) refuse("topk_group", "leaves fewer experts than num_experts_per_tok");
  if (raw.index_head_dim < raw.qk_rope_head_dim) refuse("index_head_dim", "is smaller than qk_rope_head_dim");
  const eos = raw.eos_token_id ?? [];
  const native = nativePattern(raw, modelType, path);
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
    moeIntermediateSize: raw.moe_intermediate_size ?? 2048,
    nRoutedExperts: experts,
    nSharedExperts: raw.n_shared_experts ?? 1,
    numExpertsPerTok: perToken,
    nGroup: groups,
    topkGroup: keptGroups,
    routedScalingFactor: raw.routed_scaling_factor ?? 2.5,
    normTopkProb: raw.norm_topk_prob ?? true,
    sparseLayers: sparseLayers(raw, refuse),
    rmsNormEps: raw.rms_norm_eps ?? (modelType === "glm_moe_dsa" ? 1e-5 : 1e-6),
    attentionBias: raw.attention_bias ?? false,
    tieWordEmbeddings: raw.tie_word_embeddings ?? false,
    maxPositionEmbeddings: raw.max_position_embeddings ?? (modelType === "glm_moe_dsa" ? 202752 : 163840),
    rope: readRopeParameters(raw, path),
    indexerRopeInterleave: raw.indexer_rope_interleave ?? modelType === "glm_moe_dsa",
    indexTopk: raw.index_topk,
    indexHeadDim: raw.index_head_dim,
    indexNHeads: raw.index_n_heads,
    nativePattern: native,
    indexerLayers: native,
    weightBlockSize: raw.quantization_config?.weight_block_size ?? [128, 128],
    bosTokenId: raw.bos_token_id ?? undefined,
    eosTokenIds: typeof eos === "number" ? [eos] : eos,
    padTokenId: raw.pad_token_id ?? undefined,
  };
}

/** `mlp_layer_types` decides where present; otherwise the first `first_k_dense_replace` layers are dense. */
function sparseLayers(raw: RawConfig, refuse: (field: string, why: string) => never): boolean[] {
  const layers = raw.num_hidden_layers;
  if (raw.mlp_layer_types == null)
    return Array.from({ length: layers }, (_, i) => i >= (raw.first_k_dense_replace ?? 3));
  if (raw.mlp_layer_types.length !== layers) {
    refuse("mlp_layer_types", `has ${raw.mlp_layer_types.length} entries for ${layers} layers`);
  }
  return raw.mlp_layer_types.map((type) => type === "sparse");
}

/** transformers' order: indexer_types, then index_topk_pattern, then frequency and offset. V3.2 has no native sharing. */
function nativePattern(raw: RawConfig, modelType: ModelType, path: string): Pattern {
  const layers = raw.num_hidden_layers;
  if (modelType === "deepseek_v32") return fullPattern(layers);
  const listed = raw.indexer_types ?? raw.index_topk_pattern;
  if (listed != null) {
    const field = raw.indexer_types == null ? "index_topk_pattern" : "indexer_types";
    const letters = typeof listed === "string" ? listed : listed.map((type) => (type === "full" ? "F" : "S")).join("");
    const where = `"${path}": ${field}`;
    return requireLayers(parsePattern(letters, where), layers, where);
  }
  const frequency = Math.max(raw.index_topk_freq ?? 1, 1);
  return frequencyPattern(layers, frequency, raw.index_skip_topk_offset ?? 2);
}
