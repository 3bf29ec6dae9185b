/**
 * Multi-head latent attention (HF's GlmMoeDsaAttention, DeepseekV32Attention), piece by piece:
 *
 *     compressed queries   c_q = RMSNorm(h W_qa)                    shared with the indexer
 *     queries              q_nope, q_pe = c_q W_qb, q_pe rotated     one of each per head
 *     latent               c_kv = RMSNorm(h W_kva), k_pe = RoPE(h W_kpe)    one per token, cached
 *     keys, values         k = k_pe | c_kv W_uk,  v = c_kv W_uv      one of each per head
 *     output               softmax(q . k / sqrt(dqk)) v              over the selected keys
 *
 * *Expanded*, keys and values are made for every head. *Absorbed*, W_uk is folded into the query and W_uv into the output,
 * so that all heads read one latent row per token: a selection is then a gather of rows. `attention-kernels.ts`
 * has what reads them.
 */
import { type DsaConfig, latentNormEps } from "../../checkpoint/config/model-config.ts";
import type { LayerWeights } from "../../checkpoint/weights.ts";
import { latentParts } from "../exported/contract.ts";
import type { Value } from "../graph-builder.ts";
import type { ModelGraph } from "../model-graph.ts";
import { type RowAngles, rotate } from "./rope.ts";

/** What a token leaves to later ones: normed c_kv `[rows, kv_lora_rank]` and rotated k_pe `[rows, qk_rope_head_dim]`. */
export interface Latents {
  content: Value;
  pe: Value;
}

/** c_q `[rows, q_lora_rank]`, and what `qB` reads: c_q, or c_q and its rows before the norm side by side. */
export function compressedQueries(
  graph: ModelGraph,
  layer: LayerWeights,
  h: Value,
): { compressed: Value; asked: Value } {
  const raw = graph.linear(h, layer.qA, layer.qABias);
  const compressed = graph.rmsNorm(raw, layer.qANorm, latentNormEps);
  const asked = layer.gatesValues === true ? graph.node("Concat", [compressed, raw], { axis: 1 }) : compressed;
  return { compressed, asked };
}

export function latents(graph: ModelGraph, layer: LayerWeights, h: Value, angles: RowAngles): Latents {
  const rope = graph.config.qkRopeHeadDim;
  const [compressed, position] = splitLatents(graph, graph.linear(h, layer.kvA, layer.kvABias));
  const rotated = rotate(graph, position, angles, { heads: 1, headDim: rope, rotaryDim: rope, interleaved: true });
  return {
    content: graph.rmsNorm(compressed, layer.kvANorm, latentNormEps),
    pe: graph.reshape(rotated, [-1, rope]),
  };
}

/** Rows of a cache, `[rows, latentWidth]`: c_kv, then k_pe. */
export function joinLatents(graph: ModelGraph, { content, pe }: Latents): Value {
  return graph.node("Concat", [content, pe], { axis: 1 });
}

export function splitLatents(graph: ModelGraph, rows: Value): [content: Value, pe: Value] {
  return graph.nodes("Split", [rows, graph.int(latentParts(graph.config))], { axis: 1 }, 2) as [Value, Value];
}

/** Rotated queries of all heads, q_pe before q_nope: `[rows, H * (rope + nope)]`, or as many elements. */
export function attentionQueries(graph: ModelGraph, layer: LayerWeights, asked: Value, angles: RowAngles): Value {
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope } = graph.config;
  const projected = graph.node("Gemm", [asked, ropeFirst(graph, layer)], { transB: 1 });
  return rotate(graph, projected, angles, { heads, headDim: rope + nope, rotaryDim: rope, interleaved: true });
}

