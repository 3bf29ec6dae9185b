/**
 * Multi-head latent attention over whole sequences (HF's GlmMoeDsaAttention). Up to a length, keys and values are expanded
 * once a layer and read under a bias that opens the selected ones: the fused attention of a GPU does that faster than it
 * gathers rows of their own for every query. Beyond it, the selected latent rows are gathered (docs/gpu.md has the figures).
 */

import { type DsaConfig, latentNormEps } from "../checkpoint/config/model-config.ts";
import { OnnxType } from "../checkpoint/dtype.ts";
import type { LayerWeights } from "../checkpoint/weights.ts";
import { softmaxScale, upProjection } from "./attention-graph.ts";
import { latentWidth } from "./exported/contract.ts";
import type { GraphBuilder, Value } from "./graph-builder.ts";
import { compressedQueries, type RowAngles } from "./lightning-indexer.ts";
import { rotateAt } from "./rope-graph.ts";
import type { Kernels } from "./sequence-kernels.ts";
import { type Chunk, inOrder, type SequenceContext } from "./sequence-rows.ts";

/** What a layer's queries read. */
export interface LayerKeys {
  /** Compressed queries of all rows, in the order of rows, `[rows, q_lora_rank]`. */
  compressed: Value;
  /** Queries that see more keys than this gather theirs. */
  readable: number;
  /** The first `readable` keys of every sequence, `[batch, readable, H * (rope + nope)]`, and values `[.., H * dv]`. */
  keys: Value;
  values: Value;
  /** k_pe joined with the normed c_kv, `[length, latentWidth]`; only where some queries gather. */
  latent: Value | undefined;
}

/** Keys of all rows. A head's key is k_pe, the same for all heads, then its own k_nope. */
export function layerKeys(
  graph: GraphBuilder,
  context: SequenceContext,
  layer: LayerWeights,
  hidden: Value,
): LayerKeys {
  const { config, shape, cos, sin, positions } = context;
  const { batch, length, chunkRows: together } = shape;
  const { numAttentionHeads: heads, kvLoraRank: rank, qkRopeHeadDim: rope, qkNopeHeadDim: nope, vHeadDim } = config;
  const normed = graph.rmsNorm(hidden, layer.inputNorm, config.rmsNormEps);
  const [compressed, pe] = graph.nodes(
    "Split",
    [graph.linear(normed, layer.kvA, layer.kvABias), graph.int([rank, rope])],
    { axis: 1 },
    2,
  ) as [Value, Value];
  const rotation = { heads: 1, headDim: rope, rotaryDim: rope, interleaved: true };
  const turned = rotateAt(graph, pe, { cos, sin, positions, together }, rotation);
  const shared = inOrder(graph, context, turned, rope);
  const content = inOrder(graph, context, graph.rmsNorm(compressed, layer.kvANorm, latentNormEps), rank);
  const readable = readableKeys(context);
  const first = (x: Value) => (readable === length ? x : graph.slice(x, 0, 0, readable));
  const spread = graph.node("Expand", [
    graph.reshape(first(shared), [-1, 1, rope]),
    graph.int([batch * readable, heads, rope]),
  ]);
  const own = graph.reshape(up(graph, config, layer, first(content), 0, nope), [-1, heads, nope]);
  const keys = graph.node("Concat", [spread, own], { axis: 2 });
  const values = up(graph, config, layer, first(content), nope, nope + vHeadDim);
  return {
    compressed: compressedQueries(graph, layer, normed),
    readable,
    keys: graph.reshape(keys, [batch, readable, heads * (rope + nope)]),
    values: graph.reshape(values, [batch, readable, heads * vHeadDim]),
    latent: readable === length ? undefined : graph.node("Concat", [shared, content], { axis: 1 }),
  };
}

/**
 * Up to how many keys queries read all of them: both ways cost the same where the multiply-adds of that take as long as
 * gathering `index_topk` latent rows.
 */
export function readableLimit(config: DsaConfig, { gatherCost }: Kernels): number {
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope, vHeadDim } = config;
  const perKey = heads * (rope + nope + vHeadDim);
  return Math.max(Math.ceil((gatherCost * config.indexTopk * latentWidth(config)) / perKey), config.indexTopk);
}

/** The same of a sequence graph. */
export function readableKeys({
  config,
  shape,
  kernels,
}: Pick<SequenceContext, "config" | "shape" | "kernels">): number {
  // Several sequences at once are short ones: their rows would have to be gathered from one cache each.
  return shape.batch > 1 || shape.chunks === 1 ? shape.length : Math.min(shape.length, readableLimit(config, kernels));
}

/** Rows `from` to `to` of every head's block of kv_b_proj, `[H, to - from, kv_lora_rank]`. */
export function upBlock(
  graph: GraphBuilder,
  config: DsaConfig,
  { kvB }: LayerWeights,
  from: number,
  to: number,
): Value {
  return graph.derived(`${kvB.name} ${from} to ${to}`, (outer) =>
    outer.slice(upProjection(outer, config, kvB), 1, from, to),
  );
}

