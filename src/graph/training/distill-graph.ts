/**
 * The gradient of the indexers that are trained in a range of layers: hidden states in, losses and gradients out. Those
 * states are the frozen model's, every layer with its own indexer, so that what one group of layers learns does not move
 * what the next one sees. Either every layer's are fed, made once beforehand: a step then runs no layer, only the attention
 * scores that are its target, and holds no MLP and no expert. Or those that enter the first layer are fed, and the step runs
 * the layers between (`range-graph.ts`).
 */

import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import type { IndexerWeights, LayerWeights, ModelWeights, Weight } from "../../checkpoint/weights.ts";
import type { GraphSpec, LayerRange, TensorSpec } from "../exported/contract.ts";
import { sequenceContext } from "../frames/sequence-graph.ts";
import type { SequenceContext, SequenceShape } from "../frames/sequence-rows.ts";
import type { Value } from "../graph-builder.ts";
import { frozenKernels, type Provider } from "../layer/kernels.ts";
import { type IndexerTensor, indexerTensors, tieStep, topk } from "../layer/lightning-indexer.ts";
import { ModelGraph } from "../model-graph.ts";
import type { ModelProto } from "../onnx_pb.ts";
import { attentionTarget, type TargetWeight } from "./attention-target.ts";
import { type IndexScores, indexerGradient, trainedScores } from "./indexer-gradient.ts";
import type { QueryRows } from "./query-rows.ts";
import { fromBfloat16Bits, type StatesType, statesAfter } from "./range-graph.ts";

/** Where a step finds the states that enter its layers: it is fed with all of them, or runs the layers from the first on. */
export const stepStates = ["stored", "computed"] as const;
export type StepStates = (typeof stepStates)[number];

export interface DistillGraphSettings {
  provider: Provider;
  states: StatesType;
  /** How frozen layers cut the rows, where a step runs them; absent where it is fed with the states of every layer. */
  frozen: SequenceShape | undefined;
  batch: number;
  /** Tokens of a sequence. */
  length: number;
  /** Query rows of each sequence in one step. */
  queries: number;
  weight: TargetWeight;
  /** Layers whose indexers are trained. Of one group of layers: its Full layer. Of any pattern: all that have an indexer. */
  trained: readonly number[];
  /** Does a run say by `serves` which layers each trained indexer serves? Otherwise the one that is trained serves `targets`. */
  anyPattern: boolean;
  /** Layers whose attention is the target, where one pattern is trained. */
  targets: readonly number[];
}

export const statesInput = (layer: number) => `hidden_states.${layer}`;
/** An input: may a row choose among all that it sees (false), or among what its trained indexer selects (true)? */
export const sparseInput = "sparse";
/** An input: is the share of the target that an indexer's selection misses wanted as well? Only with `sparse` false. */
export const measureInput = "measure";
export const servesInput = "serves";
export const fullInput = (layer: number) => `full.${layer}`;
export const lossOutput = (layer: number) => `loss.${layer}`;
export const missedOutput = (layer: number) => `missed.${layer}`;
export const parameterName = (layer: number, tensor: IndexerTensor) => `trained.${layer}.${tensor}`;
export const gradientName = (layer: number, tensor: IndexerTensor) => `gradient.${layer}.${tensor}`;

/** Lowest number of a masked score: finite, so that a row without keys stays free of NaN. */
const closed = -1e30;

/** The trained copy of a layer's indexer: the same shapes, fed by name. */
function trainedIndexer(layer: number, indexer: IndexerWeights): IndexerWeights {
  const named = (tensor: IndexerTensor): Weight => ({
    ...indexer[tensor],
    name: parameterName(layer, tensor),
  });
  return Object.fromEntries(indexerTensors.map((tensor) => [tensor, named(tensor)])) as unknown as IndexerWeights;
}

/** @throws RangeError for a layer without an indexer */
export function indexerOf(weights: ModelWeights, layer: number): IndexerWeights {
  const indexer = weights.layers[layer]?.indexer;
  if (indexer === undefined) throw new RangeError(`layer ${layer} has no indexer to train`);
  return indexer;
}