/** q_b_proj `[H * (rope + nope), ..]` with each head's q_pe in front: one rotation then covers whole heads. */
function ropeFirst(graph: ModelGraph, { qB, gatesValues }: QueryWeights): Value {
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope } = graph.config;
  const [, width = 0] = qB.shape;
  return graph.derived(`${qB.name} rope first`, (outer) => {
    const blocks = headBlocks(outer, { qB, gatesValues });
    const turned = outer.node("Concat", [outer.slice(blocks, 1, nope, nope + rope), outer.slice(blocks, 1, 0, nope)], {
      axis: 1,
    });
    return outer.reshape(turned, [heads * (nope + rope), width]);
  });
}

/** q_b_proj head by head: q_nope, q_pe, and the gate of the head's values if there is one. */
function headBlocks(graph: ModelGraph, { qB, gatesValues }: QueryWeights): Value {
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope, vHeadDim } = graph.config;
  const [, width = 0] = qB.shape;
  return graph.reshape(graph.weight(qB), [heads, nope + rope + (gatesValues === true ? vHeadDim : 0), width]);
}

type QueryWeights = Pick<LayerWeights, "qB" | "gatesValues">;

/** Heads' values `[rows, H * v_head_dim]` times their gates, where they have any. */
export function gatedValues(graph: ModelGraph, layer: QueryWeights, asked: Value, values: Value): Value {
  const gates = valueGates(graph, layer, asked);
  return gates === undefined ? values : graph.node("Mul", [values, gates]);
}

/** What stands between each row's values and o_proj, sigmoids `[rows, H * v_head_dim]` (HF's AXK2Attention), where anything does. */
export function valueGates(graph: ModelGraph, layer: QueryWeights, asked: Value): Value | undefined {
  if (layer.gatesValues !== true) return undefined;
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope, vHeadDim } = graph.config;
  const [, width = 0] = layer.qB.shape;
  const block = graph.derived(`${layer.qB.name} gate`, (outer) => {
    const gates = outer.slice(headBlocks(outer, layer), 1, nope + rope, nope + rope + vHeadDim);
    return outer.reshape(gates, [heads * vHeadDim, width]);
  });
  return graph.sigmoid(graph.node("Gemm", [asked, block], { transB: 1 }));
}

/** Keys `[.., H * (rope + nope)]`, each head's k_pe before its k_nope, and values `[.., H * dv]` of latents. */
export interface ExpandedKeys {
  keys: Value;
  values: Value;
}

/** Keys and values of latents `[batch * rows, ..]`: `[batch, rows, ..]`. */
export function expand(
  graph: ModelGraph,
  layer: LayerWeights,
  { content, pe }: Latents,
  batch: number,
  inOne = false,
): ExpandedKeys {
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope, vHeadDim } = graph.config;
  const joined = (): Value =>
    graph.node("Gemm", [joinLatents(graph, { content, pe }), keyBlock(graph, layer)], { transB: 1 });
  const sideBySide = (): Value => {
    const own = graph.reshape(up(graph, layer, content, 0, nope), [-1, heads, nope]);
    const spread = graph.node("Expand", [graph.reshape(pe, [-1, 1, rope]), graph.int([1, heads, rope])]);
    return graph.node("Concat", [spread, own], { axis: 2 });
  };
  const keys = inOne ? joined() : sideBySide();
  const values = up(graph, layer, content, nope, nope + vHeadDim);
  return {
    keys: graph.reshape(keys, [batch, -1, heads * (rope + nope)]),
    values: graph.reshape(values, [batch, -1, heads * vHeadDim]),
  };
}

/** What makes every head's key of a latent row, `[H * (rope + nope), kv_lora_rank + rope]`: k_pe as it is, then k_nope. */
function keyBlock(graph: ModelGraph, layer: LayerWeights): Value {
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope, kvLoraRank: rank } = graph.config;
  return graph.derived(`${layer.kvANorm.name} keys of latent rows`, (outer) => {
    const one = Float32Array.from({ length: rope * (rank + rope) }, (_, i) =>
      i % (rank + rope) === rank + Math.floor(i / (rank + rope)) ? 1 : 0,
    );
    const passed = outer.fromFloat(outer.reshape(outer.float(one), [1, rope, rank + rope]));
    const everyHead = outer.node("Expand", [passed, outer.int([heads, rope, rank + rope])]);
    const none = outer.node("Expand", [outer.scalar(0), outer.int([heads, nope, rope])]);
    const made = outer.node("Concat", [upBlock(outer, layer, 0, nope), none], { axis: 2 });
    return outer.reshape(outer.node("Concat", [everyHead, made], { axis: 1 }), [heads * (rope + nope), rank + rope]);
  });
}

