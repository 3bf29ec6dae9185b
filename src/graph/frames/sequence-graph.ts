/**
 * The whole model over whole sequences, for GPUs: token ids in, the loss of every token out, one run for a batch. Query
 * chunks are a loop inside the graph and caches never leave the device. Switches choose, run by run, which layers run and
 * which indexers do, so that one set of weights on the device serves every pattern and every suffix of layers.
 */

import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import type { LayerWeights, ModelWeights } from "../../checkpoint/weights.ts";
import { type GraphSpec, hiddenStates, type TensorSpec, topkIndices } from "../exported/contract.ts";
import type { Value } from "../graph-builder.ts";
import { enterLayer, type LayerInput, layerBody, lightningIndexer, sumOf } from "../layer/dsa-layer.ts";
import { kernelsOf } from "../layer/kernels.ts";
import { type Latents, latents } from "../layer/latent-attention.ts";
import { rotaryAngles } from "../layer/rope.ts";
import { ModelGraph } from "../model-graph.ts";
import type { ModelProto } from "../onnx_pb.ts";
import { divergence, divergenceNames, embedding, logits, negativeLogLikelihood, ownWidth } from "./head.ts";
import { sequenceFrame } from "./sequence-frame.ts";
import {
  overChunks,
  type SequenceContext,
  type SequenceGraphSettings,
  type SequenceShape,
  selectsKeys,
} from "./sequence-rows.ts";

/** Does layer i run? In graphs without boundaries every layer has to. */
export const runInput = (layer: number) => `run.${layer}`;
/** Does the indexer of layer i run? No more than its layer does; that of layer 0 of a graph without boundaries always runs. */
export const selectInput = (layer: number) => `select.${layer}`;

/** Inputs and outputs of a sequence graph. R rows in all, `batch * length`; K selected keys. */
export function sequenceSpec(config: DsaConfig, shape: SequenceShape, settings: SequenceGraphSettings): GraphSpec {
  const rows = shape.batch * shape.length;
  const { precision, boundaries } = settings;
  const switchOf = (name: string): TensorSpec => ({ name, type: OnnxType.bool, shape: [] });
  // A number of rows for each: a value of known size would have one in every layer (`ModelGraph.unforeseen`).
  const hidden = (name: string): TensorSpec => ({ name, type: precision, shape: [`${name}_rows`, config.hiddenSize] });
  const selected = (name: string): TensorSpec => ({
    name,
    type: OnnxType.int32,
    shape: [`${name}_rows`, "selected_keys"],
  });
  const inputs: TensorSpec[] = ["input_ids", "position_ids", "target_ids"].map((name) => ({
    name,
    type: OnnxType.int64,
    shape: ["rows"],
  }));
  const outputs: TensorSpec[] = [];
  if (settings.top === undefined) {
    outputs.push({ name: "negative_log_likelihood", type: OnnxType.float, shape: [rows] });
  } else {
    const { own, baseline, output } = divergenceNames;
    inputs.push(switchOf(own));
    inputs.push({ name: baseline, type: OnnxType.float, shape: ["baseline_rows", ownWidth(settings.top)] });
    outputs.push({ name: output, type: OnnxType.float, shape: [rows, "width"] });
  }
  // Given sizes by name: where every layer runs they are fed without rows.
  if (boundaries) {
    inputs.push({ name: "hidden_states", type: precision, shape: ["boundary_rows", config.hiddenSize] });
    inputs.push({ name: "topk_indices", type: OnnxType.int32, shape: ["selected_rows", "selected_keys"] });
  }
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    inputs.push(switchOf(runInput(layer)));
    if (config.indexerLayers[layer] === "F" && selectsKeys(config, shape) && (layer > 0 || boundaries)) {
      inputs.push(switchOf(selectInput(layer)));
    }
    if (!boundaries) continue;
    outputs.push(hidden(hiddenStates(layer + 1)));
    if (config.indexerLayers[layer] === "F" && selectsKeys(config, shape)) outputs.push(selected(topkIndices(layer)));
  }
  return { inputs, outputs };
}

export function buildSequenceGraph(
  config: DsaConfig,
  weights: ModelWeights,
  shape: SequenceShape,
  settings: SequenceGraphSettings,
): ModelProto {
  const graph = new ModelGraph(config, { precision: settings.precision, weights: "outer" });
  const spec = sequenceSpec(config, shape, settings);
  for (const { name, type, shape } of spec.inputs) graph.input(name, type, shape);
  const context = sequenceContext(graph, shape, settings);
  const results = new Map<string, Value>();
  const embed = (inside: ModelGraph) => embedding(inside, weights, inside.unforeseen("input_ids"));
  let hidden = settings.boundaries ? graph.either(runInput(0), embed, () => "hidden_states") : embed(graph);
  const selected = settings.boundaries && selectsKeys(config, shape) ? "topk_indices" : undefined;
  const all = { from: 0, to: weights.layers.length, switched: true };
  for (const after of layersOver(graph, context, weights, all, { hidden, selected })) {
    hidden = after.hidden;
    results.set(topkIndices(after.layer), after.selected ?? "");
    results.set(hiddenStates(after.layer + 1), hidden);
  }
  const { top } = settings;
  if (top === undefined) results.set("negative_log_likelihood", lossOver(graph, context, weights, hidden));
  else results.set(divergenceNames.output, divergenceOver(graph, context, weights, hidden, top));
  for (const { name, type, shape } of spec.outputs) graph.output(name, results.get(name) as Value, type, shape);
  return graph.model("dsa sequences", { architecture: config.modelType });
}