type Work = Pick<DistillGraphSettings, "trained" | "targets">;

/** The layers that a step looks at: those that are trained, and those whose attention is a target. */
export function layersOfStep({ from, to }: LayerRange, { trained, targets }: Work): number[] {
  const layers = Array.from({ length: to - from }, (_, index) => from + index);
  return layers.filter((layer) => trained.includes(layer) || targets.includes(layer));
}

/** The layers whose states a step is fed with. */
export function layersFed(range: LayerRange, work: Work, stepStates: StepStates): number[] {
  return stepStates === "stored" ? layersOfStep(range, work) : [range.from];
}

function distillSpec(
  config: DsaConfig,
  weights: ModelWeights,
  range: LayerRange,
  settings: DistillGraphSettings,
): GraphSpec {
  const rows = settings.batch * settings.length;
  const layers = range.to - range.from;
  const statesType = settings.states === "float32" ? OnnxType.float : OnnxType.uint16;
  const inputs: TensorSpec[] = [
    ...layersFed(range, settings, settings.frozen === undefined ? "stored" : "computed").map((layer) => ({
      name: statesInput(layer),
      type: statesType,
      shape: ["rows", config.hiddenSize],
    })),
    { name: "position_ids", type: OnnxType.int64, shape: [rows] },
    { name: "query_positions", type: OnnxType.int64, shape: [settings.queries] },
    { name: sparseInput, type: OnnxType.bool, shape: [] },
    { name: measureInput, type: OnnxType.bool, shape: [] },
  ];
  if (settings.anyPattern) inputs.push({ name: servesInput, type: OnnxType.float, shape: [layers, layers] });
  const outputs: TensorSpec[] = [];
  for (const layer of settings.trained) {
    if (settings.anyPattern && layer > range.from) {
      inputs.push({ name: fullInput(layer), type: OnnxType.bool, shape: [] });
    }
    outputs.push({ name: lossOutput(layer), type: OnnxType.float, shape: [] });
    outputs.push({ name: missedOutput(layer), type: OnnxType.float, shape: [] });
    for (const tensor of indexerTensors) {
      const { shape } = indexerOf(weights, layer)[tensor];
      inputs.push({ name: parameterName(layer, tensor), type: OnnxType.float, shape });
      outputs.push({ name: gradientName(layer, tensor), type: OnnxType.float, shape });
    }
  }
  return { inputs, outputs };
}

