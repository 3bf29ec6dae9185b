import type { IndexerWeights, LayerWeights, NormGate, Weight } from "../../checkpoint/weights.ts";
import type { Value } from "../graph-builder.ts";
import type { ModelGraph } from "../model-graph.ts";
import { feedForward } from "./experts.ts";
import type { Kernels } from "./kernels.ts";
import { attentionQueries, compressedQueries, gatedValues, type Latents, latents } from "./latent-attention.ts";
import { indexHeadWeights, indexKeys, indexQueries } from "./lightning-indexer.ts";
import type { RowAngles } from "./rope.ts";

/** Query rows: all of a frame, or a chunk's. */
export interface Queries {
  graph: ModelGraph;
  /** Cuts these rows out of a tensor with all rows in front. */
  rows: (all: Value) => Value;
  angles: () => RowAngles;
}

/** What an indexer asks with: rotated queries `[rows * heads, dim]`, or as many elements, and weights `[rows, heads]`. */
export interface IndexQueries {
  queries: Value;
  weights: Value;
}

/** How the rows of a graph find each other. */
export interface LayerFrame<Q extends Queries> {
  graph: ModelGraph;
  kernels: Kernels;
  /** Of all rows. */
  angles: RowAngles;
  /** Do rows select? Otherwise they read every key that they see, and new index keys are kept alone. */
  selects: boolean;
  /** What follows attention is taken chunk by chunk as well: all rows would need too much memory. */
  restByChunk: boolean;
  /** Queries are projected for all rows at once and cut afterwards: the products of one chunk leave a large GPU half idle. */
  asksTogether?: boolean;
  /** Takes all rows' index keys `[rows, dim]`; returns what selects for some queries: indices `[rows, index_topk]`. */
  keepIndexKeys(fresh: Value): (queries: Q, ask: (inside: Q) => IndexQueries) => Value;
  /** Takes all rows' latents; returns what attends for some queries, by all rows' selections: `[rows, H * v_head_dim]`. */
  keepLatents(layer: LayerWeights, fresh: Latents): (queries: Q, asked: Value, selected: Value | undefined) => Value;
  /** Runs `body` for the queries of all rows, at once or chunk by chunk, and joins the results along the rows. */
  overQueries(body: (queries: Q) => Value): Value;
  /** The same for attention, where it is cut otherwise. */
  overAttention?(body: (queries: Q) => Value): Value;
}

/** Hidden states `[rows, hidden_size]`, as a sum where the next norm can take it. */
export interface Hidden {
  residual: Value;
  added?: Value;
}

export interface LayerInput {
  residual: Value;
  /** Normed, `[rows, hidden_size]`. */
  h: Value;
  /** c_q, `[rows, q_lora_rank]`. */
  compressed: Value;
  /** What attention's queries are made of: c_q, where values are gated with its rows before their norm beside it. */
  asked: Value;
  /** Where `h` is not to be kept until attention. */
  latents?: Latents;
}

export function enterLayer(
  { graph, kernels }: Pick<LayerFrame<never>, "graph" | "kernels">,
  layer: LayerWeights,
  hidden: Hidden,
): LayerInput {
  const [normed, residual] = normOf(graph, kernels, hidden, layer.inputNorm);
  const h = gatedNorm(graph, normed, layer.inputGate);
  return { residual, h, ...compressedQueries(graph, layer, h) };
}

/** The lightning indexer: the keys of each row's selection, or nothing where rows select every key that they see. */
export function lightningIndexer<Q extends Queries>(
  frame: LayerFrame<Q>,
  indexer: IndexerWeights,
  { h, compressed }: LayerInput,
): Value | undefined {
  const { graph, kernels, angles } = frame;
  const select = frame.keepIndexKeys(indexKeys(graph, indexer, h, angles));
  if (!frame.selects) return undefined;
  if (frame.asksTogether === true) {
    const { indexNHeads: heads, indexHeadDim: dim } = graph.config;
    const asked = graph.reshape(indexQueries(graph, indexer, compressed, angles), [-1, heads * dim]);
    const weights = indexHeadWeights(graph, kernels, indexer, h);
    return frame.overQueries((queries) =>
      select(queries, (inside) => ({ queries: inside.rows(asked), weights: inside.rows(weights) })),
    );
  }
  return frame.overQueries((queries) =>
    select(queries, (inside) => ({
      queries: indexQueries(inside.graph, indexer, inside.rows(compressed), inside.angles()),
      weights: indexHeadWeights(inside.graph, kernels, indexer, inside.rows(h)),
    })),
  );
}

/** Attention, the feed-forward part, and their residuals. */
export function layerBody<Q extends Queries>(
  frame: LayerFrame<Q>,
  layer: LayerWeights,
  { residual, h, asked, latents: made }: LayerInput,
  selected: Value | undefined,
): Hidden {
  const { graph, angles } = frame;
  const read = frame.keepLatents(layer, made ?? latents(graph, layer, h, angles));
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope } = graph.config;
  const width = heads * (rope + nope);
  const all =
    frame.asksTogether === true ? graph.reshape(attentionQueries(graph, layer, asked, angles), [-1, width]) : undefined;
  const attend = (queries: Q): Value => {
    // Their gates are made of the same rows.
    const own = all === undefined || layer.gatesValues === true ? queries.rows(asked) : "";
    const values = read(
      queries,
      all === undefined ? attentionQueries(queries.graph, layer, own, queries.angles()) : queries.rows(all),
      selected,
    );
    return gatedValues(queries.graph, layer, own, values);
  };
  if (!frame.restByChunk)
    return afterAttention(frame, graph, layer, residual, (frame.overAttention ?? frame.overQueries)(attend));
  return {
    residual: frame.overQueries((queries) => {
      const rest = afterAttention(frame, queries.graph, layer, queries.rows(residual), attend(queries));
      return sumOf(queries.graph, rest);
    }),
  };
}

/** What follows the heads' values `[rows, H * v_head_dim]`. */
function afterAttention(
  { kernels }: Pick<LayerFrame<never>, "kernels">,
  graph: ModelGraph,
  layer: LayerWeights,
  residual: Value,
  values: Value,
): Hidden {
  const attended = graph.linear(values, layer.o, layer.oBias);
  const sum = { residual, added: attended };
  const [normed, middle] = normOf(graph, kernels, sum, layer.postAttentionNorm);
  const h = gatedNorm(graph, normed, layer.postAttentionGate);
  return { residual: middle, added: feedForward(graph, layer, h, kernels.experts) };
}

/** Normed rows y times `sigmoid(up(silu(down(y))))`, where they have a gate (HF's AXK2GatedRMSNorm). */
export function gatedNorm(graph: ModelGraph, y: Value, gate: NormGate | undefined): Value {
  if (gate === undefined) return y;
  const inner = graph.contrib("QuickGelu", [graph.linear(y, gate.down)], { alpha: { float: 1 } });
  return graph.node("Mul", [y, graph.sigmoid(graph.linear(inner, gate.up))]);
}

/** RMSNorm of hidden states, and their sum. */
function normOf(graph: ModelGraph, kernels: Kernels, hidden: Hidden, weight: Weight): [normed: Value, sum: Value] {
  const { rmsNormEps: eps } = graph.config;
  const { residual, added } = hidden;
  if (added !== undefined && kernels.skipNorm) return graph.skipNorm(residual, added, weight, eps);
  const sum = sumOf(graph, hidden);
  return [graph.rmsNorm(sum, weight, eps), sum];
}

export function sumOf(graph: ModelGraph, { residual, added }: Hidden): Value {
  return added === undefined ? residual : graph.node("Add", [residual, added]);
}
