/**
 * Frozen layers of the model over whole sequences: the hidden states that enter the first one in, those at later boundaries
 * out. Rows are ordered by sequence and position, however the layers cut them.
 */

import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import type { ModelWeights } from "../../checkpoint/weights.ts";
import type { LayerRange } from "../exported/contract.ts";
import { embedding } from "../frames/head.ts";
import { layersOver, sequenceContext } from "../frames/sequence-graph.ts";
import { inOrder, inRowOrder, type SequenceContext, type SequenceShape } from "../frames/sequence-rows.ts";
import type { Value } from "../graph-builder.ts";
import { frozenKernels, type Provider } from "../layer/kernels.ts";
import { ModelGraph } from "../model-graph.ts";
import type { ModelProto } from "../onnx_pb.ts";

/**
 * Hidden states as a graph is fed with them: numbers, or the bits of bfloat16 as uint16, which take half the way to a device
 * and no work on this side.
 */
export type StatesType = "float32" | "bfloat16";

/** float32 numbers of bfloat16 bits, by a table of all of them: ONNX has no operator that reads bits as another type. */
export function fromBfloat16Bits(graph: ModelGraph, bits: Value): Value {
  const every = Uint32Array.from({ length: 2 ** 16 }, (_, word) => word * 2 ** 16);
  const numbers = graph.derived("bfloat16", (outer) => outer.float(new Float32Array(every.buffer)));
  return graph.node("Gather", [numbers, graph.cast(bits, OnnxType.int32)], { axis: 0 });
}

/** States that enter `layer`, float32 `[batch * length, hidden_size]`. */
export const boundaryOutput = (layer: number) => `boundary.${layer}`;

/**
 * A range without layers embeds token ids: its output is the boundary below layer `from`.
 * @param boundaries above the range's first, in order: those that are outputs
 */
export function buildRangeGraph(
  config: DsaConfig,
  weights: ModelWeights,
  range: LayerRange,
  boundaries: readonly number[],
  shape: SequenceShape,
  provider: Provider,
  fed: StatesType = "float32",
): ModelProto {
  const graph = new ModelGraph(config, { precision: OnnxType.float, weights: "outer" });
  const output = (layer: number, states: Value): void =>
    graph.output(boundaryOutput(layer), states, OnnxType.float, [`rows_${layer}`, config.hiddenSize]);
  if (range.from === range.to) {
    graph.input("input_ids", OnnxType.int64, ["rows"]);
    output(range.from, embedding(graph, weights, "input_ids"));
    return graph.model("dsa embedding", { architecture: config.modelType });
  }
  const type = fed === "float32" ? OnnxType.float : OnnxType.uint16;
  const input = graph.input("hidden_states", type, ["rows", config.hiddenSize]);
  const hidden = fed === "float32" ? input : fromBfloat16Bits(graph, input);
  graph.input("position_ids", OnnxType.int64, ["rows"]);
  const context = sequenceContext(graph, shape, {
    ...{ precision: OnnxType.float, provider, boundaries: false },
    ...frozenKernels(provider, config),
  });
  const last = Math.max(...boundaries);
  for (const [layer, states] of statesAfter(graph, context, weights, { from: range.from, to: last }, hidden)) {
    if (boundaries.includes(layer)) output(layer, states);
  }
  return graph.model("dsa layers", { architecture: config.modelType });
}

/**
 * The states after each layer of a range, each layer with its own, frozen indexer: pairs of a boundary and its states.
 * @param hidden states that enter the first one, `[batch * length, hidden_size]`: of an input with a name for its rows
 * @param context of any chunks; its positions are those of rows by sequence and position
 */
export function* statesAfter(
  graph: ModelGraph,
  context: SequenceContext,
  weights: ModelWeights,
  { from, to }: LayerRange,
  hidden: Value,
): Generator<[number, Value]> {
  const { hiddenSize } = context.config;
  const positions = graph.reshape(inRowOrder(graph, context, context.positions, 1), [-1]);
  const inChunks = { ...context, positions };
  const entering = {
    hidden: inRowOrder(graph, context, graph.unforeseen(hidden), hiddenSize),
    selected: undefined,
  };
  for (const after of layersOver(graph, inChunks, weights, { from, to, switched: false }, entering)) {
    yield [after.layer + 1, inOrder(graph, context, after.hidden, hiddenSize)];
  }
}
