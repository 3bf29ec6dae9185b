/**
 * What a `config.json` may say, field by field. A checkpoint is untrusted: every size has a bound that no model comes
 * near and that keeps what is derived from it, lists of layers and shapes of tensors, small enough to make.
 */
import { z } from "zod";
import { float32, sizeUpTo } from "./numbers.ts";
import { ropeSchema } from "./rope-parameters.ts";

/** The largest sizes that are believed. The largest models of today have 128 layers and vocabularies of 262,144. */
export const largestSizes = {
  layers: 1_000,
  heads: 4_096,
  width: 1 << 20,
  headWidth: 1 << 16,
  experts: 1 << 14,
  vocabulary: 1 << 24,
  positions: 2 ** 31 - 1,
} as const;

const layers = sizeUpTo(largestSizes.layers);
const heads = sizeUpTo(largestSizes.heads);
const width = sizeUpTo(largestSizes.width);
const headWidth = sizeUpTo(largestSizes.headWidth);
const experts = sizeUpTo(largestSizes.experts);
const positions = sizeUpTo(largestSizes.positions);
const block = sizeUpTo(largestSizes.width);

const tokenId = z.number().int();
const layerTypes = z.array(z.enum(["full", "shared"])).max(largestSizes.layers);
/** Python takes an explicit null for false. */
const flag = z
  .boolean()
  .nullable()
  .transform((value) => value ?? false)
  .optional();

export const configSchema = z.object({
  vocab_size: sizeUpTo(largestSizes.vocabulary),
  hidden_size: width,
  num_hidden_layers: layers,
  num_attention_heads: heads,
  num_key_value_heads: heads.nullish(),
  q_lora_rank: width.nullish(),
  kv_lora_rank: width,
  qk_nope_head_dim: headWidth,
  qk_rope_head_dim: headWidth.refine((dim) => dim % 2 === 0, "must be even"),
  v_head_dim: headWidth,
  intermediate_size: width,
  moe_intermediate_size: width.optional(),
  n_routed_experts: experts.nullish(),
  num_local_experts: experts.nullish(),
  num_experts: experts.nullish(),
  n_shared_experts: z.number().int().min(0).max(largestSizes.experts).nullish(),
  num_experts_per_tok: experts.optional(),
  n_group: experts.nullish(),
  topk_group: experts.nullish(),
  routed_scaling_factor: float32.optional(),
  norm_topk_prob: flag,
  scoring_func: z.literal("sigmoid").nullish(),
  topk_method: z.literal("noaux_tc").nullish(),
  hidden_act: z.enum(["silu", "swish"]).nullish(),
  first_k_dense_replace: z.number().int().min(0).max(largestSizes.layers).optional(),
  mlp_layer_types: z.array(z.enum(["dense", "sparse"])).nullish(),
  mlp_bias: z.literal(false, "is true: biases of MLPs are not read").nullish(),
  rms_norm_eps: float32.optional(),
  attention_bias: flag,
  tie_word_embeddings: flag,
  max_position_embeddings: positions.optional(),
  original_max_position_embeddings: positions.nullish(),
  rope_theta: float32.nullish(),
  rope_parameters: ropeSchema.nullish(),
  rope_scaling: ropeSchema.nullish(),
  // Every layer of what is supported has an indexer: earlier releases of transformers wrote another name for it.
  layer_types: z
    .array(z.enum(["indexed_attention", "deepseek_sparse_attention", "full_attention"]))
    .max(largestSizes.layers)
    .nullish(),
  index_topk: positions.optional(),
  index_head_dim: headWidth.optional(),
  index_n_heads: heads.optional(),
  indexer_rope_interleave: z.boolean().optional(),
  indexer_types: layerTypes.nullish(),
  index_topk_pattern: z.union([z.string(), layerTypes]).nullish(),
  index_topk_freq: z.number().int().max(largestSizes.positions).nullish(),
  index_skip_topk_offset: z.number().int().min(0).max(largestSizes.positions).nullish(),
  quantization_config: z
    .looseObject({ quant_method: z.string().nullish(), weight_block_size: z.tuple([block, block]).nullish() })
    .nullish(),
  num_nextn_predict_layers: z.number().int().min(0).max(largestSizes.layers).nullish(),
  bos_token_id: tokenId.nullish(),
  eos_token_id: z.union([tokenId, z.array(tokenId)]).nullish(),
  pad_token_id: tokenId.nullish(),
});

export type RawConfig = z.infer<typeof configSchema>;
