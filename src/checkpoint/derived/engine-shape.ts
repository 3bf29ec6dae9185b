/**
 * The same function in the shape that the kernels of stock engines take: latent 512, RoPE 64, nope 128, values 128, index
 * heads of 128 (FlashMLA, DeepGEMM on Hopper). A small model padded to it runs in vLLM and SGLang, and its losses are those
 * of the small one.
 *
 *     latent, index keys   dimensions are copied a whole number of times: mean and variance stay, and so do the norms
 *     what reads a copy    zero: kv_b_proj's columns, the index queries' rows
 *     RoPE                 pair i of d goes to pair i * 64 / d of 64, whose frequency is the same
 *     softmax scale        1 / sqrt(head width): queries are multiplied by the ratio, a power of two
 *     further heads        zero: they attend evenly to values that are zero
 */
import { InputError } from "../../base/errors.ts";
import { bindWeights } from "../bind-weights.ts";
import { parseModelConfig } from "../config/config-json.ts";
import type { DsaConfig } from "../config/model-config.ts";
import { quantizationHint } from "../quantization.ts";
import type { CheckpointTensors } from "../shards.ts";
import { layerOf } from "../tensor-names.ts";
import type { DerivedTensor } from "./derived-checkpoint.ts";
import { type FileTensor, type Sources, spreadTensor, spreadTypes, type TensorSpread } from "./spread-tensor.ts";

/** What the kernels take, whatever the model. */
const kernel = { latent: 512, rope: 64, nope: 128, value: 128, indexDim: 128, topkStep: 128 } as const;

/** Attention heads: SGLang's kernels want a divisor or a multiple of 64 on each rank, vLLM's 8 or more. */
export const engineHeads = [8, 16, 32, 64, 128] as const;
export type EngineHeads = (typeof engineHeads)[number];

/** Index heads that DeepGEMM has kernels for (Hopper). */
const indexHeads = [32, 64] as const;

/** Positions that engines are told about: they want room for a generated token after a prompt that fills the window. */
const positions = 8192;

export interface EngineShape {
  /** Attention heads. */
  heads: number;
  indexHeads: number;
  /** Fields of config.json that change. */
  fields: Readonly<Record<string, unknown>>;
  /** The tensor in its new shape; the same object where it does not change. */
  spread(tensor: FileTensor): DerivedTensor;
  /** Tensors of prediction layers (MTP), which keep the native shape and are left out. */
  isLeftOut(name: string): boolean;
}

/**
 * @param json the content of config.json
 * @param path of config.json, for messages
 * @param heads attention heads to pad to; absent: the fewest that hold the model's
 * @throws InputError naming the field for a model that cannot be padded exactly, and the tensor where one is quantised
 */
export function planEngineShape(
  json: unknown,
  path: string,
  checkpoint: CheckpointTensors,
  heads?: EngineHeads,
): EngineShape {
  const native = parseModelConfig(json, path, "model");
  const refuse = (field: string, why: string): never => {
    throw new InputError(`"${path}": ${field} ${why}: the model cannot be padded to the engines' shape exactly`);
  };
  const fields = json as Readonly<Record<string, unknown>>;
  if (fields.num_hidden_layers === undefined) refuse("text_config", "holds the language model inside another one");
  const sizes = chooseSizes(native, heads, refuse);
  requireOtherShape(native, sizes, path);
  const ratio = (kernel.nope + kernel.rope) / (native.qkNopeHeadDim + native.qkRopeHeadDim);
  const doublings = Math.log2(ratio) / 2;
  if (!Number.isInteger(doublings)) {
    refuse(
      "qk_nope_head_dim + qk_rope_head_dim",
      `is ${native.qkNopeHeadDim + native.qkRopeHeadDim}, which must be 192, 48, 12 or 3, so that the softmax scale changes by a power of two`,
    );
  }
  const changed = changedFields(fields, native, sizes);
  requireSameRope(native, parseModelConfig({ ...fields, ...changed }, path, "padded"), refuse);
  const spreads = spreadsOf(native, sizes, doublings);
  requirePlainTensors(native, checkpoint, spreads);
  return {
    ...sizes,
    fields: changed,
    spread: (tensor) => {
      const part = attentionPart(tensor.name, native.numHiddenLayers);
      const spread = part === undefined ? undefined : spreads.get(part);
      return spread === undefined ? tensor : spreadTensor(tensor, spread);
    },
    isLeftOut: (name) => (layerOf(name) ?? 0) >= native.numHiddenLayers,
  };
}

