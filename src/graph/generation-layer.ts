/**
 * A layer of a generation graph: the rows of one run (a chunk of the prompt, or one new token) against caches. Shared
 * layers have neither indexer weights nor index keys.
 */

import { type DsaConfig, latentNormEps } from "../checkpoint/config/model-config.ts";
import { OnnxType } from "../checkpoint/dtype.ts";
import type { IndexerWeights, LayerWeights } from "../checkpoint/weights.ts";
import { softmaxScale } from "./attention-graph.ts";
import { type CacheContext, type CacheName, type WrittenCache, writeCache } from "./generation-caches.ts";
import type { GraphBuilder, Value } from "./graph-builder.ts";
import { feedForward } from "./mlp-graph.ts";
import { rotate } from "./rope-graph.ts";
import { absorbedQueries, lowest, ropeFirst, swapped, up, valuesOf } from "./sequence-attention.ts";
import { reluProduct, tieStep } from "./sequence-indexer.ts";
import type { Kernels } from "./sequence-kernels.ts";

/**
 * How the rows of a run find and read their keys. `every`: all that they see, without scores. `read`: scores, then all
 * keys under a bias that opens the selected ones. `gather`: scores, then the selected latent rows. `single` is `gather`
 * for one row, `far` the same with so many keys that one top-k over them would leave most of a GPU idle.
 */
export type Way = "every" | "read" | "gather" | "single" | "far";

/** Pieces that a `far` run ranks its keys in: the keys are a multiple of it, and each piece has `index_topk` of them. */
export const farPieces = 16;

/** What all layers of one way share. */
export interface Pass {
  graph: GraphBuilder;
  config: DsaConfig;
  kernels: Kernels;
  caches: CacheContext;
  way: Way;
  /** cos and sin of the rows, `[rows, qk_rope_head_dim / 2]`. */
  angles: { cos: Value; sin: Value };
  /** Readable rows of the caches / `cacheBlock`, int64 `[1]`. */
  blocks: Value;
  /** int64 `[readable]`: 0, 1, ... */
  places: Value;
  /** The rows' positions, int64 `[rows, 1]`. */
  row: Value;
  /** Float `[rows, readable]`: -inf in a row's future, elsewhere what lets the lowest index win a tie. */
  visible: Value | undefined;
}

/** Hidden states as a sum that the next norm takes: `[rows, hidden_size]` each. */
export interface Hidden {
  residual: Value;
  added: Value | undefined;
}

/** Keys that the rows selected, int64 `[rows, index_topk]`, and what closes those in their future, `[rows, index_topk]`. */
export interface Selection {
  keys: Value;
  closed: Value;
}

export interface LayerResult {
  hidden: Hidden;
  selection: Selection | undefined;
  /** New rows of the caches. */
  latent: Value;
  indexKey: Value | undefined;
}

/** Starts a pass: what its layers share. */
export function startPass(pass: Omit<Pass, "blocks" | "places" | "row" | "visible">, blockRows: number): Pass {
  const { graph, way } = pass;
  const blocks = graph.dimension("readable_blocks", 0);
  const end = graph.node("Squeeze", [graph.node("Mul", [blocks, graph.int([blockRows])])]);
  const places = graph.node("Range", [graph.int(0), end, graph.int(1)]);
  const row = graph.node("Unsqueeze", ["position_ids", graph.int([1])]);
  const scored = way !== "every";
  const future = scored ? graph.node("Greater", [places, row]) : "";
  const order = scored ? graph.node("Mul", [graph.cast(places, OnnxType.float), graph.float(tieStep)]) : "";
  const visible = scored ? graph.node("Where", [future, graph.float(Number.NEGATIVE_INFINITY), order]) : undefined;
  return { ...pass, blocks, places, row, visible };
}

