/** What reads latent attention's keys: equal sums in several forms. `kernels.ts` and the frames say which is taken where. */

import { OnnxType } from "../../checkpoint/dtype.ts";
import { latentWidth } from "../exported/contract.ts";
import type { Value } from "../graph-builder.ts";
import type { ModelGraph } from "../model-graph.ts";
import { type ExpandedKeys, softmaxScale } from "./latent-attention.ts";

/** 0 where a selected key is visible and the lowest number where it lies in the row's future, `[rows, K]`. */
export function closedKeys(graph: ModelGraph, selected: Value, row: Value): Value {
  return graph.node("Where", [graph.node("Greater", [selected, row]), graph.lowest(), graph.scalar(0)]);
}

/** Int32 `[rows, 1]` of int64 positions `[rows]`. */
export function rowColumn(graph: ModelGraph, positions: Value): Value {
  return graph.node("Unsqueeze", [graph.cast(positions, OnnxType.int32), graph.int([1])]);
}

/**
 * What layers before the first Full one read: the most recent `count` keys of rows `[rows, 1]`, int64 `[rows, count]`. Only a
 * pattern without a Full layer has such layers: it shows what a model takes with every indexer bypassed.
 */
export function mostRecent(graph: ModelGraph, row: Value, count: Value): Value {
  const back = graph.node("Range", [graph.int(0), count, graph.int(1)]);
  const at = graph.node("Sub", [row, back]);
  const next = graph.node("Add", [row, graph.int(1)]);
  // Before the first token there is nothing: the row's own future stands in, which is closed.
  return graph.node("Where", [graph.node("Less", [at, graph.int(0)]), next, at]);
}

/** 0 at the selected keys that `closed` leaves open, the lowest number elsewhere: `shape` is int64 `[2]`, rows and keys. */
export function selectionBias(graph: ModelGraph, shape: Value, selected: Value, closed: Value): Value {
  return graph.node("ScatterElements", [graph.node("Expand", [graph.lowest(), shape]), selected, closed], { axis: 1 });
}

/** Attention of all heads over expanded keys under a bias, `[batch, rows, H * dv]`; `queries` are as wide as keys. */
export function readExpanded(
  graph: ModelGraph,
  queries: Value,
  { keys, values }: ExpandedKeys,
  bias: Value,
  bounds: Value = "",
  causal = false,
): Value {
  const { config } = graph;
  return graph.contrib("MultiHeadAttention", [queries, keys, values, "", bounds, bias], {
    num_heads: config.numAttentionHeads,
    scale: { float: softmaxScale(config) },
    ...(causal ? { unidirectional: 1 } : {}),
  });
}

/** Attention over the rows' own latent rows `[rows, K, latentWidth]`: `[rows, H, latentWidth]`, of absorbed queries. */
export function readGathered(graph: ModelGraph, queries: Value, rows: Value, closed?: Value) {
  const alpha = { float: softmaxScale(graph.config) };
  const scores = graph.contrib("FusedMatMul", [queries, rows], { transB: 1, alpha });
  const visible =
    closed === undefined ? scores : graph.node("Add", [scores, graph.node("Unsqueeze", [closed, graph.int([1])])]);
  // Whole rows are multiplied and k_pe is cut off afterwards: cheaper than a second copy of what was gathered.
  return graph.node("MatMul", [graph.node("Softmax", [visible], { axis: -1 }), rows]);
}

/** Scaled products of absorbed queries with all latent rows `[T, latentWidth]`, `[rows, H, T]`. */
export function latentScores(graph: ModelGraph, queries: Value, keys: Value, total: Value): Value {
  const { config } = graph;
  const flat = graph.reshape(queries, [-1, latentWidth(config)]);
  const scores = graph.contrib("FusedMatMul", [flat, keys], { transB: 1, alpha: { float: softmaxScale(config) } });
  const shape = graph.node("Concat", [graph.int([-1, config.numAttentionHeads]), total], { axis: 0 });
  return graph.node("Reshape", [scores, shape]);
}

/** All latent rows `[T, latentWidth]` under the bias of a selection, `[rows, H, latentWidth]`. */
export function readLatents(
  graph: ModelGraph,
  scores: Value,
  keys: Value,
  total: Value,
  selected: Value,
  closed: Value,
): Value {
  const { config } = graph;
  const shape = graph.node("Concat", [graph.dimension(scores, 0), total], { axis: 0 });
  const bias = selectionBias(graph, shape, selected, closed);
  const visible = graph.node("Add", [scores, graph.node("Unsqueeze", [bias, graph.int([1])])]);
  const weights = graph.node("Reshape", [
    graph.node("Softmax", [visible], { axis: -1 }),
    graph.node("Concat", [graph.int([-1]), total], { axis: 0 }),
  ]);
  return graph.reshape(graph.node("MatMul", [weights, keys]), [-1, config.numAttentionHeads, latentWidth(config)]);
}