interface Sizes {
  heads: number;
  indexHeads: number;
}

type Refuse = (field: string, why: string) => never;

function chooseSizes(native: DsaConfig, wanted: EngineHeads | undefined, refuse: Refuse): Sizes {
  const divides = (field: string, size: number, whole: number): void => {
    if (whole % size !== 0) refuse(field, `is ${size}, which does not divide ${whole}`);
  };
  const fits = (field: string, size: number, most: number): void => {
    if (size > most) refuse(field, `is ${size}, more than ${most}`);
  };
  if (native.indexTopk % kernel.topkStep !== 0) {
    refuse("index_topk", `is ${native.indexTopk}, no multiple of ${kernel.topkStep}`);
  }
  divides("kv_lora_rank", native.kvLoraRank, kernel.latent);
  divides("qk_rope_head_dim", native.qkRopeHeadDim, kernel.rope);
  fits("qk_nope_head_dim", native.qkNopeHeadDim, kernel.nope);
  fits("v_head_dim", native.vHeadDim, kernel.value);
  divides("index_head_dim", native.indexHeadDim, kernel.indexDim);
  fits("index_head_dim - qk_rope_head_dim", native.indexHeadDim - native.qkRopeHeadDim, kernel.indexDim - kernel.rope);
  const own = native.numAttentionHeads;
  const heads =
    wanted ?? engineHeads.find((count) => count >= own) ?? refuse("num_attention_heads", `is ${own}, more than 128`);
  if (heads < own) refuse("num_attention_heads", `is ${own}, more than heads=${heads}`);
  const index =
    indexHeads.find((count) => count >= native.indexNHeads) ??
    refuse("index_n_heads", `is ${native.indexNHeads}, more than 64`);
  return { heads, indexHeads: index };
}

/** @throws InputError for a model that engines take as it is */
function requireOtherShape(native: DsaConfig, sizes: Sizes, path: string): void {
  const own = [native.kvLoraRank, native.qkRopeHeadDim, native.qkNopeHeadDim, native.vHeadDim, native.indexHeadDim];
  const wanted = [kernel.latent, kernel.rope, kernel.nope, kernel.value, kernel.indexDim];
  if (own.some((size, index) => size !== wanted[index])) return;
  if (native.numAttentionHeads !== sizes.heads || native.indexNHeads !== sizes.indexHeads) return;
  throw new InputError(`"${path}" already has the shape that engines' kernels take`, {
    hint: "leave --engine-shape out",
  });
}

function changedFields(
  json: Readonly<Record<string, unknown>>,
  native: DsaConfig,
  { heads, indexHeads: index }: Sizes,
): Record<string, unknown> {
  const dense = native.sparseLayers.indexOf(true);
  const firstSparse = dense === -1 ? native.numHiddenLayers : dense;
  const leadsDense = native.sparseLayers.every((routes, layer) => routes === layer >= firstSparse);
  return {
    num_attention_heads: heads,
    num_key_value_heads: heads,
    qk_nope_head_dim: kernel.nope,
    qk_rope_head_dim: kernel.rope,
    v_head_dim: kernel.value,
    kv_lora_rank: kernel.latent,
    index_n_heads: index,
    index_head_dim: kernel.indexDim,
    // transformers writes these two, and reads the one of GLM as the RoPE width.
    ...(json.head_dim === undefined ? {} : { head_dim: kernel.rope }),
    ...(json.qk_head_dim === undefined ? {} : { qk_head_dim: kernel.nope + kernel.rope }),
    // Engines ask for these without a default.
    ...(json.moe_layer_freq === undefined ? { moe_layer_freq: 1 } : {}),
    ...(json.ep_size === undefined ? { ep_size: 1 } : {}),
    // Engines know which layers are dense by this field alone.
    ...(leadsDense && json.first_k_dense_replace !== firstSparse ? { first_k_dense_replace: firstSparse } : {}),
    num_nextn_predict_layers: 0,
    ...(native.maxPositionEmbeddings < positions && !isYarn(json) ? { max_position_embeddings: positions } : {}),
  };
}