/** One layer. `indexes`: it is Full. */
export function generationLayer(
  pass: Pass,
  layer: LayerWeights,
  names: { latent: CacheName; indexKey: CacheName },
  hidden: Hidden,
  previous: Selection | undefined,
  indexes: boolean,
): LayerResult {
  const { graph, config, caches, blocks, way } = pass;
  const eps = config.rmsNormEps;
  const [h, residual] =
    hidden.added === undefined
      ? [graph.rmsNorm(hidden.residual, layer.inputNorm, eps), hidden.residual]
      : graph.skipNorm(hidden.residual, hidden.added, layer.inputNorm, eps);
  const latent = latentRows(pass, layer, h);
  const cache = writeCache(graph, caches, names.latent, latent, blocks);
  const qLatent = graph.rmsNorm(graph.linear(h, layer.qA, layer.qABias), layer.qANorm, latentNormEps);
  const indexer = indexes ? (layer.indexer as IndexerWeights) : undefined;
  const indexKey = indexer === undefined ? undefined : indexKeys(pass, indexer, h);
  let selection = previous;
  if (indexer !== undefined && indexKey !== undefined) {
    // Keys are kept from the first token on, also by runs that select nothing.
    const keys = writeCache(graph, caches, names.indexKey, indexKey, blocks);
    if (way !== "every") selection = select(pass, indexer, h, qLatent, keys);
  }
  const chosen = way === "every" ? undefined : (selection ?? mostRecent(pass));
  const queries = rotatedQueries(pass, layer, qLatent);
  const read =
    chosen === undefined || way === "read"
      ? readAll(pass, layer, queries, cache, chosen)
      : readSelected(pass, layer, queries, cache, chosen);
  const attended = graph.linear(read, layer.o, layer.oBias);
  const [normed, middle] = graph.skipNorm(residual, attended, layer.postAttentionNorm, eps);
  const added = feedForward(graph, config, layer, normed, pass.kernels.experts);
  return { hidden: { residual: middle, added }, selection: chosen, latent, indexKey };
}

/** New latent rows: k_pe, rotated, joined with the normed c_kv. */
function latentRows({ graph, config, angles }: Pass, layer: LayerWeights, h: Value): Value {
  const { kvLoraRank: rank, qkRopeHeadDim: rope } = config;
  const projected = graph.linear(h, layer.kvA, layer.kvABias);
  const [content, pe] = graph.nodes("Split", [projected, graph.int([rank, rope])], { axis: 1 }, 2) as [Value, Value];
  const turned = rotate(graph, pe, angles, { heads: 1, headDim: rope, rotaryDim: rope, interleaved: true });
  const normed = graph.rmsNorm(content, layer.kvANorm, latentNormEps);
  return graph.node("Concat", [graph.reshape(turned, [-1, rope]), normed], { axis: 1 });
}

/** New index keys, `[rows, index_head_dim]`. */
function indexKeys({ graph, config, angles }: Pass, indexer: IndexerWeights, h: Value): Value {
  const inputs = [graph.linear(h, indexer.wk), graph.weight(indexer.kNorm), graph.weight(indexer.kNormBias)];
  const normed = graph.node("LayerNormalization", inputs, { axis: -1, epsilon: { float: latentNormEps } });
  return graph.reshape(rotate(graph, normed, angles, indexRotation(config, 1)), [-1, config.indexHeadDim]);
}

function indexRotation({ indexHeadDim, qkRopeHeadDim, indexerRopeInterleave }: DsaConfig, heads: number) {
  return { heads, headDim: indexHeadDim, rotaryDim: qkRopeHeadDim, interleaved: indexerRopeInterleave };
}

/** Queries `[rows, H * (rope + nope)]`, each head's q_pe in front and rotated. */
function rotatedQueries({ graph, config, angles }: Pass, layer: LayerWeights, qLatent: Value): Value {
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope } = config;
  const projected = graph.node("Gemm", [qLatent, ropeFirst(graph, config, layer)], { transB: 1 });
  return rotate(graph, projected, angles, { heads, headDim: rope + nope, rotaryDim: rope, interleaved: true });
}

