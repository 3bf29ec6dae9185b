/**
 * The lightning indexer (architecture of HF's GlmMoeDsaIndexer and DeepseekV32Indexer). Key rows are made for every
 * token; scoring the history and selecting `index_topk` keys is the part that a Shared layer skips.
 */

import { type DsaConfig, latentNormEps } from "../checkpoint/config/model-config.ts";
import { OnnxType } from "../checkpoint/dtype.ts";
import type { IndexerWeights, LayerWeights } from "../checkpoint/weights.ts";
import type { GraphBuilder, Value } from "./graph-builder.ts";
import { rotate } from "./rope-graph.ts";

/** What a chunk of query rows brings to every layer. */
export interface ChunkInputs {
  /** cos and sin of the rows' angles, `[S, qk_rope_head_dim / 2]`. */
  cos: Value;
  sin: Value;
  /** int64 `[S]`. */
  positions: Value;
}

/** New indexer keys `[S, index_head_dim]`, after LayerNorm and RoPE: `h` is the normed hidden state. */
export function indexerKeys(
  graph: GraphBuilder,
  config: DsaConfig,
  weights: IndexerWeights,
  h: Value,
  chunk: ChunkInputs,
): Value {
  const projected = graph.linear(h, weights.wk);
  const normed = graph.node(
    "LayerNormalization",
    [projected, graph.weight(weights.kNorm), graph.weight(weights.kNormBias)],
    { axis: -1, epsilon: { float: latentNormEps } },
  );
  const rotated = rotate(graph, normed, chunk, {
    heads: 1,
    headDim: config.indexHeadDim,
    rotaryDim: config.qkRopeHeadDim,
    interleaved: config.indexerRopeInterleave,
  });
  return graph.reshape(rotated, [-1, config.indexHeadDim]);
}

/**
 * Indices of the selected keys, int32 `[S, min(index_topk, T)]`, in no order. Rows that see fewer keys than that get
 * keys of their future as well, which attention masks again: a Shared layer has to do so anyway.
 */
export function selectKeys(
  graph: GraphBuilder,
  config: DsaConfig,
  layer: LayerWeights,
  indexer: IndexerWeights,
  h: Value,
  keys: { past: Value; fresh: Value },
  chunk: ChunkInputs,
): Value {
  const total = graph.node("Add", [graph.dimension(keys.past, 0), graph.dimension(keys.fresh, 0)]);
  const budget = graph.int([config.indexTopk]);
  const k = graph.node("Min", [budget, total]);
  // With no more keys than the budget every key is selected, whatever the scores: the exact short cut.
  const everyKey = graph.node("Squeeze", [graph.node("LessOrEqual", [total, budget])]);
  const [indices] = graph.branch(
    everyKey,
    1,
    (then) => {
      const range = then.node("Range", [then.int(0), then.node("Squeeze", [total]), then.int(1)]);
      const row = then.cast(range, OnnxType.int32);
      const shape = then.node("Concat", [then.dimension(h, 0), total], { axis: 0 });
      return [then.node("Expand", [row, shape])];
    },
    (otherwise) => {
      const scores = indexScores(otherwise, config, layer, indexer, h, keys, chunk);
      const [, order] = otherwise.nodes("TopK", [scores, k], { axis: -1, largest: 1, sorted: 0 }, 2);
      return [otherwise.cast(order as Value, OnnxType.int32)];
    },
  );
  return indices as Value;
}

/** Index scores, fp32 `[S, T]`: relu(q . k) of each index head, weighted and summed; -inf where a key is in the future. */
function indexScores(
  graph: GraphBuilder,
  config: DsaConfig,
  layer: LayerWeights,
  indexer: IndexerWeights,
  h: Value,
  keys: { past: Value; fresh: Value },
  chunk: ChunkInputs,
): Value {
  const { indexNHeads: heads, indexHeadDim: dim } = config;
  const qLatent = graph.rmsNorm(graph.linear(h, layer.qA, layer.qABias), layer.qANorm, latentNormEps);
  const rotated = rotate(graph, graph.linear(qLatent, indexer.wqB), chunk, {
    heads,
    headDim: dim,
    rotaryDim: config.qkRopeHeadDim,
    interleaved: config.indexerRopeInterleave,
  });
  const queries = graph.reshape(rotated, [-1, dim]);
  // Both scales of the indexer, head_dim^-0.5 (positive, so it commutes with relu) and n_heads^-0.5, sit on the weights.
  const scale = graph.float(heads ** -0.5 * dim ** -0.5);
  const headWeights = graph.reshape(graph.node("Mul", [graph.linear(h, indexer.weightsProj), scale]), [-1, 1, heads]);
  // Past and fresh keys are scored apart and the scores joined: joining the keys would copy the whole cache.
  const score = (rows: Value): Value => {
    const products = graph.node("Relu", [graph.contrib("FusedMatMul", [queries, rows], { transB: 1 })]);
    const shape = graph.node("Concat", [graph.int([-1, heads]), graph.dimension(rows, 0)], { axis: 0 });
    const perHead = graph.node("Reshape", [products, shape], { allowzero: 1 });
    return graph.node("Squeeze", [graph.node("MatMul", [headWeights, perHead]), graph.int([1])]);
  };
  const future = graph.node("Greater", [
    graph.node("Unsqueeze", [chunk.positions, graph.int([0])]),
    graph.node("Unsqueeze", [chunk.positions, graph.int([1])]),
  ]);
  const fresh = graph.node("Where", [future, graph.float(Number.NEGATIVE_INFINITY), score(keys.fresh)]);
  return graph.node("Concat", [score(keys.past), fresh], { axis: 1 });
}
