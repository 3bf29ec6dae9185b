/**
 * Multi-head latent attention over whole sequences (HF's GlmMoeDsaAttention), with keys and values expanded once a layer
 * and a bias that opens the selected keys: the fused attention of a GPU reads all keys under a bias faster than it
 * gathers rows of their own for every query (docs/gpu.md has the crossover).
 */
import { OnnxType } from "../checkpoint/dtype.ts";
import { type DsaConfig, latentNormEps } from "../checkpoint/model-config.ts";
import type { LayerWeights } from "../checkpoint/weights.ts";
import { softmaxScale } from "./attention-graph.ts";
import type { GraphBuilder, Value } from "./graph-builder.ts";
import { rotateAt } from "./rope-graph.ts";
import { type Chunk, inOrder, type SequenceContext } from "./sequence-rows.ts";

/** Keys `[batch, length, H * (rope + nope)]` and values `[batch, length, H * dv]`. */
export interface ExpandedKeys {
  keys: Value;
  values: Value;
}

/** Keys and values of all rows. A head's key is k_pe, the same for all heads, then its own k_nope. */
export function expandedKeys(
  graph: GraphBuilder,
  context: SequenceContext,
  layer: LayerWeights,
  hidden: Value,
): ExpandedKeys {
  const { config, cos, sin, positions } = context;
  const together = context.shape.chunkRows;
  const { numAttentionHeads: heads, kvLoraRank: rank, qkRopeHeadDim: rope, qkNopeHeadDim: nope, vHeadDim } = config;
  const h = graph.rmsNorm(hidden, layer.inputNorm, config.rmsNormEps);
  const [compressed, pe] = graph.nodes(
    "Split",
    [graph.linear(h, layer.kvA, layer.kvABias), graph.int([rank, rope])],
    { axis: 1 },
    2,
  ) as [Value, Value];
  const rotation = { heads: 1, headDim: rope, rotaryDim: rope, interleaved: true };
  const turned = rotateAt(graph, pe, { cos, sin, positions, together }, rotation);
  const shared = graph.reshape(inOrder(graph, context, turned, rope), [-1, 1, rope]);
  const latent = inOrder(graph, context, graph.rmsNorm(compressed, layer.kvANorm, latentNormEps), rank);
  const { batch, length } = context.shape;
  const spread = graph.node("Expand", [shared, graph.int([batch * length, heads, rope])]);
  const own = graph.reshape(up(graph, config, layer, latent, 0, nope), [-1, heads, nope]);
  const keys = graph.node("Concat", [spread, own], { axis: 2 });
  const values = up(graph, config, layer, latent, nope, nope + vHeadDim);
  return {
    keys: graph.reshape(keys, [batch, length, heads * (rope + nope)]),
    values: graph.reshape(values, [batch, length, heads * vHeadDim]),
  };
}

/** Rows `from` to `to` of every head's block of kv_b_proj, applied to latents: `[rows, H * (to - from)]`. */
function up(
  graph: GraphBuilder,
  config: DsaConfig,
  { kvB }: LayerWeights,
  latent: Value,
  from: number,
  to: number,
): Value {
  const { numAttentionHeads: heads, qkNopeHeadDim, vHeadDim, kvLoraRank } = config;
  const weight = graph.derived(`${kvB.name} ${from} to ${to}`, (outer) => {
    const blocks = outer.reshape(outer.weight(kvB), [heads, qkNopeHeadDim + vHeadDim, kvLoraRank]);
    return outer.reshape(outer.slice(blocks, 1, from, to), [heads * (to - from), kvLoraRank]);
  });
  return graph.node("Gemm", [latent, weight], { transB: 1 });
}

/** What one chunk of query rows attends with. */
export interface ChunkAttention {
  /** Hidden states of the chunk's rows. */
  residual: Value;
  /** `topk_indices` of all rows; absent where every visible key is selected. */
  selected: Value | undefined;
  keys: ExpandedKeys;
}

