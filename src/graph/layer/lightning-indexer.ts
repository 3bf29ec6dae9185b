/**
 * The lightning indexer (HF's GlmMoeDsaIndexer, DeepseekV32Indexer; paper section 2), piece by piece:
 *
 *     keys      k = RoPE(LayerNorm(h W_k))                one per token, shared by all heads
 *     queries   q = RoPE(c_q W_q)                         one per head, from attention's compressed query c_q
 *     weights   w = h W_w / sqrt(heads x dim)             one per head
 *     score     I[t, s] = sum over heads of w[t] relu(q[t] . k[s])
 *     selection the index_topk keys s <= t with the largest I[t, s]
 *
 * `h` is the normed input of the layer, `[rows, hidden_size]`. Frames decide which rows and keys there are.
 */

import { type DsaConfig, latentNormEps } from "../../checkpoint/config/model-config.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import type { IndexerWeights } from "../../checkpoint/weights.ts";
import type { GraphBuilder, Value } from "../graph-builder.ts";
import type { ModelGraph } from "../model-graph.ts";
import type { Kernels } from "./kernels.ts";
import { type Rotation, type RowAngles, rotate } from "./rope.ts";

/** The tensors of an indexer, in the order in which a training step returns their gradients. */
export const indexerTensors = ["wqB", "wk", "kNorm", "kNormBias", "weightsProj"] as const;
export type IndexerTensor = (typeof indexerTensors)[number];

/** How index queries (`heads` of them) and keys (one) are rotated: the first `qk_rope_head_dim` components of each. */
export function indexRotation(config: DsaConfig, heads: number): Rotation {
  return {
    heads,
    headDim: config.indexHeadDim,
    rotaryDim: config.qkRopeHeadDim,
    interleaved: config.indexerRopeInterleave,
  };
}

/** `[rows, index_head_dim]` */
export function indexKeys(graph: ModelGraph, indexer: IndexerWeights, h: Value, angles: RowAngles): Value {
  const { config } = graph;
  const normed = graph.node(
    "LayerNormalization",
    [graph.linear(h, indexer.wk), graph.weight(indexer.kNorm), graph.weight(indexer.kNormBias)],
    { axis: -1, epsilon: { float: latentNormEps } },
  );
  return graph.reshape(rotate(graph, normed, angles, indexRotation(config, 1)), [-1, config.indexHeadDim]);
}

/** Of compressed queries `[rows, q_lora_rank]`: `[rows, index_n_heads * index_head_dim]`, or as many elements. */
export function indexQueries(graph: ModelGraph, indexer: IndexerWeights, compressed: Value, angles: RowAngles): Value {
  const { config } = graph;
  return rotate(graph, graph.linear(compressed, indexer.wqB), angles, indexRotation(config, config.indexNHeads));
}

/**
 * `[rows, index_n_heads]`: float32 whatever the precision of the graph, with the indexer's scales; or, for products in float16,
 * which have the scales themselves, in float16, as in transformers.
 */
export function indexHeadWeights(
  graph: ModelGraph,
  { indexProducts }: Pick<Kernels, "indexProducts">,
  indexer: IndexerWeights,
  h: Value,
): Value {
  if (indexProducts === "float16") return graph.linear(h, indexer.weightsProj);
  return graph.scaledLinear(graph.toFloat(h), indexer.weightsProj, indexScale(graph.config));
}

/** 1 / sqrt(heads x dim): both scales of the indexer. That of the dim is positive, so it commutes with the relu. */
export function indexScale({ indexNHeads: heads, indexHeadDim: dim }: DsaConfig): number {
  return heads ** -0.5 * dim ** -0.5;
}

/** Index keys that a kernel scores. */
export interface ScoredKeys {
  /** `[keys, index_head_dim]`, or with the batch in front; in what products are made in. */
  rows: Value;
  /** int64 `[1]` */
  count: () => Value;
}

/**
 * Scores of all keys, visible or not, float32 `[rows, keys]`.
 * @param queries `[rows * index_n_heads, index_head_dim]`, or with the batch in front
 */
export function indexScores(
  graph: ModelGraph,
  kernels: Kernels,
  queries: Value,
  headWeights: Value,
  { rows, count }: ScoredKeys,
  { single = false } = {},
): Value {
  const products = graph.node("Relu", [product(graph, kernels, queries, rows)]);
  if (single) return graph.node("MatMul", [headWeights, products]);
  const shape = graph.node("Concat", [graph.int([-1, graph.config.indexNHeads]), count()], { axis: 0 });
  const perHead = graph.node("Reshape", [products, shape]);
  const weights = graph.node("Unsqueeze", [headWeights, graph.int([1])]);
  const sums = graph.node("Squeeze", [graph.node("MatMul", [weights, perHead]), graph.int([1])]);
  return kernels.indexProducts === "float16" ? graph.cast(sums, OnnxType.float) : sums;
}

/** q . k of every head; in float16 times the indexer's scales, which keep it far from what float16 can hold. */
function product(graph: ModelGraph, kernels: Kernels, queries: Value, keys: Value): Value {
  if (kernels.indexProducts === "float16") {
    return graph.contrib("FusedMatMul", [queries, keys], { transB: 1, alpha: { float: indexScale(graph.config) } });
  }
  const a = graph.toFloat(queries);
  if (kernels.fusedMatMul) return graph.contrib("FusedMatMul", [a, keys], { transB: 1 });
  return graph.node("MatMul", [a, graph.node("Transpose", [keys], { perm: [0, 2, 1] })]);
}

/**
 * Where every head's relu is 0 the score is exactly 0, and many keys tie. The CPU's top-k takes the lowest index then,
 * CUDA's any. This step per position, which no other score feels, makes the lowest win everywhere.
 */
export const tieStep = -1e-30;

/** The k largest of each row, in no order. */
export function topk(graph: GraphBuilder, x: Value, k: Value): [values: Value, indices: Value] {
  return graph.nodes("TopK", [x, k], { axis: -1, largest: 1, sorted: 0 }, 2) as [Value, Value];
}

/**
 * Scores `[rows, 1, n * groups]` with all that cannot be among the k largest of their row raised to one number below these. Scores
 * that are `groups` columns apart form a group: as k groups have a largest score that is no less than the k-th largest of all
 * groups' largest, so have the k largest of the row. These and their ties stay as they were.
 * @param groups more than k
 */
export function raiseOthers(graph: GraphBuilder, scores: Value, groups: number, k: Value): Value {
  const grouped = graph.reshape(scores, [0, -1, groups]);
  const [largest] = topk(graph, graph.node("ReduceMax", [grouped, graph.int([1])], { keepdims: 1 }), k);
  const bound = graph.node("ReduceMin", [largest, graph.int([-1])], { keepdims: 1 });
  // Below the bound, so that what is equal to it does not tie with what is raised.
  const margin = graph.node("Add", [
    graph.node("Mul", [graph.node("Abs", [bound]), graph.float(2 ** -20)]),
    graph.float(1e-30),
  ]);
  return graph.node("Max", [scores, graph.node("Sub", [bound, margin])]);
}
