/**
 * The lightning indexer (HF's GlmMoeDsaIndexer, DeepseekV32Indexer; paper section 2), piece by piece:
 *
 *     keys      k = RoPE(LayerNorm(h W_k))                one per token, shared by all heads
 *     queries   q = RoPE(c_q W_q)                         one per head, from attention's compressed query c_q
 *     weights   w = h W_w / sqrt(heads x dim)             one per head
 *     score     I[t, s] = sum over heads of w[t] relu(q[t] . k[s])
 *
 * `h` is the normed input of the layer, `[rows, hidden_size]`. Whoever reads the scores decides which rows and keys there are.
 */

import { type DsaConfig, latentNormEps } from "../checkpoint/config/model-config.ts";
import { OnnxType } from "../checkpoint/dtype.ts";
import type { IndexerWeights, LayerWeights } from "../checkpoint/weights.ts";
import type { GraphBuilder, Value } from "./graph-builder.ts";
import { type Rotation, rotateAt } from "./rope-graph.ts";

/** Positions of rows, int64 `[rows]`, and the angles of all positions; `together` divides the rows (see `rotateAt`). */
export interface RowAngles {
  cos: Value;
  sin: Value;
  positions: Value;
  together: number;
}

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
export function indexKeys(
  graph: GraphBuilder,
  config: DsaConfig,
  indexer: IndexerWeights,
  h: Value,
  angles: RowAngles,
): Value {
  const normed = graph.node(
    "LayerNormalization",
    [graph.linear(h, indexer.wk), graph.weight(indexer.kNorm), graph.weight(indexer.kNormBias)],
    { axis: -1, epsilon: { float: latentNormEps } },
  );
  return rotateAt(graph, normed, angles, indexRotation(config, 1));
}

/** Attention's compressed queries c_q, which the indexer reads as well: `[rows, q_lora_rank]`. */
export function compressedQueries(graph: GraphBuilder, layer: LayerWeights, h: Value): Value {
  return graph.rmsNorm(graph.linear(h, layer.qA, layer.qABias), layer.qANorm, latentNormEps);
}

/** `[rows, index_n_heads * index_head_dim]` */
export function indexQueries(
  graph: GraphBuilder,
  config: DsaConfig,
  indexer: IndexerWeights,
  compressed: Value,
  angles: RowAngles,
): Value {
  return rotateAt(graph, graph.linear(compressed, indexer.wqB), angles, indexRotation(config, config.indexNHeads));
}

/** `[rows, index_n_heads]`, float32 whatever the precision of the graph. */
export function indexHeadWeights(graph: GraphBuilder, config: DsaConfig, indexer: IndexerWeights, h: Value): Value {
  const scale = graph.float(indexScale(config));
  const projected = graph.linear(graph.cast(h, OnnxType.float), indexer.weightsProj, undefined, OnnxType.float);
  return graph.node("Mul", [projected, scale]);
}

/** 1 / sqrt(heads x dim) */
export function indexScale({ indexNHeads: heads, indexHeadDim: dim }: DsaConfig): number {
  return heads ** -0.5 * dim ** -0.5;
}