/** The same rows applied to latents: `[rows, H * (to - from)]`. */
export function up(
  graph: GraphBuilder,
  config: DsaConfig,
  layer: LayerWeights,
  latent: Value,
  from: number,
  to: number,
): Value {
  const { numAttentionHeads: heads, kvLoraRank } = config;
  const block = graph.reshape(upBlock(graph, config, layer, from, to), [heads * (to - from), kvLoraRank]);
  return graph.node("Gemm", [latent, block], { transB: 1 });
}

/** What one chunk of query rows attends with: `topk_indices` of all rows, absent where every visible key is selected. */
export interface ChunkAttention {
  selected: Value | undefined;
  keys: LayerKeys;
}

/** Attention of a chunk, before its output projection: `[chunk rows, H * dv]`. */
export function attendChunk(
  chunk: Chunk,
  context: SequenceContext,
  layer: LayerWeights,
  { selected, keys }: ChunkAttention,
): Value {
  const { graph, rows } = chunk;
  const { config, shape, cos, sin, positions } = context;
  const at = { cos, sin, positions: rows(positions), together: shape.chunkRows };
  const queries = attentionQueries(graph, config, layer, rows(keys.compressed), at);
  const own = selected === undefined ? undefined : rows(selected);
  const row = graph.node("Unsqueeze", [graph.cast(at.positions, OnnxType.int32), graph.int([1])]);
  const read = (inside: GraphBuilder) => readExpanded({ ...chunk, graph: inside }, context, keys, queries, row, own);
  const gather = (inside: GraphBuilder) =>
    readGathered(inside, config, layer, keys.latent as Value, queries, row, own as Value);
  const gathers = own !== undefined && keys.readable < shape.length;
  return gathers ? byLength(chunk, keys.readable, read, gather) : read(graph);
}

/** Rotated queries of all heads, q_pe before q_nope, `[rows, H * (rope + nope)]`, of compressed ones `[rows, q_lora_rank]`. */
export function attentionQueries(
  graph: GraphBuilder,
  config: DsaConfig,
  layer: LayerWeights,
  compressed: Value,
  angles: RowAngles,
): Value {
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope } = config;
  const projected = graph.node("Gemm", [compressed, ropeFirst(graph, config, layer)], { transB: 1 });
  return rotateAt(graph, projected, angles, { heads, headDim: rope + nope, rotaryDim: rope, interleaved: true });
}

/** Picks the way of reading by the chunk's end: before the run where that is known, in it otherwise. */
function byLength(
  { graph, seen, end }: Chunk,
  readable: number,
  read: (inside: GraphBuilder) => Value,
  gather: (inside: GraphBuilder) => Value,
): Value {
  if (end !== undefined) return end <= readable ? read(graph) : gather(graph);
  return graph.either(graph.node("LessOrEqual", [seen, graph.int(readable)]), read, gather);
}

/** Attention over expanded keys under a bias, `[chunk rows, H * dv]`. */
function readExpanded(
  chunk: Chunk,
  { config, shape, kernels }: SequenceContext,
  { keys, values, readable }: LayerKeys,
  queries: Value,
  row: Value,
  selected: Value | undefined,
): Value {
  const { graph, end } = chunk;
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope, vHeadDim } = config;
  const cut = kernels.keyBounds === "slices" && end !== undefined ? Math.max(end, config.indexTopk) : readable;
  const first = (x: Value) => (cut === readable ? x : graph.slice(x, 1, 0, cut));
  const bias = selectionBias(graph, shape.batch * shape.chunkRows, cut, row, selected);
  const [output] = graph.nodes(
    "MultiHeadAttention",
    [
      graph.reshape(queries, [shape.batch, shape.chunkRows, heads * (rope + nope)]),
      first(keys),
      first(values),
      "",
      shape.chunks === 1 ? "" : keyBounds(chunk, shape, kernels, readable),
      graph.reshape(bias, [shape.batch, 1, shape.chunkRows, cut]),
    ],
    { num_heads: heads, scale: { float: softmaxScale(config) } },
    1,
    "com.microsoft",
  );
  return graph.reshape(output as Value, [-1, heads * vHeadDim]);
}

/** Keys behind the chunk's end are not read at all: the bounds of what is, in the form that the provider runs well. */
function keyBounds(
  { graph, seen }: Chunk,
  { batch, chunkRows }: SequenceContext["shape"],
  kernels: Kernels,
  readable: number,
): Value {
  if (kernels.keyBounds === "slices") return "";
  const lengths = graph.node("Expand", [graph.node("Unsqueeze", [seen, graph.int([0])]), graph.int([batch])]);
  if (kernels.keyBounds === "lengths") return graph.cast(lengths, OnnxType.int32);
  // Lengths, then where each sequence begins among all queries, and among all keys.
  const begins = (rows: number) => Array.from({ length: batch + 1 }, (_, i) => i * rows);
  const offsets = graph.int([...begins(chunkRows), ...begins(readable)]);
  return graph.cast(graph.node("Concat", [lengths, offsets], { axis: 0 }), OnnxType.int32);
}

