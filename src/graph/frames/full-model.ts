/**
 * The whole model in one graph over caches that grow. `model.onnx`, for any ONNX Runtime host, has a bypass switch for each
 * indexer: a bypassed layer still writes its indexer keys, so that the cache has no holes when the switch changes. A graph
 * of one pattern, for the decoder of a CPU, has neither weights nor keys of the indexers that the pattern leaves out.
 */
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import type { ModelWeights } from "../../checkpoint/weights.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import {
  bypassInput,
  bypassPrefix,
  fullModelSpec,
  type GraphSpec,
  hiddenStates,
  type LayerRange,
  newIndexerKey,
  newLatent,
  pastIndexerKey,
  pastLatent,
  type TensorSpec,
  topkIndices,
} from "../exported/contract.ts";
import type { Value } from "../graph-builder.ts";
import { mostRecent } from "../layer/attention-kernels.ts";
import { enterLayer, type LayerFrame, layerBody, lightningIndexer, type Queries, sumOf } from "../layer/dsa-layer.ts";
import { rotaryAngles } from "../layer/rope.ts";
import { ModelGraph } from "../model-graph.ts";
import type { ModelProto } from "../onnx_pb.ts";
import { embedding, logits } from "./head.ts";
import { type ChunkRows, chunkRows, pastFrame } from "./past-frame.ts";

/**
 * Inputs and outputs of a pattern's graph: those of `model.onnx` without bypass and without keys of Shared layers. Between
 * ranges of layers hidden states are handed on, and the selection that Shared layers continue with.
 */
function patternSpec(config: DsaConfig, pattern: Pattern, { from, to }: LayerRange): GraphSpec {
  const unused = new Set([
    ...[...pattern].flatMap((letter, layer) => {
      const outside = layer < from || layer >= to;
      return [
        ...(outside ? [pastLatent(layer), newLatent(layer)] : []),
        ...(outside || letter === "S" ? [pastIndexerKey(layer), newIndexerKey(layer)] : []),
      ];
    }),
    ...(from > 0 ? ["input_ids"] : []),
    ...(to < pattern.length ? ["logits", "logits_to_keep"] : []),
  ]);
  const { inputs, outputs } = fullModelSpec(config);
  const passed = new Set(passedOn(config, pattern, { from, to }));
  const keep = ({ name }: { name: string }) => !unused.has(name) && !name.startsWith(bypassPrefix);
  return {
    inputs: [...(from > 0 ? boundarySpec(config, pattern, from) : []), ...inputs.filter(keep)],
    outputs: [
      ...outputs.filter(keep),
      ...(to < pattern.length ? boundarySpec(config, pattern, to).filter(({ name }) => !passed.has(name)) : []),
    ],
  };
}

/** What a range takes that the range after it takes as well: a selection from before both. */
export function passedOn(config: DsaConfig, pattern: Pattern, { from, to }: LayerRange): string[] {
  if (from === 0 || to === pattern.length) return [];
  const after = new Set(boundarySpec(config, pattern, to).map(({ name }) => name));
  return boundarySpec(config, pattern, from).flatMap(({ name }) => (after.has(name) ? [name] : []));
}

/** What the range of layers from `layer` on takes from the range before it. */
function boundarySpec(config: DsaConfig, pattern: Pattern, layer: number): TensorSpec[] {
  const rows = "sequence_length";
  const hidden = { name: hiddenStates(layer), type: OnnxType.float, shape: [rows, config.hiddenSize] };
  const source = pattern.lastIndexOf("F", layer);
  if (pattern[layer] === "F" || source === -1) return [hidden];
  return [hidden, { name: topkIndices(source), type: OnnxType.int32, shape: [rows, "selected_keys"] }];
}

/**
 * @param pattern whose indexers are in the graph; with switches for all of them if absent
 * @param range of a pattern's layers; all if absent
 * @param keys how many there will be (`chunkRows`)
 */
export function buildFullModel(
  config: DsaConfig,
  weights: ModelWeights,
  pattern?: Pattern,
  range: LayerRange = { from: 0, to: config.numHiddenLayers },
  keys?: number,
): ModelProto {
  const graph = new ModelGraph(config);
  const { from, to } = range;
  const spec = pattern === undefined ? fullModelSpec(config) : patternSpec(config, pattern, range);
  for (const { name, type, shape } of spec.inputs) graph.input(name, type, shape);
  const results = new Map<string, Value>();
  const inputs = { ...rotaryAngles(graph, "position_ids"), positions: "position_ids" };
  const recent = (chunk: ChunkRows) => {
    const rows = graph.node("Unsqueeze", ["position_ids", graph.int([1])]);
    const count = graph.node("Squeeze", [chunk.selected]);
    return graph.cast(mostRecent(graph, rows, count), OnnxType.int32);
  };
  // A graph without layers, which `bench` times, has no cache.
  let chunk: ChunkRows | undefined;
  let hidden: Value =
    from > 0
      ? hiddenStates(from)
      : graph.node("Identity", [embedding(graph, weights, "input_ids")], {}, hiddenStates(0));
  let selected = spec.inputs.find(({ name }) => name.startsWith("topk_indices."))?.name;
  for (const [index, layer] of [...weights.layers.entries()].slice(from, to)) {
    const past = { latent: pastLatent(index), indexKey: pastIndexerKey(index) };
    chunk ??= chunkRows(graph, inputs, past.latent, keys);
    const frame = pastFrame(graph, chunk, past);
    const entering = enterLayer(frame, layer, { residual: hidden });
    if (layer.indexer !== undefined && pattern?.[index] !== "S") {
      const own =
        selected === undefined || pattern !== undefined ? frame : switched(frame, bypassInput(index), selected);
      const chosen = lightningIndexer(own, layer.indexer, entering) as Value;
      selected = graph.node("Identity", [chosen], {}, topkIndices(index));
      results.set(newIndexerKey(index), frame.fresh.indexKey as Value);
    }
    selected ??= recent(chunk);
    const next = sumOf(graph, layerBody(frame, layer, entering, selected));
    results.set(newLatent(index), frame.fresh.latent as Value);
    hidden = graph.node("Identity", [next], {}, hiddenStates(index + 1));
  }
  if (to === config.numHiddenLayers) {
    const start = graph.node("Sub", [graph.dimension(hidden, 0), "logits_to_keep"]);
    const end = graph.int([Number.MAX_SAFE_INTEGER]);
    const kept = graph.node("Slice", [hidden, start, end, graph.int([0])]);
    results.set("logits", logits(graph, weights, kept));
  }
  // What is handed on has the name of its value.
  for (const { name, type, shape } of spec.outputs) graph.output(name, results.get(name) ?? name, type, shape);
  return graph.model(pattern === undefined ? "dsa" : `dsa ${pattern}`, { architecture: config.modelType });
}

/** The frame with queries that only run where the switch is false; `bypassed` takes the place of what they make. */
function switched(frame: LayerFrame<Queries>, bypass: string, bypassed: Value): LayerFrame<Queries> {
  const overQueries: LayerFrame<Queries>["overQueries"] = (body) =>
    frame.overQueries((queries) =>
      queries.graph.either(
        bypass,
        () => bypassed,
        (run) => body({ ...queries, graph: run }),
      ),
    );
  return { ...frame, overQueries };
}
