/**
 * The loss of an indexer against a target distribution and its gradient, written out: ONNX Runtime has no training in Node.
 *
 *     loss   KL(p || softmax(I)) over the allowed keys, mean over rows
 *     dI     (softmax(I) - p) / rows
 *     dw     sum over s of dI[t, s] relu(q[t] . k[s])
 *     dA     dI[t, s] w[t] where q[t] . k[s] > 0
 *     dq, dk sums of dA over keys, and over queries and heads; then back through RoPE, LayerNorm and the projections
 *
 * Checked against PyTorch's autograd and finite differences (tools/oracle/distill.py, test/graph/training).
 */
import { latentNormEps } from "../../checkpoint/config/model-config.ts";
import type { IndexerWeights, LayerWeights } from "../../checkpoint/weights.ts";
import { sequenceFrame } from "../frames/sequence-frame.ts";
import type { SequenceContext } from "../frames/sequence-rows.ts";
import type { Value } from "../graph-builder.ts";
import { enterLayer } from "../layer/dsa-layer.ts";
import { indexHeadWeights, indexKeys, indexQueries, indexRotation, indexScale } from "../layer/lightning-indexer.ts";
import { type RowAngles, rotate } from "../layer/rope.ts";
import type { ModelGraph } from "../model-graph.ts";
import { type QueryRows, rowsOf } from "./query-rows.ts";

/** An indexer's scores of some rows over all keys, and what its gradient needs of the way there. */
export interface IndexScores {
  /** Normed input of the layer, all rows and the rows asked for. */
  h: Value;
  ownH: Value;
  /** Compressed queries of the rows asked for. */
  compressed: Value;
  /** `[batch, queries * heads, dim]` and `[batch, length, dim]` */
  queries: Value;
  keys: Value;
  /** `[batch * queries, heads, 1]` */
  headWeights: Value;
  /** relu(q . k), `[batch, queries * heads, length]` */
  products: Value;
  /** `[batch, queries, length]` */
  scores: Value;
}

export function trainedScores(
  graph: ModelGraph,
  context: SequenceContext,
  layer: LayerWeights,
  indexer: IndexerWeights,
  hidden: Value,
  rows: QueryRows,
): IndexScores {
  const { config, shape } = context;
  const { indexNHeads: heads, indexHeadDim: dim } = config;
  const { batch, length } = shape;
  const entering = enterLayer({ graph, kernels: context.kernels }, layer, { residual: hidden });
  const { h } = entering;
  const ownH = rowsOf(graph, rows, h);
  const compressed = rowsOf(graph, rows, entering.compressed);
  const turned = indexQueries(graph, indexer, compressed, rows.angles);
  const queries = graph.reshape(turned, [batch, rows.count * heads, dim]);
  const keys = graph.reshape(indexKeys(graph, indexer, h, sequenceFrame(graph, context).angles), [batch, length, dim]);
  const headWeights = graph.reshape(indexHeadWeights(graph, { indexProducts: "float32" }, indexer, ownH), [
    -1,
    heads,
    1,
  ]);
  const transposed = graph.node("Transpose", [keys], { perm: [0, 2, 1] });
  const products = graph.node("Relu", [graph.node("MatMul", [queries, transposed])]);
  const perHead = graph.reshape(products, [-1, heads, length]);
  const across = graph.node("Transpose", [headWeights], { perm: [0, 2, 1] });
  const scores = graph.reshape(graph.node("MatMul", [across, perHead]), [batch, rows.count, length]);
  return { h, ownH, compressed, queries, keys, headWeights, products, scores };
}

/**
 * KL divergence of the target from the indexer's distribution, a scalar, and its gradient by `indexerTensors`.
 * @param target `[batch, queries, length]`, 0 where `bias` is not
 * @param bias 0 at the allowed keys, the lowest number elsewhere
 */
