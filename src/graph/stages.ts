/**
 * The model cut into stages, one graph each: embedding, every layer's indexer and body, language-model head and loss.
 * The runtime can then run any suffix of layers with any pattern, and a skipped indexer is a graph that is not run.
 */

import type { DsaConfig } from "../checkpoint/config/model-config.ts";
import { OnnxType } from "../checkpoint/dtype.ts";
import type { IndexerWeights, LayerWeights, ModelWeights } from "../checkpoint/weights.ts";
import { attention } from "./attention-graph.ts";
import { type GraphSpec, type StageName, stageSpecs } from "./exported/contract.ts";
import { GraphBuilder, type Value } from "./graph-builder.ts";
import { type ChunkInputs, indexerKeys, selectKeys } from "./indexer-graph.ts";
import { feedForward } from "./mlp-graph.ts";
import type { ModelProto } from "./onnx_pb.ts";
import { rotaryAngles } from "./rope-graph.ts";

/** Builds one stage. The graph reads its weights out of the checkpoint's own files. */
export function buildStage(config: DsaConfig, weights: ModelWeights, name: StageName): ModelProto {
  const spec = stageSpecs(config).get(name);
  if (spec === undefined) throw new RangeError(`no stage "${name}"`);
  const graph = new GraphBuilder();
  const inputs = Object.fromEntries(spec.inputs.map(({ name, type, shape }) => [name, graph.input(name, type, shape)]));
  const outputs = stageBody(graph, config, weights, name, inputs);
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
  graph: GraphBuilder,
  config: DsaConfig,
  weights: ModelWeights,
  name: StageName,
  inputs: Record<keyof GraphSpec | string, Value>,
): Value[] {
  const input = (key: string): Value => inputs[key] as Value;
  if (name === "embed") {
    const { cos, sin } = rotaryAngles(graph, config, input("position_ids"));
    return [embedding(graph, weights, input("input_ids")), cos, sin];
  }
  if (name === "head") return [logits(graph, config, weights, input("hidden_states"))];
  if (name === "loss") {
    const scores = logits(graph, config, weights, input("hidden_states"));
    return [negativeLogLikelihood(graph, scores, input("target_ids"))];
  }
  const layer = weights.layers[Number(name.split(".")[1])] as LayerWeights;
  const chunk: ChunkInputs = { cos: input("cos"), sin: input("sin"), positions: input("position_ids") };
  const h = graph.rmsNorm(input("hidden_states"), layer.inputNorm, config.rmsNormEps);
  if (name.endsWith(".indexer")) {
    const indexer = layer.indexer as IndexerWeights;
    const fresh = indexerKeys(graph, config, indexer, h, chunk);
    const keys = { past: input("past_indexer_key"), fresh };
    return [selectKeys(graph, config, layer, indexer, h, keys, chunk), fresh];
  }
  const selected = input("topk_indices");
  return layerBody(graph, config, layer, input("hidden_states"), h, selected, input("past_latent"), chunk);
}

/** Attention and feed-forward with their residuals: the next hidden states and the new latent rows. */
export function layerBody(
  graph: GraphBuilder,
  config: DsaConfig,
  layer: LayerWeights,
  hidden: Value,
  h: Value,
  selected: Value,
  pastLatent: Value,
  chunk: ChunkInputs,
): [hidden: Value, latent: Value] {
  const attended = attention(graph, config, layer, h, selected, pastLatent, chunk);
  const middle = graph.node("Add", [hidden, attended.output]);
  const normed = graph.rmsNorm(middle, layer.postAttentionNorm, config.rmsNormEps);
  return [graph.node("Add", [middle, feedForward(graph, config, layer, normed)]), attended.latent];
}

/** Rows of the embedding table, cast after the lookup: the table stays in its stored dtype. */
export function embedding(graph: GraphBuilder, weights: ModelWeights, ids: Value): Value {
  const rows = graph.node("Gather", [graph.stored(weights.embedding), ids], { axis: 0 });
  return weights.embedding.dtype === "F32" ? rows : graph.cast(rows, OnnxType.float);
}

export function logits(graph: GraphBuilder, config: DsaConfig, weights: ModelWeights, hidden: Value): Value {
  return graph.linear(graph.rmsNorm(hidden, weights.finalNorm, config.rmsNormEps), weights.lmHead);
}

/** -log p(target) of each row, `[S]`. */
export function negativeLogLikelihood(graph: GraphBuilder, scores: Value, targets: Value): Value {
  return targetLoss(graph, graph.node("LogSoftmax", [scores], { axis: -1 }), targets);
}

/** The same from log-probabilities `[S, vocab]`. */
export function targetLoss(graph: GraphBuilder, logProbabilities: Value, targets: Value): Value {
  const column = graph.node("Unsqueeze", [targets, graph.int([1])]);
  const chosen = graph.node("GatherElements", [logProbabilities, column], { axis: 1 });
  return graph.node("Squeeze", [graph.node("Neg", [chosen]), graph.int([1])]);
}