/** YaRN is made for a window of its own, which engines do not go beyond. */
function isYarn(json: Readonly<Record<string, unknown>>): boolean {
  return [json.rope_scaling, json.rope_parameters].some(
    (rope) => typeof rope === "object" && rope !== null && Object.values(rope).includes("yarn"),
  );
}

/** The padded config has each frequency of the native one at its pair, and the same factors: YaRN's ramp may differ. */
function requireSameRope({ rope: native }: DsaConfig, { rope: padded }: DsaConfig, refuse: Refuse): void {
  const step = padded.inverseFrequencies.length / native.inverseFrequencies.length;
  const moved = native.inverseFrequencies.findIndex((value, pair) => padded.inverseFrequencies[pair * step] !== value);
  if (moved !== -1) {
    refuse("rope_parameters", `give pair ${moved} another frequency where qk_rope_head_dim is ${kernel.rope}`);
  }
  if (native.attentionFactor !== padded.attentionFactor || native.softmaxFactor !== padded.softmaxFactor) {
    refuse("rope_parameters", "give another attention factor in the padded shape");
  }
}

/** By the part of a layer's attention: where its rows and columns go. */
function spreadsOf(native: DsaConfig, sizes: Sizes, doublings: number): ReadonlyMap<string, TensorSpread> {
  const { qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim: value, kvLoraRank: latent } = native;
  const { numAttentionHeads: heads, indexNHeads, indexHeadDim } = native;
  const rotated = rotarySources(rope, true);
  const within = (size: number): Sources => sources(kernel.nope, (dim) => (dim < size ? dim : -1));
  const latentRows = sources(kernel.latent, (dim) => dim % latent);
  const compressed = joined([latentRows, latent], [rotated, rope]);
  const queryDims = joined([within(nope), nope], [rotated, rope]);
  const valueDims = within(value);
  const { queries, keys } = indexSources(rope, indexHeadDim, native.indexerRopeInterleave);
  const parts: [string, TensorSpread][] = [
    ["q_b_proj.weight", { rows: byHead(queryDims, nope + rope, heads, sizes.heads), doublings }],
    ["kv_a_proj_with_mqa.weight", { rows: compressed }],
    ["kv_a_proj_with_mqa.bias", { rows: compressed }],
    ["kv_a_layernorm.weight", { rows: latentRows }],
    [
      "kv_b_proj.weight",
      {
        rows: byHead(joined([within(nope), nope], [valueDims, value]), nope + value, heads, sizes.heads),
        columns: sources(kernel.latent, (dim) => (dim < latent ? dim : -1)),
      },
    ],
    [
      "o_proj.weight",
      {
        rows: sources(native.hiddenSize, (row) => row),
        columns: byHead(valueDims, value, heads, sizes.heads),
      },
    ],
    ["indexer.wk.weight", { rows: keys }],
    ["indexer.k_norm.weight", { rows: keys }],
    ["indexer.k_norm.bias", { rows: keys }],
    ["indexer.wq_b.weight", { rows: byHead(queries, indexHeadDim, indexNHeads, sizes.indexHeads) }],
    ["indexer.weights_proj.weight", { rows: sources(sizes.indexHeads, (head) => (head < indexNHeads ? head : -1)) }],
  ];
  return new Map(parts);
}