export function buildDistillGraph(
  config: DsaConfig,
  weights: ModelWeights,
  range: LayerRange,
  settings: DistillGraphSettings,
): ModelProto {
  const graph = new ModelGraph(config, { precision: OnnxType.float, weights: "outer" });
  const spec = distillSpec(config, weights, range, settings);
  const trained = new Map(settings.trained.map((layer) => [layer, trainedIndexer(layer, indexerOf(weights, layer))]));
  const parameters = new Map<string, Weight>();
  for (const indexer of trained.values())
    for (const tensor of indexerTensors) parameters.set(indexer[tensor].name, indexer[tensor]);
  for (const { name, type, shape } of spec.inputs) {
    const parameter = parameters.get(name);
    if (parameter === undefined) graph.input(name, type, shape);
    else graph.parameter(parameter);
  }
  const shape: SequenceShape = {
    batch: settings.batch,
    length: settings.length,
    chunks: 1,
    chunkRows: settings.length,
  };
  const context = sequenceContext(graph, shape, {
    precision: OnnxType.float,
    provider: settings.provider,
    boundaries: false,
    ...frozenKernels(settings.provider, config),
  });
  const rows = queryRows(graph, context, settings.queries);
  const causal = causalBias(graph, rows, settings.length);
  const results = new Map<string, Value>();
  const targets: Value[] = [];
  const biases = new Map<number, Value>();
  const states = new Map<number, Value>();
  // Scores of indexers that every step trains: made once, for the selection and for the gradient.
  const scored = new Map<number, IndexScores>();
  const everyStep = (layer: number): boolean => !settings.anyPattern || layer === range.from;
  let bias = causal;
  for (const [layer, input] of statesOfStep(graph, context, weights, range, settings)) {
    const parts = weights.layers[layer] as LayerWeights;
    const indexer = trained.get(layer);
    const before = bias;
    if (indexer !== undefined) {
      if (everyStep(layer)) scored.set(layer, trainedScores(graph, context, parts, indexer, input, rows));
      const allowed = (inside: ModelGraph) =>
        inside.either(
          sparseInput,
          (sparse) => {
            const { scores } = scored.get(layer) ?? trainedScores(sparse, context, parts, indexer, input, rows);
            return selectedBias(sparse, context, scores, rows, causal);
          },
          () => causal,
        );
      bias = everyStep(layer) ? allowed(graph) : graph.either(fullInput(layer), allowed, () => before);
    }
    states.set(layer, input);
    biases.set(layer, bias);
    if (!settings.targets.includes(layer)) continue;
    targets.push(attentionTarget(graph, context, parts, input, rows, bias, settings.weight));
  }
  const stacked = settings.anyPattern ? stack(graph, targets) : undefined;
  for (const [layer, indexer] of trained) {
    const place = layer - range.from;
    const parts = weights.layers[layer] as LayerWeights;
    const train = (inside: ModelGraph): Value[] => {
      const target =
        stacked === undefined ? centroid(inside, targets) : servedCentroid(inside, stacked, place, context, rows);
      const input = states.get(layer) as Value;
      const found = scored.get(layer) ?? trainedScores(inside, context, parts, indexer, input, rows);
      const { loss, gradients } = indexerGradient(
        inside,
        context,
        indexer,
        found,
        rows,
        target,
        biases.get(layer) as Value,
      );
      const missed = inside.either(
        measureInput,
        (measured) => missedShare(measured, target, selectedBias(measured, context, found.scores, rows, causal), rows),
        (other) => other.float(0),
      );
      return [loss, missed, ...gradients];
    };
    const nothing = (inside: ModelGraph): Value[] => [
      inside.float(0),
      inside.float(0),
      ...indexerTensors.map((tensor) =>
        inside.node("Expand", [inside.float(0), inside.int([...indexer[tensor].shape])]),
      ),
    ];
    const [loss, missed, ...gradients] = everyStep(layer)
      ? train(graph)
      : graph.branch(fullInput(layer), train, nothing);
    results.set(lossOutput(layer), loss as Value);
    results.set(missedOutput(layer), missed as Value);
    for (const [index, tensor] of indexerTensors.entries()) {
      results.set(gradientName(layer, tensor), gradients[index] as Value);
    }
  }
  for (const { name, type, shape } of spec.outputs) graph.output(name, results.get(name) as Value, type, shape);
  return graph.model("dsa distillation", { architecture: config.modelType });
}

/** The states that enter each layer of a step, in order. */
function* statesOfStep(
  graph: ModelGraph,
  context: SequenceContext,
  weights: ModelWeights,
  range: LayerRange,
  settings: DistillGraphSettings,
): Generator<[number, Value]> {
  const fed = (layer: number): Value =>
    settings.states === "float32" ? statesInput(layer) : fromBfloat16Bits(graph, statesInput(layer));
  const layers = layersOfStep(range, settings);
  if (settings.frozen === undefined) {
    for (const layer of layers) yield [layer, fed(layer)];
    return;
  }
  const first = fed(range.from);
  yield [range.from, first];
  const frozen = { ...context, shape: settings.frozen };
  const between = { from: range.from, to: Math.max(...layers) };
  for (const [layer, states] of statesAfter(graph, frozen, weights, between, first)) {
    if (layers.includes(layer)) yield [layer, states];
  }
}