/** What every layer reads; positions come from the input `position_ids`. */
export function sequenceContext(
  graph: ModelGraph,
  shape: SequenceShape,
  settings: SequenceGraphSettings,
): SequenceContext {
  const every = graph.node("Range", [graph.int(0), graph.int(shape.length), graph.int(1)]);
  const angles = rotaryAngles(graph, every);
  return {
    config: graph.config,
    shape,
    settings,
    kernels: kernelsOf(settings.provider, settings.precision, settings),
    cos: graph.cast(angles.cos, settings.precision),
    sin: graph.cast(angles.sin, settings.precision),
    positions: "position_ids",
  };
}

/** What a layer leaves: hidden states `[rows, hidden_size]`, and the selection that the next ones may share. */
interface LayerOutput {
  hidden: Value;
  /** int32 `[rows, K]`; nothing where sequences are too short to select. */
  selected: Value | undefined;
}

/**
 * Layers `from` to `to - 1` over all rows, one after the other.
 * @param switched inputs choose which of them run, and which indexers; otherwise all do
 * @param entering what enters the first one; without a selection its own indexer always runs
 */
export function* layersOver(
  graph: ModelGraph,
  context: SequenceContext,
  weights: ModelWeights,
  { from, to, switched }: { from: number; to: number; switched: boolean },
  entering: LayerOutput,
): Generator<LayerOutput & { layer: number }> {
  let { hidden, selected } = entering;
  for (let layer = from; layer < to; layer++) {
    const parts = weights.layers[layer] as LayerWeights;
    const [input, before] = [hidden, selected];
    const enter = (inside: ModelGraph) => enterLayer(sequenceFrame(inside, context), parts, { residual: input });
    // Attention would hold h, which it reads before anything else, as long as its branch runs.
    const enterForBoth = (inside: ModelGraph) => {
      const own = enter(inside);
      return { ...own, latents: latents(inside, parts, own.h, sequenceFrame(inside, context).angles) };
    };
    const { indexer } = parts;
    let entered: LayerInput | undefined;
    if (indexer !== undefined && selectsKeys(context.config, context.shape)) {
      // Read by the indexer and by attention, in a branch each.
      const both =
        switched && before !== undefined
          ? enteredWhere(graph, runInput(layer), input, enterForBoth)
          : enterForBoth(graph);
      entered = both;
      const select = (inside: ModelGraph) => lightningIndexer(sequenceFrame(inside, context), indexer, both) as Value;
      selected =
        switched && before !== undefined ? graph.either(selectInput(layer), select, () => before) : select(graph);
    }
    const keys = selected;
    const run = (inside: ModelGraph) =>
      sumOf(inside, layerBody(sequenceFrame(inside, context), parts, entered ?? enter(inside), keys));
    // A branch for each layer, needed or not: ONNX Runtime plans branches one by one, in time that grows with their square.
    hidden = switched ? graph.either(runInput(layer), run, () => input) : run(graph);
    yield { layer, hidden, selected };
  }
}

/** What enters a layer where it runs; no rows of anything where it does not. */
function enteredWhere(
  graph: ModelGraph,
  runs: Value,
  residual: Value,
  enter: (inside: ModelGraph) => LayerInput & { latents: Latents },
): LayerInput {
  let shared = true;
  const values = graph.branch(
    runs,
    (inside) => {
      const { h, compressed, asked, latents } = enter(inside);
      shared = asked === compressed;
      return [h, compressed, latents.content, latents.pe, ...(shared ? [] : [asked])];
    },
    (inside, count) => Array.from({ length: count }, () => inside.slice(residual, 0, 0, 0)),
  );
  const [h, compressed, content, pe, asked] = values as [Value, Value, Value, Value, Value];
  return { residual, h, compressed, asked: shared ? compressed : asked, latents: { content, pe } };
}

/** Loss of every row, float `[rows]`. */
function lossOver(graph: ModelGraph, context: SequenceContext, weights: ModelWeights, hidden: Value): Value {
  const { kernels } = context;
  return overChunks(graph, context, ({ graph: chunk, rows }) => {
    const scores = chunk.cast(logits(chunk, weights, rows(hidden)), OnnxType.float);
    if (kernels.logSoftmax) return negativeLogLikelihood(chunk, scores, rows("target_ids"));
    const axis = chunk.int([-1]);
    const target = chunk.node("GatherElements", [scores, chunk.node("Unsqueeze", [rows("target_ids"), axis])], {
      axis: 1,
    });
    return chunk.node("Squeeze", [chunk.node("Sub", [logSumExp(chunk, scores), target]), axis]);
  });
}

/** Loss and KL divergence of every row, or the distributions of the model's own pattern (`divergence-graph.ts`). */
function divergenceOver(
  graph: ModelGraph,
  context: SequenceContext,
  weights: ModelWeights,
  hidden: Value,
  top: number,
): Value {
  const { kernels } = context;
  const { own, baseline } = divergenceNames;
  return overChunks(graph, context, ({ graph: chunk, rows }) => {
    const scores = chunk.cast(logits(chunk, weights, rows(hidden)), OnnxType.float);
    const logs = kernels.logSoftmax
      ? chunk.node("LogSoftmax", [scores], { axis: -1 })
      : chunk.node("Sub", [scores, logSumExp(chunk, scores)]);
    return divergence(chunk, logs, rows("target_ids"), rows(baseline), own, top);
  });
}

/** `[rows, 1]` */
function logSumExp(graph: ModelGraph, scores: Value): Value {
  const axis = graph.int([-1]);
  const largest = graph.node("ReduceMax", [scores, axis], { keepdims: 1 });
  const total = graph.node("ReduceSum", [graph.node("Exp", [graph.node("Sub", [scores, largest])]), axis]);
  return graph.node("Add", [graph.node("Log", [total]), largest]);
}