/** Queries in latent space, `[rows, H, latentWidth]`, of rotated ones `[rows, H * (rope + nope)]`. */
export function absorbedQueries(graph: ModelGraph, layer: LayerWeights, queries: Value, swap: Swap = swapped): Value {
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope } = graph.config;
  const byHead = graph.reshape(queries, [-1, heads, rope + nope]);
  const [pe, content] = graph.nodes("Split", [byHead, graph.int([rope, nope])], { axis: 2 }, 2) as [Value, Value];
  const absorbed = graph.node("MatMul", [swap(graph, content, heads), upBlock(graph, layer, 0, nope)]);
  return graph.node("Concat", [swap(graph, absorbed, 1), pe], { axis: 2 });
}

/** Values `[rows, H * dv]` of mixed latent rows `[rows, H, latentWidth]`. */
export function absorbedValues(graph: ModelGraph, layer: LayerWeights, mixed: Value, swap: Swap = swapped): Value {
  const { numAttentionHeads: heads, qkNopeHeadDim: nope, kvLoraRank, vHeadDim } = graph.config;
  const content = swap(graph, graph.slice(mixed, 2, 0, kvLoraRank), heads);
  const block = upBlock(graph, layer, nope, nope + vHeadDim);
  const values = graph.contrib("FusedMatMul", [content, block], { transB: 1 });
  return graph.reshape(swap(graph, values, 1), [-1, heads * vHeadDim]);
}

/** Exchanges rows and heads; `first` is how many of those that come first there are, should there be one row. */
export type Swap = (graph: ModelGraph, x: Value, first: number) => Value;

function swapped(graph: ModelGraph, x: Value): Value {
  return graph.node("Transpose", [x], { perm: [1, 0, 2] });
}

/** The same for one row: the bytes stay where they are. */
export function renamed(graph: ModelGraph, x: Value, first: number): Value {
  return graph.reshape(x, [first, -1, 0]);
}

/** dqk^-0.5, times YaRN's factor. */
export function softmaxScale(config: DsaConfig): number {
  return (config.qkNopeHeadDim + config.qkRopeHeadDim) ** -0.5 * config.rope.softmaxFactor;
}

/** Rows `from` to `to` of every head's block of kv_b_proj, `[H, to - from, kv_lora_rank]`. */
function upBlock(graph: ModelGraph, { kvB }: LayerWeights, from: number, to: number): Value {
  const { numAttentionHeads: heads, qkNopeHeadDim, vHeadDim, kvLoraRank } = graph.config;
  return graph.derived(`${kvB.name} ${from} to ${to}`, (outer) => {
    if ("keyUp" in kvB) {
      // MLX keeps it cut in two.
      const keys = outer.node("Transpose", [outer.weight(kvB.keyUp)], { perm: [0, 2, 1] });
      return outer.slice(outer.node("Concat", [keys, outer.weight(kvB.valueUp)], { axis: 1 }), 1, from, to);
    }
    return outer.slice(outer.reshape(outer.weight(kvB), [heads, qkNopeHeadDim + vHeadDim, kvLoraRank]), 1, from, to);
  });
}

/** The same rows applied to latents: `[rows, H * (to - from)]`. */
function up(graph: ModelGraph, layer: LayerWeights, content: Value, from: number, to: number) {
  const { numAttentionHeads: heads, kvLoraRank } = graph.config;
  const block = graph.reshape(upBlock(graph, layer, from, to), [heads * (to - from), kvLoraRank]);
  return graph.node("Gemm", [content, block], { transB: 1 });
}
