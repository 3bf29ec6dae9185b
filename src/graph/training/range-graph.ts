/** Layers of the model over whole sequences: the hidden states that enter the first one in, those at every later boundary out. */
import { OnnxType } from "../../checkpoint/dtype.ts";
import type { DsaConfig } from "../../checkpoint/model-config.ts";
import type { LayerWeights, ModelWeights } from "../../checkpoint/weights.ts";
import { GraphBuilder, type Value } from "../graph-builder.ts";
import type { ModelProto } from "../onnx_pb.ts";
import { layerOver, sequenceContext } from "../sequence-graph.ts";
import { selectSequenceKeys } from "../sequence-indexer.ts";
import type { Provider } from "../sequence-kernels.ts";
import { type SequenceContext, type SequenceShape, selectsKeys } from "../sequence-rows.ts";
import type { LayerRange } from "./distill-graph.ts";

/** States that enter `layer`, float32 `[batch * length, hidden_size]`. */
export const boundaryOutput = (layer: number) => `boundary.${layer}`;

/** A range without layers embeds token ids: its output is the boundary below layer `from`. */
export function buildRangeGraph(
  config: DsaConfig,
  weights: ModelWeights,
  range: LayerRange,
  shape: SequenceShape,
  provider: Provider,
): ModelProto {
  const graph = new GraphBuilder({ precision: OnnxType.float, weights: "outer" });
  const rows = shape.batch * shape.length;
  const boundary = (layer: number, states: Value): void =>
    graph.output(boundaryOutput(layer), states, OnnxType.float, [rows, config.hiddenSize]);
  if (range.from === range.to) {
    graph.input("input_ids", OnnxType.int64, [rows]);
    boundary(range.from, graph.node("Gather", [graph.weight(weights.embedding), "input_ids"], { axis: 0 }));
    return graph.model("dsa embedding", { architecture: config.modelType });
  }
  let hidden: Value = graph.input("hidden_states", OnnxType.float, [rows, config.hiddenSize]);
  graph.input("position_ids", OnnxType.int64, [rows]);
  const context = sequenceContext(graph, config, shape, { precision: OnnxType.float, provider, boundaries: false });
  let selected: Value | undefined;
  for (let layer = range.from; layer < range.to; layer++) {
    const parts = weights.layers[layer] as LayerWeights;
    selected = ownSelection(graph, context, parts, hidden) ?? selected;
    hidden = layerOver(graph, context, parts, hidden, selected);
    boundary(layer + 1, hidden);
  }
  return graph.model("dsa layers", { architecture: config.modelType });
}

/** `topk_indices` of a layer's own, frozen indexer; nothing where it has none, or sequences are too short to select. */
function ownSelection(
  graph: GraphBuilder,
  context: SequenceContext,
  parts: LayerWeights,
  hidden: Value,
): Value | undefined {
  if (parts.indexer === undefined || !selectsKeys(context.config, context.shape)) return undefined;
  return selectSequenceKeys(graph, context, parts, parts.indexer, hidden);
}