/** Attention output of a chunk, `[chunk rows, hidden_size]`. */
export function attendChunk(
  chunk: Chunk,
  context: SequenceContext,
  layer: LayerWeights,
  { residual, selected, keys }: ChunkAttention,
): Value {
  const { graph, rows } = chunk;
  const { config, shape, cos, sin, positions } = context;
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope, vHeadDim } = config;
  const at = { cos, sin, positions: rows(positions), together: shape.chunkRows };
  const h = graph.rmsNorm(residual, layer.inputNorm, config.rmsNormEps);
  const qLatent = graph.rmsNorm(graph.linear(h, layer.qA, layer.qABias), layer.qANorm, latentNormEps);
  const rotation = { heads, headDim: rope + nope, rotaryDim: rope, interleaved: true };
  const projected = graph.node("Gemm", [qLatent, ropeFirst(graph, config, layer)], { transB: 1 });
  const queries = rotateAt(graph, projected, at, rotation);
  const bias = selectionBias(graph, context, at.positions, selected === undefined ? undefined : rows(selected));
  const [attended] = graph.nodes(
    "MultiHeadAttention",
    [
      graph.reshape(queries, [shape.batch, shape.chunkRows, heads * (rope + nope)]),
      keys.keys,
      keys.values,
      "",
      keyBounds(chunk, context),
      graph.reshape(bias, [shape.batch, 1, shape.chunkRows, shape.length]),
    ],
    { num_heads: heads, scale: { float: softmaxScale(config) } },
    1,
    "com.microsoft",
  );
  return graph.linear(graph.reshape(attended as Value, [-1, heads * vHeadDim]), layer.o, layer.oBias);
}

/** Keys behind the chunk's end are not read at all: the bounds of what is, in the form that the provider runs well. */
function keyBounds({ graph, seen }: Chunk, { shape, kernels }: SequenceContext): Value {
  const { batch, length, chunks, chunkRows } = shape;
  if (chunks === 1) return "";
  const lengths = graph.node("Expand", [graph.node("Unsqueeze", [seen, graph.int([0])]), graph.int([batch])]);
  if (kernels.keyBounds === "lengths") return graph.cast(lengths, OnnxType.int32);
  // Lengths, then where each sequence begins among all queries, and among all keys.
  const begins = (rows: number) => Array.from({ length: batch + 1 }, (_, i) => i * rows);
  const offsets = graph.int([...begins(chunkRows), ...begins(length)]);
  return graph.cast(graph.node("Concat", [lengths, offsets], { axis: 0 }), OnnxType.int32);
}

/** q_b_proj with each head's q_pe in front of its q_nope: one rotation then covers whole heads. */
function ropeFirst(graph: GraphBuilder, config: DsaConfig, { qB }: LayerWeights): Value {
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope, qLoraRank } = config;
  return graph.derived(`${qB.name} rope first`, (outer) => {
    const blocks = outer.reshape(outer.weight(qB), [heads, nope + rope, qLoraRank]);
    const turned = outer.node("Concat", [outer.slice(blocks, 1, nope, nope + rope), outer.slice(blocks, 1, 0, nope)], {
      axis: 1,
    });
    return outer.reshape(turned, [heads * (nope + rope), qLoraRank]);
  });
}

/** 0 at the selected, visible keys of each row and the lowest finite number elsewhere, `[chunk rows, length]`. */
function selectionBias(
  graph: GraphBuilder,
  { shape, settings }: SequenceContext,
  positions: Value,
  selected: Value | undefined,
): Value {
  const closed = graph.scalar(settings.precision === OnnxType.float ? -1e30 : -65504);
  const row = graph.node("Unsqueeze", [graph.cast(positions, OnnxType.int32), graph.int([1])]);
  const rows = shape.batch * shape.chunkRows;
  if (selected === undefined) {
    const range = graph.node("Range", [graph.int(0), graph.int(shape.length), graph.int(1)]);
    return graph.node("Where", [
      graph.node("Greater", [graph.cast(range, OnnxType.int32), row]),
      closed,
      graph.scalar(0),
    ]);
  }
  const opened = graph.node("Where", [graph.node("Greater", [selected, row]), closed, graph.scalar(0)]);
  const all = graph.node("Expand", [closed, graph.int([rows, shape.length])]);
  return graph.node("ScatterElements", [all, selected, opened], { axis: 1 });
}