/** Attention over gathered latent rows, in absorbed form, `[chunk rows, H * dv]`. */
function readGathered(
  graph: GraphBuilder,
  config: DsaConfig,
  layer: LayerWeights,
  latent: Value,
  queries: Value,
  row: Value,
  selected: Value,
): Value {
  const asked = absorbedQueries(graph, config, layer, queries);
  const rows = graph.node("Gather", [latent, selected], { axis: 0 });
  const scale = { float: softmaxScale(config) };
  const scores = graph.contrib("FusedMatMul", [asked, rows], { transB: 1, alpha: scale });
  const mask = graph.node("Where", [graph.node("Greater", [selected, row]), lowest(graph), graph.scalar(0)]);
  const visible = graph.node("Add", [scores, graph.node("Unsqueeze", [mask, graph.int([1])])]);
  // Whole rows are multiplied and k_pe is cut off afterwards: cheaper than a second copy of what was gathered.
  const mixed = graph.node("MatMul", [graph.node("Softmax", [visible], { axis: -1 }), rows]);
  return valuesOf(graph, config, layer, mixed);
}

/** Queries in latent space, `[rows, H, latentWidth]`, of rotated queries `[rows, H * (rope + nope)]`. */
export function absorbedQueries(
  graph: GraphBuilder,
  config: DsaConfig,
  layer: LayerWeights,
  queries: Value,
  swap: Swap = swapped,
): Value {
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope } = config;
  const byHead = graph.reshape(queries, [-1, heads, rope + nope]);
  const [pe, content] = graph.nodes("Split", [byHead, graph.int([rope, nope])], { axis: 2 }, 2) as [Value, Value];
  const absorbed = graph.node("MatMul", [swap(graph, content, heads), upBlock(graph, config, layer, 0, nope)]);
  return graph.node("Concat", [pe, swap(graph, absorbed, 1)], { axis: 2 });
}

/** Values `[rows, H * dv]` of mixed latent rows `[rows, H, latentWidth]`. */
export function valuesOf(
  graph: GraphBuilder,
  config: DsaConfig,
  layer: LayerWeights,
  mixed: Value,
  swap: Swap = swapped,
): Value {
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope, kvLoraRank, vHeadDim } = config;
  const content = swap(graph, graph.slice(mixed, 2, rope, rope + kvLoraRank), heads);
  const block = upBlock(graph, config, layer, nope, nope + vHeadDim);
  const values = graph.contrib("FusedMatMul", [content, block], { transB: 1 });
  return graph.reshape(swap(graph, values, 1), [-1, heads * vHeadDim]);
}

/** Exchanges rows and heads; `first` is how many of those that come first there are, should there be one row. */
export type Swap = (graph: GraphBuilder, x: Value, first: number) => Value;

export function swapped(graph: GraphBuilder, x: Value): Value {
  return graph.node("Transpose", [x], { perm: [1, 0, 2] });
}

/** q_b_proj with each head's q_pe in front of its q_nope: one rotation then covers whole heads. */
export function ropeFirst(graph: GraphBuilder, config: DsaConfig, { qB }: LayerWeights): Value {
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope, qLoraRank } = config;
  return graph.derived(`${qB.name} rope first`, (outer) => {
    const blocks = outer.reshape(outer.weight(qB), [heads, nope + rope, qLoraRank]);
    const turned = outer.node("Concat", [outer.slice(blocks, 1, nope, nope + rope), outer.slice(blocks, 1, 0, nope)], {
      axis: 1,
    });
    return outer.reshape(turned, [heads * (nope + rope), qLoraRank]);
  });
}

/** Finite, so that a row without visible keys among the read ones stays free of NaN. */
export function lowest(graph: GraphBuilder): Value {
  return graph.scalar(graph.settings.precision === OnnxType.float ? -1e30 : -65504);
}

/** 0 at the selected, visible keys of each row and the lowest number elsewhere, `[rows, length]`. */
function selectionBias(
  graph: GraphBuilder,
  rows: number,
  length: number,
  row: Value,
  selected: Value | undefined,
): Value {
  const closed = lowest(graph);
  if (selected === undefined) {
    const range = graph.cast(graph.node("Range", [graph.int(0), graph.int(length), graph.int(1)]), OnnxType.int32);
    return graph.node("Where", [graph.node("Greater", [range, row]), closed, graph.scalar(0)]);
  }
  const opened = graph.node("Where", [graph.node("Greater", [selected, row]), closed, graph.scalar(0)]);
  const all = graph.node("Expand", [closed, graph.int([rows, length])]);
  return graph.node("ScatterElements", [all, selected, opened], { axis: 1 });
}
