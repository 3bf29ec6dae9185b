/**
 * Multi-head latent attention in absorbed form over selected keys (architecture of HF's GlmMoeDsaAttention). The up
 * projection of the keys is folded into the query and that of the values into the output, so that all heads read one
 * cached latent row per token: the normed c_kv joined with the rotated k_pe.
 */

import { type DsaConfig, latentNormEps } from "../checkpoint/config/model-config.ts";
import { OnnxType } from "../checkpoint/dtype.ts";
import type { LayerWeights } from "../checkpoint/weights.ts";
import { latentWidth } from "./exported/contract.ts";
import type { GraphBuilder, Value } from "./graph-builder.ts";
import type { ChunkInputs } from "./indexer-graph.ts";
import { rotate } from "./rope-graph.ts";

/**
 * Up to this many times `index_topk` keys, reading all of them with a mask is faster than gathering the selected rows
 * (measured on CPU, docs/log.md); beyond it the gather wins and its lead grows with the context.
 */
const denseUpTo = 6;

/** Finite, so that a row whose selected keys are all in the future stays free of NaN. */
const masked = -1e30;

/** Attention output `[S, hidden_size]` of normed hidden states `h`, and the new latent rows `[S, latentWidth]`. */
export function attention(
  graph: GraphBuilder,
  config: DsaConfig,
  weights: LayerWeights,
  h: Value,
  selected: Value,
  pastLatent: Value,
  chunk: ChunkInputs,
): { output: Value; latent: Value } {
  const latent = latentRows(graph, config, weights, h, chunk);
  const queries = latentQueries(graph, config, weights, h, chunk);
  const mask = futureMask(graph, selected, chunk.positions);
  const context = attendSelected(graph, config, queries, selected, mask, pastLatent, latent);
  const values = headValues(graph, config, context, valueUp(graph, config, weights));
  return { output: graph.linear(values, weights.o, weights.oBias), latent };
}

/** Up projection of the values, `[H, r, dv]`; folded at load. */
export function valueUp(graph: GraphBuilder, config: DsaConfig, { kvB }: LayerWeights): Value {
  const { qkNopeHeadDim: nope, vHeadDim } = config;
  return graph.node("Transpose", [keyValueUp(graph, config, kvB, nope, nope + vHeadDim)], { perm: [0, 2, 1] });
}

/** Attention output of all heads before the output projection, `[S, H * dv]`, of what they read, `[S, H, latentWidth]`. */
export function headValues(graph: GraphBuilder, config: DsaConfig, context: Value, up: Value): Value {
  // [S, H, r] -> [H, S, r] x [H, r, dv] -> [S, H * dv]
  const byHead = graph.node("Transpose", [graph.slice(context, 2, 0, config.kvLoraRank)], { perm: [1, 0, 2] });
  const values = graph.node("Transpose", [graph.node("MatMul", [byHead, up])], { perm: [1, 0, 2] });
  return graph.reshape(values, [-1, config.numAttentionHeads * config.vHeadDim]);
}

/** New cache rows: RMS-normed c_kv, then k_pe rotated (the norm covers c_kv alone). */
function latentRows(
  graph: GraphBuilder,
  config: DsaConfig,
  weights: LayerWeights,
  h: Value,
  chunk: ChunkInputs,
): Value {
  const { kvLoraRank, qkRopeHeadDim } = config;
  const [compressed, position] = graph.nodes(
    "Split",
    [graph.linear(h, weights.kvA, weights.kvABias), graph.int([kvLoraRank, qkRopeHeadDim])],
    { axis: 1 },
    2,
  ) as [Value, Value];
  const rotated = rotate(graph, position, chunk, {
    heads: 1,
    headDim: qkRopeHeadDim,
    rotaryDim: qkRopeHeadDim,
    interleaved: true,
  });
  const normed = graph.rmsNorm(compressed, weights.kvANorm, latentNormEps);
  return graph.node("Concat", [normed, graph.reshape(rotated, [-1, qkRopeHeadDim])], { axis: 1 });
}

/** Queries in latent space, `[S, H, latentWidth]`: q_nope absorbed into the key up projection, q_pe rotated. */
export function latentQueries(
  graph: GraphBuilder,
  config: DsaConfig,
  weights: LayerWeights,
  h: Value,
  chunk: ChunkInputs,
): Value {
  const { numAttentionHeads: heads, qkNopeHeadDim: nope, qkRopeHeadDim: rope } = config;
  const qLatent = graph.rmsNorm(graph.linear(h, weights.qA, weights.qABias), weights.qANorm, latentNormEps);
  const q = graph.reshape(graph.linear(qLatent, weights.qB), [-1, heads, nope + rope]);
  const [content, position] = graph.nodes("Split", [q, graph.int([nope, rope])], { axis: 2 }, 2) as [Value, Value];
  const byHead = graph.node("Transpose", [content], { perm: [1, 0, 2] });
  const absorbed = graph.node("MatMul", [byHead, keyValueUp(graph, config, weights.kvB, 0, nope)]);
  const rotated = rotate(graph, position, chunk, { heads, headDim: rope, rotaryDim: rope, interleaved: true });
  return graph.node(
    "Concat",
    [graph.node("Transpose", [absorbed], { perm: [1, 0, 2] }), graph.reshape(rotated, [-1, heads, rope])],
    { axis: 2 },
  );
}

/** Rows `from` to `to` of every head's block of kv_b_proj, `[H, to - from, kv_lora_rank]`; folded at load. */
function keyValueUp(graph: GraphBuilder, config: DsaConfig, kvB: LayerWeights["kvB"], from: number, to: number): Value {
  return graph.slice(upProjection(graph, config, kvB), 1, from, to);
}