/** Index scores of all readable keys, then top-k. Scores are float32 in every precision. */
function select(pass: Pass, indexer: IndexerWeights, h: Value, qLatent: Value, keys: WrittenCache): Selection {
  const { graph, config, kernels, angles, row, visible, way } = pass;
  const { indexNHeads: heads, indexHeadDim: dim } = config;
  const one = isSingle(way);
  const turned = rotate(graph, graph.linear(qLatent, indexer.wqB), angles, indexRotation(config, heads));
  const queries = graph.reshape(turned, [-1, dim]);
  const products = indexProducts(graph, kernels.reluProduct && !one, queries, keys.readable());
  const headWeights = weighHeads(graph, config, indexer, h);
  const scores = one
    ? graph.node("MatMul", [headWeights, products])
    : graph.node("Squeeze", [
        graph.node("MatMul", [
          graph.node("Unsqueeze", [headWeights, graph.int([1])]),
          graph.node("Reshape", [
            products,
            graph.node("Concat", [graph.int([-1, heads]), graph.dimension(products, 1)], { axis: 0 }),
          ]),
        ]),
        graph.int([1]),
      ]);
  const seen = graph.node("Add", [scores, visible as Value]);
  const chosen = way === "far" ? topkOfPieces(pass, seen) : topk(graph, seen, config.indexTopk)[1];
  const closed = graph.node("Where", [graph.node("Greater", [chosen, row]), lowest(graph), graph.scalar(0)]);
  return { keys: chosen, closed };
}

/**
 * relu(q . k), float `[rows * index_n_heads, readable]`. The `fused` operator makes up its mind anew at every call, which
 * takes the host longer than a single row's product takes the device (0.37 ms, docs/gpu.md).
 */
function indexProducts(graph: GraphBuilder, fused: boolean, queries: Value, keys: Value): Value {
  if (fused) return reluProduct(graph, queries, keys);
  const [q, k] = [graph.cast(queries, OnnxType.float), graph.cast(keys, OnnxType.float)];
  return graph.node("Relu", [graph.contrib("FusedMatMul", [q, k], { transB: 1 })]);
}

/** Weights of the index heads with both scales of the indexer, float `[rows, index_n_heads]`. */
function weighHeads(graph: GraphBuilder, config: DsaConfig, { weightsProj }: IndexerWeights, h: Value): Value {
  const { indexNHeads: heads, indexHeadDim: dim } = config;
  const scaled = graph.derived(`${weightsProj.name} scaled`, (outer) =>
    outer.node("Mul", [outer.weight(weightsProj, OnnxType.float), outer.float(heads ** -0.5 * dim ** -0.5)]),
  );
  return graph.node("Gemm", [graph.cast(h, OnnxType.float), scaled], { transB: 1 });
}

function topk(graph: GraphBuilder, x: Value, k: number): [values: Value, indices: Value] {
  return graph.nodes("TopK", [x, graph.int([k])], { axis: -1, largest: 1, sorted: 0 }, 2) as [Value, Value];
}

/**
 * Top-k of one row `[1, readable]`, int64 `[1, K]`. A GPU gives each row of a top-k to one of its processors: so the row
 * is cut into pieces, whose winners are ranked a quarter of them at a time, then all that is left at once.
 */
function topkOfPieces({ graph, config, places }: Pass, scores: Value): Value {
  const k = config.indexTopk;
  let [values, indices] = [scores, places];
  for (const pieces of [farPieces, farPieces / 4, 1]) {
    const cut = graph.reshape(indices, [pieces, -1]);
    const [best, at] = topk(graph, graph.reshape(values, [pieces, -1]), k);
    values = best;
    indices = graph.node("GatherElements", [cut, at], { axis: 1 });
  }
  return indices;
}

/**
 * What layers in front of the first Full one read: the most recent `index_topk` keys. Only a pattern without a Full layer
 * has such layers: it shows what a model costs with every indexer bypassed (docs/gpu.md).
 */