function sources(count: number, source: (index: number) => number): Sources {
  return Int32Array.from({ length: count }, (_, index) => source(index));
}

/** For each of the 64 rotary dimensions the native one: pairs are neighbours (interleaved) or half the width apart. */
function rotarySources(rope: number, interleaved: boolean): Sources {
  const step = kernel.rope / rope;
  return sources(kernel.rope, (dim) => {
    const pair = interleaved ? Math.floor(dim / 2) : dim % (kernel.rope / 2);
    const second = interleaved ? dim % 2 : Math.floor(dim / (kernel.rope / 2));
    if (pair % step !== 0) return -1;
    return interleaved ? 2 * (pair / step) + second : pair / step + second * (rope / 2);
  });
}

/** Dimensions of an index head: keys fill what the native ones leave with whole copies of them, queries with zeros. */
function indexSources(rope: number, indexHeadDim: number, interleaved: boolean): { queries: Sources; keys: Sources } {
  const plain = sources(kernel.indexDim - kernel.rope, (dim) => (dim < indexHeadDim - rope ? dim : -1));
  const queries = joined([rotarySources(rope, interleaved), rope], [plain, indexHeadDim - rope]);
  let copied = 0;
  return { queries, keys: queries.map((dim) => (dim < 0 ? copied++ % indexHeadDim : dim)) };
}

/** One after the other; `size` is the number of native dimensions of a part. */
function joined(...parts: readonly [dims: Sources, size: number][]): Sources {
  let before = 0;
  const all: number[] = [];
  for (const [dims, size] of parts) {
    for (const dim of dims) all.push(dim < 0 ? -1 : before + dim);
    before += size;
  }
  return Int32Array.from(all);
}

/** The same in every head; heads that the model does not have are zero. */
function byHead(dims: Sources, width: number, heads: number, padded: number): Sources {
  return sources(padded * dims.length, (index) => {
    const head = Math.floor(index / dims.length);
    const dim = dims[index % dims.length] as number;
    return head < heads && dim >= 0 ? head * width + dim : -1;
  });
}

/** `q_b_proj.weight` of `model.layers.N.self_attn.q_b_proj.weight`, for a backbone layer. */
function attentionPart(name: string, layers: number): string | undefined {
  const [, layer, part] = /^model\.layers\.(\d+)\.self_attn\.(.+)$/.exec(name) ?? [];
  return layer !== undefined && Number(layer) < layers ? part : undefined;
}

/** Every tensor that changes is there in its native shape, as plain floating point numbers; leftover indexers as well. */
function requirePlainTensors(
  native: DsaConfig,
  checkpoint: CheckpointTensors,
  spreads: ReadonlyMap<string, TensorSpread>,
): void {
  const holds = (layer: number): boolean =>
    checkpoint.tensors.has(`model.layers.${layer}.self_attn.indexer.wq_b.weight`);
  const letters = [...native.indexerLayers].map((letter, layer) => (holds(layer) ? "F" : letter)).join("");
  const { layers } = bindWeights({ ...native, indexerLayers: letters as DsaConfig["indexerLayers"] }, checkpoint);
  if (layers.some(({ kvB }) => "keyUp" in kvB)) {
    throw new InputError(`"${checkpoint.folder}" holds kv_b_proj in MLX's two parts, which are not padded`, {
      hint: "take the release for transformers",
    });
  }
  for (const { name, dtype, file } of checkpoint.tensors.values()) {
    const part = attentionPart(name, native.numHiddenLayers);
    if (part === undefined || !spreads.has(part) || spreadTypes.includes(dtype)) continue;
    throw new InputError(
      `"${checkpoint.folder}/${file}", tensor "${name}" is quantised (${dtype}); padded are ${spreadTypes.join(", ")}`,
      { hint: quantizationHint },
    );
  }
}