/** kv_b_proj head by head, `[H, nope + dv, kv_lora_rank]`, however the checkpoint stores it. */
export function upProjection(graph: GraphBuilder, config: DsaConfig, kvB: LayerWeights["kvB"]): Value {
  const { numAttentionHeads: heads, qkNopeHeadDim, vHeadDim, kvLoraRank } = config;
  if (!("keyUp" in kvB)) return graph.reshape(graph.weight(kvB), [heads, qkNopeHeadDim + vHeadDim, kvLoraRank]);
  const keys = graph.node("Transpose", [graph.weight(kvB.keyUp)], { perm: [0, 2, 1] });
  return graph.node("Concat", [keys, graph.weight(kvB.valueUp)], { axis: 1 });
}

/** 0 where a selected key is visible and `masked` where it lies in the row's future, `[S, K]`. */
export function futureMask(graph: GraphBuilder, selected: Value, positions: Value): Value {
  const rows = graph.node("Unsqueeze", [graph.cast(positions, OnnxType.int32), graph.int([1])]);
  return graph.node("Where", [graph.node("Greater", [selected, rows]), graph.float(masked), graph.float(0)]);
}

/**
 * Softmax attention over the selected keys, `[S, H, latentWidth]`. Three ways that give the same result:
 * one row (decode) gathers from the past and from itself without touching the rest of the cache; a short context is
 * read whole under a mask; otherwise the selected rows are gathered from the joined keys.
 */
function attendSelected(
  graph: GraphBuilder,
  config: DsaConfig,
  queries: Value,
  selected: Value,
  mask: Value,
  past: Value,
  fresh: Value,
): Value {
  const pastRows = graph.dimension(past, 0);
  const freshRows = graph.dimension(fresh, 0);
  const one = graph.int([1]);
  const isDecode = graph.node("And", [
    graph.node("Equal", [freshRows, one]),
    graph.node("GreaterOrEqual", [pastRows, one]),
  ]);
  const scale = softmaxScale(config);
  const [context] = graph.branch(
    graph.node("Squeeze", [isDecode]),
    1,
    (decode) => {
      const limit = decode.cast(pastRows, OnnxType.int32);
      const inPast = decode.node("Min", [selected, decode.node("Sub", [limit, decode.int32(1)])]);
      const isFresh = decode.node("Unsqueeze", [decode.node("Equal", [selected, limit]), decode.int([2])]);
      const gathered = decode.node("Where", [isFresh, fresh, decode.node("Gather", [past, inPast], { axis: 0 })]);
      return [attendGathered(decode, queries, gathered, mask, scale)];
    },
    (chunk) => {
      const keys = chunk.node("Concat", [past, fresh], { axis: 0 });
      const total = chunk.node("Add", [pastRows, freshRows]);
      const isShort = chunk.node("LessOrEqual", [total, chunk.int([denseUpTo * config.indexTopk])]);
      return chunk.branch(
        chunk.node("Squeeze", [isShort]),
        1,
        (dense) => {
          const scores = scoresOfAll(dense, config, queries, keys, total);
          return [attendAll(dense, config, scores, keys, total, selected, mask)];
        },
        (sparse) => [
          attendGathered(sparse, queries, sparse.node("Gather", [keys, selected], { axis: 0 }), mask, scale),
        ],
      );
    },
  );
  return context as Value;
}

/** dqk^-0.5, times YaRN's factor. */
export function softmaxScale(config: DsaConfig): number {
  return (config.qkNopeHeadDim + config.qkRopeHeadDim) ** -0.5 * config.rope.softmaxFactor;
}

/** `gathered` is `[S, K, latentWidth]`: the rows' own keys. */
function attendGathered(graph: GraphBuilder, queries: Value, gathered: Value, mask: Value, scale: number): Value {
  const scores = graph.contrib("FusedMatMul", [queries, gathered], { transB: 1, alpha: { float: scale } });
  const visible = graph.node("Add", [scores, graph.node("Unsqueeze", [mask, graph.int([1])])]);
  // Multiplying by whole rows and cutting k_pe off afterwards is cheaper than copying the gathered c_kv first.
  return graph.node("MatMul", [graph.node("Softmax", [visible], { axis: -1 }), gathered]);
}

/** Scaled products of all queries with all `keys` `[T, latentWidth]`, `[S, H, T]`. */
export function scoresOfAll(graph: GraphBuilder, config: DsaConfig, queries: Value, keys: Value, total: Value): Value {
  const flat = graph.reshape(queries, [-1, latentWidth(config)]);
  const scores = graph.contrib("FusedMatMul", [flat, keys], { transB: 1, alpha: { float: softmaxScale(config) } });
  const shape = graph.node("Concat", [graph.int([-1, config.numAttentionHeads]), total], { axis: 0 });
  return graph.node("Reshape", [scores, shape]);
}

/** All `keys` `[T, latentWidth]` under a mask that opens the selected, visible ones; `scores` is `[S, H, T]`. */
export function attendAll(
  graph: GraphBuilder,
  config: DsaConfig,
  scores: Value,
  keys: Value,
  total: Value,
  selected: Value,
  mask: Value,
): Value {
  const rows = graph.dimension(scores, 0);
  const closed = graph.node("Expand", [graph.float(masked), graph.node("Concat", [rows, total], { axis: 0 })]);
  const opened = graph.node("ScatterElements", [closed, selected, mask], { axis: 1 });
  const visible = graph.node("Add", [scores, graph.node("Unsqueeze", [opened, graph.int([1])])]);
  const weights = graph.node("Reshape", [
    graph.node("Softmax", [visible], { axis: -1 }),
    graph.node("Concat", [graph.int([-1]), total], { axis: 0 }),
  ]);
  return graph.reshape(graph.node("MatMul", [weights, keys]), [-1, config.numAttentionHeads, latentWidth(config)]);
}
