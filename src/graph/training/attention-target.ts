import type { LayerWeights } from "../../checkpoint/weights.ts";
import { orderedKeys, sequenceFrame } from "../frames/sequence-frame.ts";
import type { SequenceContext } from "../frames/sequence-rows.ts";
import type { Value } from "../graph-builder.ts";
import { enterLayer } from "../layer/dsa-layer.ts";
import { attentionQueries, latents, softmaxScale, valueGates } from "../layer/latent-attention.ts";
import type { ModelGraph } from "../model-graph.ts";
import { type QueryRows, rowsOf } from "./query-rows.ts";

export const targetWeights = ["values", "mass"] as const;
export type TargetWeight = (typeof targetWeights)[number];

/**
 * Target distribution of a layer, `[batch, queries, length]`, each row summing to 1.
 * @param hidden hidden states that enter the layer, `[batch * length, hidden_size]`
 * @param bias `[batch or 1, queries, length]`: 0 at the keys a row may choose from, the lowest number elsewhere
 */
export function attentionTarget(
  graph: ModelGraph,
  context: SequenceContext,
  layer: LayerWeights,
  hidden: Value,
  queries: QueryRows,
  bias: Value,
  weight: TargetWeight,
): Value {
  const { config, shape } = context;
  const { numAttentionHeads: heads, qkRopeHeadDim: rope, qkNopeHeadDim: nope } = config;
  const width = rope + nope;
  const { h, asked: all } = enterLayer({ graph, kernels: context.kernels }, layer, { residual: hidden });
  const { angles } = sequenceFrame(graph, context);
  const read = orderedKeys(graph, context, layer, latents(graph, layer, h, angles)).expanded;
  const ownRows = rowsOf(graph, queries, all);
  const asked = attentionQueries(graph, layer, ownRows, queries.angles);
  const byHead = graph.node("Transpose", [graph.reshape(asked, [shape.batch, queries.count, heads, width])], {
    perm: [0, 2, 1, 3],
  });
  const keys = graph.node("Transpose", [graph.reshape(read.keys, [shape.batch, shape.length, heads, width])], {
    perm: [0, 2, 3, 1],
  });
  const scaled = graph.node("Mul", [byHead, graph.float(softmaxScale(config))]);
  const scores = graph.node("MatMul", [scaled, keys]);
  const open = graph.node("Add", [scores, graph.node("Unsqueeze", [bias, graph.int([1])])]);
  const attended = graph.node("Softmax", [open], { axis: -1 });
  if (weight === "mass") return overHeads(graph, attended, shape.batch, queries.count, 1 / heads);
  const contributed = contributionNorms(graph, layer, read.values, ownRows, [shape.batch, shape.length]);
  const weighted = graph.node("Mul", [attended, contributed]);
  const total = overHeads(graph, weighted, shape.batch, queries.count, 1);
  const whole = graph.node("ReduceSum", [total, graph.int([-1])], { keepdims: 1 });
  return graph.node("Div", [total, graph.node("Max", [whole, graph.float(1e-20)])]);
}

/**
 * Sum over heads times `factor`, `[batch, queries, length]` of `[batch, heads, queries, length]`: as a product with a row of
 * equal numbers, because CUDA has no kernel of its own for a sum over an axis in the middle.
 */
function overHeads(graph: ModelGraph, x: Value, batch: number, count: number, factor: number): Value {
  const { numAttentionHeads: heads } = graph.config;
  const row = graph.node("Expand", [graph.float(factor), graph.int([1, 1, heads])]);
  const flat = graph.reshape(x, [batch, heads, -1]);
  return graph.reshape(graph.node("MatMul", [row, flat]), [batch, count, -1]);
}

/**
 * |o_h v_h[s]| for every head and key, `[batch, heads, 1, length]`; with gates for every row as well,
 * `[batch, heads, queries, length]`.
 * @param values `[batch, length, heads * v_head_dim]`
 * @param asked what the rows' queries and gates are made of, `[batch * queries, ..]`
 */
function contributionNorms(
  graph: ModelGraph,
  layer: LayerWeights,
  values: Value,
  asked: Value,
  [batch, length]: [number, number],
): Value {
  const { numAttentionHeads: heads, vHeadDim } = graph.config;
  // |o v|^2 = v^T (o^T o) v: a product of v_head_dim instead of hidden_size columns for every key.
  const gram = graph.derived(`${layer.o.name} gram`, (outer) => {
    const blocks = headColumns(outer, layer);
    const columns = outer.node("Transpose", [blocks], { perm: [1, 0, 2] });
    return outer.node("MatMul", [outer.node("Transpose", [blocks], { perm: [1, 2, 0] }), columns]);
  });
  const byHead = graph.node("Transpose", [graph.reshape(values, [batch * length, heads, vHeadDim])], {
    perm: [1, 0, 2],
  });
  const squares = graph.node("Mul", [graph.node("MatMul", [byHead, gram]), byHead]);
  const sums = graph.node("ReduceSum", [squares, graph.int([-1])], { keepdims: 0 });
  const norms = graph.node("Sqrt", [graph.node("Max", [sums, graph.float(0)])]);
  const byKey = graph.node("Transpose", [graph.reshape(norms, [heads, batch, length])], { perm: [1, 0, 2] });
  const ofKeys = graph.node("Unsqueeze", [byKey, graph.int([2])]);
  const gates = valueGates(graph, layer, asked);
  if (gates === undefined) return ofKeys;
  return graph.node("Mul", [ofKeys, gateShares(graph, layer, byHead, gates, [batch, length])]);
}

/**
 * What gates leave of the norms, `[batch, heads, queries, length]`.
 * @param values `[heads, batch * length, v_head_dim]`
 * @param gates `[batch * queries, heads * v_head_dim]`
 */
function gateShares(
  graph: ModelGraph,
  layer: LayerWeights,
  values: Value,
  gates: Value,
  [batch, length]: [number, number],
): Value {
  const { numAttentionHeads: heads, vHeadDim } = graph.config;
  const columnSquares = graph.derived(`${layer.o.name} column squares`, (outer) => {
    const blocks = headColumns(outer, layer);
    const sums = outer.node("ReduceSum", [outer.node("Mul", [blocks, blocks]), outer.int([0])], { keepdims: 0 });
    return outer.reshape(sums, [heads, 1, vHeadDim]);
  });
  const squares = graph.node("Mul", [graph.node("Mul", [values, values]), columnSquares]);
  const byKey = graph.node("Transpose", [graph.reshape(squares, [heads, batch, length, vHeadDim])], {
    perm: [1, 0, 3, 2],
  });
  const byRow = graph.node("Transpose", [graph.reshape(gates, [batch, -1, heads, vHeadDim])], { perm: [0, 2, 1, 3] });
  const passed = graph.node("MatMul", [graph.node("Mul", [byRow, byRow]), byKey]);
  const all = graph.node("MatMul", [graph.node("Expand", [graph.float(1), graph.int([1, vHeadDim])]), byKey]);
  return graph.node("Sqrt", [graph.node("Div", [passed, graph.node("Max", [all, graph.float(1e-30)])])]);
}

/** o_proj column by column of each head's values, `[hidden_size, heads, v_head_dim]`. */
function headColumns(graph: ModelGraph, { o }: LayerWeights): Value {
  const { config } = graph;
  return graph.reshape(graph.weight(o), [config.hiddenSize, config.numAttentionHeads, config.vHeadDim]);
}