export function indexerGradient(
  graph: ModelGraph,
  context: SequenceContext,
  indexer: IndexerWeights,
  found: IndexScores,
  rows: QueryRows,
  target: Value,
  bias: Value,
): { loss: Value; gradients: Value[] } {
  const { config, shape } = context;
  const { indexNHeads: heads, indexHeadDim: dim, qLoraRank, hiddenSize } = config;
  const { batch, length } = shape;
  const logs = graph.node("LogSoftmax", [graph.node("Add", [found.scores, bias])], { axis: -1 });
  const share = graph.float(1 / (batch * rows.count));
  const surprise = graph.node("Sub", [graph.node("Log", [graph.node("Max", [target, graph.float(1e-30)])]), logs]);
  const divergence = graph.node("ReduceSum", [graph.node("Mul", [target, surprise])], { keepdims: 0 });
  const loss = graph.node("Mul", [divergence, share]);

  const dScores = graph.node("Mul", [graph.node("Sub", [graph.node("Exp", [logs]), target]), share]);
  const column = graph.reshape(dScores, [-1, length, 1]);
  const dWeights = graph.reshape(graph.node("MatMul", [graph.reshape(found.products, [-1, heads, length]), column]), [
    -1,
    heads,
  ]);
  const spread = graph.node("Mul", [found.headWeights, graph.reshape(dScores, [-1, 1, length])]);
  const perPair = graph.reshape(spread, [batch, rows.count * heads, length]);
  const dProducts = graph.node("Where", [
    graph.node("Greater", [found.products, graph.float(0)]),
    perPair,
    graph.float(0),
  ]);
  const dQueries = graph.node("MatMul", [dProducts, found.keys]);
  const dKeys = graph.node("MatMul", [graph.node("Transpose", [dProducts], { perm: [0, 2, 1] }), found.queries]);

  const dProjected = rotatedBack(graph, graph.reshape(dQueries, [-1, heads * dim]), heads, rows.angles);
  const normal = keysBeforeNorm(graph, found.h, indexer);
  const dNormed = rotatedBack(graph, graph.reshape(dKeys, [-1, dim]), 1, sequenceFrame(graph, context).angles);
  const dCentred = graph.node("Mul", [dNormed, graph.weight(indexer.kNorm)]);
  const along = graph.node("Mul", [normal.unit, mean(graph, graph.node("Mul", [dCentred, normal.unit]))]);
  const dKey = graph.node("Mul", [
    graph.node("Sub", [graph.node("Sub", [dCentred, mean(graph, dCentred)]), along]),
    normal.scale,
  ]);
  const dHead = graph.node("Mul", [dWeights, graph.float(indexScale(config))]);
  const byRow = (x: Value) => graph.node("ReduceSum", [x, graph.int([0])], { keepdims: 0 });
  const gradients = [
    graph.reshape(outer(graph, dProjected, found.compressed), [heads * dim, qLoraRank]),
    graph.reshape(outer(graph, dKey, found.h), [dim, hiddenSize]),
    byRow(graph.node("Mul", [dNormed, normal.unit])),
    byRow(dNormed),
    graph.reshape(outer(graph, dHead, found.ownH), [heads, hiddenSize]),
  ];
  return { loss, gradients };
}

/** Gradient of a rotation: the rotation by the opposite angles. */
function rotatedBack(graph: ModelGraph, x: Value, heads: number, angles: RowAngles): Value {
  const { config } = graph;
  const opposite = { ...angles, sin: graph.node("Neg", [angles.sin]) };
  // An attention factor scales cos and sin alike, so it comes back as it went in.
  const turned = rotate(graph, x, opposite, indexRotation(config, heads));
  return graph.reshape(turned, [-1, heads * config.indexHeadDim]);
}

/** Keys before LayerNorm, centred and divided by their deviation, and one over that: `[rows, dim]`, `[rows, 1]`. */
function keysBeforeNorm(graph: ModelGraph, h: Value, indexer: IndexerWeights): { unit: Value; scale: Value } {
  const projected = graph.linear(h, indexer.wk);
  const centred = graph.node("Sub", [projected, mean(graph, projected)]);
  const variance = mean(graph, graph.node("Mul", [centred, centred]));
  const scale = graph.node("Reciprocal", [
    graph.node("Sqrt", [graph.node("Add", [variance, graph.float(latentNormEps)])]),
  ]);
  return { unit: graph.node("Mul", [centred, scale]), scale };
}

function mean(graph: ModelGraph, x: Value): Value {
  return graph.node("ReduceMean", [x, graph.int([-1])], { keepdims: 1 });
}

/** a^T b of `[rows, m]` and `[rows, n]`: the gradient of a projection that stores its weight as `[out, in]`. */
function outer(graph: ModelGraph, a: Value, b: Value): Value {
  return graph.node("Gemm", [a, b], { transA: 1 });
}
