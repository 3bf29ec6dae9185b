/**
 * What a layer's attention would lose with another layer's selection: a graph beside the layer's body, which it leaves
 * alone. It reads the layer's hidden states and the latent rows that the body has made, and returns a number for each query
 * and selection, so that nothing of the size of queries x keys leaves the runtime.
 */

import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import type { LayerWeights } from "../../checkpoint/weights.ts";
import { latentWidth } from "../exported/contract.ts";
import { encodeModel, type Value } from "../graph-builder.ts";
import { closedKeys, latentScores, readLatents, rowColumn } from "../layer/attention-kernels.ts";
import { enterLayer } from "../layer/dsa-layer.ts";
import { chunkKernels } from "../layer/kernels.ts";
import { absorbedQueries, absorbedValues, attentionQueries, gatedValues } from "../layer/latent-attention.ts";
import { ModelGraph } from "../model-graph.ts";

/**
 * Encoded probe of one layer. S query rows, T keys (all up to the last row at least), N selections of K keys each.
 * Inputs: `hidden_states` `[S, hidden_size]` that enter the layer, `cos`, `sin`, `position_ids` of the rows, `latent`
 * `[T, latentWidth]`, the layer's own selection `own_indices` `[S, K]` and the tried ones `topk_indices` `[N, S, K]`.
 * Outputs, `[N, S]`:
 * - `recall`: softmax over all visible keys, averaged over heads, summed over the selected visible keys;
 * - `similarity`: cosine between the outputs of all heads, `[H * v_head_dim]` before the output projection, with the tried
 *   selection and with the layer's own.
 */
export function attentionProbe(config: DsaConfig, layer: LayerWeights, name: string): Uint8Array {
  const graph = new ModelGraph(config);
  const half = config.qkRopeHeadDim / 2;
  const hidden = graph.input("hidden_states", OnnxType.float, ["rows", config.hiddenSize]);
  const angles = {
    cos: graph.input("cos", OnnxType.float, ["rows", half]),
    sin: graph.input("sin", OnnxType.float, ["rows", half]),
  };
  const positions = graph.input("position_ids", OnnxType.int64, ["rows"]);
  const keys = graph.input("latent", OnnxType.float, ["keys", latentWidth(config)]);
  const own = graph.input("own_indices", OnnxType.int32, ["rows", "selected"]);
  const tried = graph.input("topk_indices", OnnxType.int32, ["selections", "rows", "selected"]);

  const { asked } = enterLayer({ graph, kernels: chunkKernels }, layer, { residual: hidden });
  const queries = absorbedQueries(graph, layer, attentionQueries(graph, layer, asked, angles));
  const total = graph.dimension(keys, 0);
  const scores = latentScores(graph, queries, keys, total);
  const row = rowColumn(graph, positions);
  const mass = attentionMass(graph, scores, total, positions);
  const output = (inside: ModelGraph, selected: Value, closed: Value): Value => {
    const mixed = readLatents(inside, scores, keys, total, selected, closed);
    return gatedValues(inside, layer, asked, absorbedValues(inside, layer, mixed));
  };
  const reference = output(graph, own, closedKeys(graph, own, row));
  const trips = graph.node("Squeeze", [graph.dimension(tried, 0)]);
  const [recall, similarity] = graph.loop(trips, (each, index) => {
    const selected = each.node("Gather", [tried, index], { axis: 0 });
    const closed = closedKeys(each, selected, row);
    const covered = each.node("Where", [
      each.node("Equal", [closed, each.float(0)]),
      each.node("GatherElements", [mass, selected], { axis: 1 }),
      each.float(0),
    ]);
    return [
      each.node("ReduceSum", [covered, each.int([1])], { keepdims: 0 }),
      cosine(each, output(each, selected, closed), reference),
    ];
  }) as [Value, Value];
  graph.output("recall", recall, OnnxType.float, ["selections", "rows"]);
  graph.output("similarity", similarity, OnnxType.float, ["selections", "rows"]);
  return encodeModel(graph.model(name));
}

/** Softmax of `scores` `[S, H, T]` over the keys that a row sees, averaged over heads: `[S, T]`. */
function attentionMass(graph: ModelGraph, scores: Value, total: Value, positions: Value): Value {
  const range = graph.node("Range", [graph.int(0), graph.node("Squeeze", [total]), graph.int(1)]);
  const future = graph.node("Greater", [
    graph.node("Unsqueeze", [range, graph.int([0])]),
    graph.node("Unsqueeze", [positions, graph.int([1])]),
  ]);
  const mask = graph.node("Where", [future, graph.lowest(), graph.float(0)]);
  const visible = graph.node("Add", [scores, graph.node("Unsqueeze", [mask, graph.int([1])])]);
  const byHead = graph.node("Softmax", [visible], { axis: -1 });
  return graph.node("ReduceMean", [byHead, graph.int([1])], { keepdims: 0 });
}

/** Of the rows of two matrices. */
function cosine(graph: ModelGraph, a: Value, b: Value): Value {
  const dot = (x: Value, y: Value): Value =>
    graph.node("ReduceSum", [graph.node("Mul", [x, y]), graph.int([1])], { keepdims: 0 });
  const norms = graph.node("Mul", [graph.node("Sqrt", [dot(a, a)]), graph.node("Sqrt", [dot(b, b)])]);
  return graph.node("Div", [dot(a, b), norms]);
}