function mostRecent({ graph, config, row }: Pass): Selection {
  const back = graph.node("Range", [graph.int(0), graph.int(config.indexTopk), graph.int(1)]);
  const at = graph.node("Sub", [row, back]);
  const next = graph.node("Add", [row, graph.int(1)]);
  // Before the first token there is nothing: the row's own future stands in, which is closed.
  const keys = graph.node("Where", [graph.node("Less", [at, graph.int(0)]), next, at]);
  const closed = graph.node("Where", [graph.node("Greater", [keys, row]), lowest(graph), graph.scalar(0)]);
  return { keys, closed };
}

/** Attention over all readable keys, expanded, under a bias, `[rows, H * dv]`. */
function readAll(
  { graph, config, row, places }: Pass,
  layer: LayerWeights,
  queries: Value,
  cache: WrittenCache,
  selection: Selection | undefined,
): Value {
  const { numAttentionHeads: heads, kvLoraRank: rank, qkRopeHeadDim: rope, qkNopeHeadDim: nope, vHeadDim } = config;
  const rows = cache.readable();
  const [shared, content] = graph.nodes("Split", [rows, graph.int([rope, rank])], { axis: 1 }, 2) as [Value, Value];
  const own = graph.reshape(up(graph, config, layer, content, 0, nope), [-1, heads, nope]);
  const everyHead = graph.node("Concat", [graph.dimension(rows, 0), graph.int([heads, rope])], { axis: 0 });
  const spread = graph.node("Expand", [graph.reshape(shared, [-1, 1, rope]), everyHead]);
  const keys = graph.reshape(graph.node("Concat", [spread, own], { axis: 2 }), [1, -1, heads * (rope + nope)]);
  const values = graph.reshape(up(graph, config, layer, content, nope, nope + vHeadDim), [1, -1, heads * vHeadDim]);
  const closed = lowest(graph);
  let bias: Value;
  if (selection === undefined) {
    bias = graph.node("Where", [graph.node("Greater", [places, row]), closed, graph.scalar(0)]);
  } else {
    const shape = graph.node("Concat", [graph.dimension(row, 0), graph.dimension(rows, 0)], { axis: 0 });
    const all = graph.node("Expand", [closed, shape]);
    bias = graph.node("ScatterElements", [all, selection.keys, selection.closed], { axis: 1 });
  }
  const attended = graph.contrib(
    "MultiHeadAttention",
    [queries, keys, values, "", "", graph.node("Unsqueeze", [bias, graph.int([0, 1])])],
    { num_heads: heads, scale: { float: softmaxScale(config) } },
  );
  return graph.reshape(attended, [-1, heads * vHeadDim]);
}

/** Attention over the selected latent rows in absorbed form, `[rows, H * dv]`. */
function readSelected(
  { graph, config, way }: Pass,
  layer: LayerWeights,
  queries: Value,
  cache: WrittenCache,
  { keys, closed }: Selection,
): Value {
  const swap = isSingle(way) ? renamed : swapped;
  const asked = absorbedQueries(graph, config, layer, queries, swap);
  const rows = graph.node("Gather", [cache.all(), keys], { axis: 0 });
  const scale = { float: softmaxScale(config) };
  const scores = graph.contrib("FusedMatMul", [asked, rows], { transB: 1, alpha: scale });
  const visible = graph.node("Add", [scores, graph.node("Unsqueeze", [closed, graph.int([1])])]);
  const mixed = graph.node("MatMul", [graph.node("Softmax", [visible], { axis: -1 }), rows]);
  return valuesOf(graph, config, layer, mixed, swap);
}

/** Rows and heads exchanged where there is one row: the bytes stay where they are. */
function renamed(graph: GraphBuilder, x: Value, first: number): Value {
  return graph.reshape(x, [first, -1, 0]);
}

function isSingle(way: Way): boolean {
  return way === "single" || way === "far";
}
