/**
 * The model cut into stages, one graph each: embedding, every layer's indexer and body, language-model head and loss.
 * The runtime can then run any suffix of layers with any pattern, and a skipped indexer is a graph that is not run.
 */
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import type { IndexerWeights, LayerWeights, ModelWeights } from "../../checkpoint/weights.ts";
import { type GraphSpec, type StageName, stageSpecs } from "../exported/contract.ts";
import type { Value } from "../graph-builder.ts";
import { enterLayer, layerBody, lightningIndexer, sumOf } from "../layer/dsa-layer.ts";
import { rotaryAngles } from "../layer/rope.ts";
import { ModelGraph } from "../model-graph.ts";
import type { ModelProto } from "../onnx_pb.ts";
import { embedding, logits, negativeLogLikelihood } from "./head.ts";
import { chunkRows, pastFrame } from "./past-frame.ts";

/** Builds one stage. The graph reads its weights out of the checkpoint's own files. */
export function buildStage(config: DsaConfig, weights: ModelWeights, name: StageName): ModelProto {
  const spec = stageSpecs(config).get(name);
  if (spec === undefined) throw new RangeError(`no stage "${name}"`);
  const graph = new ModelGraph(config);
  const inputs = Object.fromEntries(spec.inputs.map(({ name, type, shape }) => [name, graph.input(name, type, shape)]));
  const outputs = stageBody(graph, weights, name, inputs);
  for (const [index, { name, type, shape }] of spec.outputs.entries()) {
    graph.output(name, outputs[index] as Value, type, shape);
  }
  return graph.model(name);
}

/** All stages of a model, in the order of the forward pass. */
export function stageNames(config: DsaConfig): StageName[] {
  return [...stageSpecs(config).keys()];
}

/** Outputs of a stage in the order of its spec. */
function stageBody(
  graph: ModelGraph,
  weights: ModelWeights,
  name: StageName,
  inputs: Record<keyof GraphSpec | string, Value>,
): Value[] {
  const input = (key: string): Value => inputs[key] as Value;
  if (name === "embed") {
    const { cos, sin } = rotaryAngles(graph, input("position_ids"));
    return [embedding(graph, weights, input("input_ids")), cos, sin];
  }
  if (name === "head") return [logits(graph, weights, input("hidden_states"))];
  if (name === "loss") {
    const scores = logits(graph, weights, input("hidden_states"));
    return [negativeLogLikelihood(graph, scores, input("target_ids"))];
  }
  const layer = weights.layers[Number(name.split(".")[1])] as LayerWeights;
  const past = { latent: inputs.past_latent, indexKey: inputs.past_indexer_key };
  const angles = { cos: input("cos"), sin: input("sin"), positions: input("position_ids") };
  const chunk = chunkRows(graph, angles, (past.latent ?? past.indexKey) as Value);
  const frame = pastFrame(graph, chunk, past);
  const entering = enterLayer(frame, layer, { residual: input("hidden_states") });
  if (name.endsWith(".indexer")) {
    const selected = lightningIndexer(frame, layer.indexer as IndexerWeights, entering);
    return [selected as Value, frame.fresh.indexKey as Value];
  }
  const next = layerBody(frame, layer, entering, input("topk_indices"));
  return [sumOf(graph, next), frame.fresh.latent as Value];
}