function queryRows(graph: ModelGraph, context: SequenceContext, count: number): QueryRows {
  const { batch, length } = context.shape;
  const positions = "query_positions";
  const starts = graph.node("Mul", [
    graph.node("Range", [graph.int(0), graph.int(batch), graph.int(1)]),
    graph.int(length),
  ]);
  const places = graph.reshape(
    graph.node("Add", [
      graph.node("Unsqueeze", [starts, graph.int([1])]),
      graph.node("Unsqueeze", [positions, graph.int([0])]),
    ]),
    [batch * count],
  );
  const repeated = graph.reshape(graph.node("Expand", [positions, graph.int([batch, count])]), [batch * count]);
  return {
    count,
    places,
    positions,
    angles: { cos: context.cos, sin: context.sin, places: { positions: repeated, together: count } },
  };
}

/** `[1, queries, length]`: 0 at every key that a row sees. */
function causalBias(graph: ModelGraph, { positions }: QueryRows, length: number): Value {
  const every = graph.node("Range", [graph.int(0), graph.int(length), graph.int(1)]);
  const future = graph.node("Greater", [every, graph.node("Unsqueeze", [positions, graph.int([1])])]);
  const bias = graph.node("Where", [future, graph.float(closed), graph.float(0)]);
  return graph.node("Unsqueeze", [bias, graph.int([0])]);
}

/** `[batch, queries, length]`: 0 at the keys that an indexer selects. */
function selectedBias(
  graph: ModelGraph,
  context: SequenceContext,
  scores: Value,
  rows: QueryRows,
  causal: Value,
): Value {
  const { length, batch } = context.shape;
  const every = graph.cast(graph.node("Range", [graph.int(0), graph.int(length), graph.int(1)]), OnnxType.float);
  const order = graph.node("Mul", [every, graph.float(tieStep)]);
  const visible = graph.node("Add", [graph.node("Add", [scores, order]), causal]);
  const [, chosen] = topk(graph, visible, graph.int([Math.min(context.config.indexTopk, length)]));
  const none = graph.node("Expand", [graph.float(closed), graph.int([batch, rows.count, length])]);
  const open = graph.node("Expand", [graph.float(0), graph.node("Shape", [chosen])]);
  const selected = graph.node("ScatterElements", [none, chosen, open], { axis: 2 });
  // Rows that see fewer keys than are selected got keys of their future as well.
  return graph.node("Min", [selected, causal]);
}

/** Share of the target's mass at keys that are not selected, a scalar: mean over rows. */
function missedShare(graph: ModelGraph, target: Value, selected: Value, rows: QueryRows): Value {
  const outside = graph.node("Less", [selected, graph.float(closed / 2)]);
  const missed = graph.node("Where", [outside, target, graph.float(0)]);
  const total = graph.node("ReduceSum", [missed], { keepdims: 0 });
  const all = graph.cast(graph.node("Size", [rows.places]), OnnxType.float);
  return graph.node("Div", [total, all]);
}

/** `[targets, batch * queries * length]` */
function stack(graph: ModelGraph, targets: Value[]): Value {
  return graph.node(
    "Concat",
    targets.map((target) => graph.reshape(target, [1, -1])),
    { axis: 0 },
  );
}

/** The mean, as sums of two: CUDA has no kernel for `Mean`, and half of a step went by on the way to the CPU and back. */
function centroid(graph: ModelGraph, targets: Value[]): Value {
  const total = targets.reduce((sum, target) => graph.node("Add", [sum, target]));
  return targets.length === 1 ? total : graph.node("Mul", [total, graph.float(1 / targets.length)]);
}

/** The mean of the layers that indexer `place` serves, by its row of `serves`. */
function servedCentroid(
  graph: ModelGraph,
  stacked: Value,
  place: number,
  context: SequenceContext,
  rows: QueryRows,
): Value {
  const shares = graph.slice(servesInput, 0, place, place + 1);
  const { batch, length } = context.shape;
  return graph.reshape(graph.node("MatMul", [shares, stacked]), [batch, rows.count, length]);
}
