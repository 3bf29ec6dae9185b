/**
 * `model.onnx`: the whole model in one graph with a bypass switch for each indexer, for any ONNX Runtime host. A
 * bypassed layer still writes its indexer keys, so that the cache has no holes when the switch changes.
 */
import type { DsaConfig } from "../checkpoint/config/model-config.ts";
import type { ModelWeights } from "../checkpoint/weights.ts";
import {
  bypassInput,
  fullModelSpec,
  hiddenStates,
  newIndexerKey,
  newLatent,
  pastIndexerKey,
  pastLatent,
  topkIndices,
} from "./exported/contract.ts";
import { GraphBuilder, type Value } from "./graph-builder.ts";
import { indexerKeys, selectKeys } from "./indexer-graph.ts";
import type { ModelProto } from "./onnx_pb.ts";
import { rotaryAngles } from "./rope-graph.ts";
import { embedding, layerBody, logits } from "./stages.ts";

export function buildFullModel(config: DsaConfig, weights: ModelWeights): ModelProto {
  const graph = new GraphBuilder();
  const spec = fullModelSpec(config);
  for (const { name, type, shape } of spec.inputs) graph.input(name, type, shape);
  const results = new Map<string, Value>();
  const chunk = { ...rotaryAngles(graph, config, "position_ids"), positions: "position_ids" };
  let hidden = graph.node("Identity", [embedding(graph, weights, "input_ids")], {}, hiddenStates(0));
  let selected: Value | undefined;
  for (const [layer, parts] of weights.layers.entries()) {
    const h = graph.rmsNorm(hidden, parts.inputNorm, config.rmsNormEps);
    if (parts.indexer !== undefined) {
      const { indexer } = parts;
      const fresh = indexerKeys(graph, config, indexer, h, chunk);
      results.set(newIndexerKey(layer), fresh);
      const keys = { past: pastIndexerKey(layer), fresh };
      const select = (inside: GraphBuilder) => selectKeys(inside, config, parts, indexer, h, keys, chunk);
      const previous = selected;
      const chosen: Value | undefined =
        previous === undefined
          ? select(graph)
          : graph.branch(
              bypassInput(layer),
              1,
              () => [previous],
              (run) => [select(run)],
            )[0];
      selected = graph.node("Identity", [chosen as Value], {}, topkIndices(layer));
    }
    const [next, latent] = layerBody(graph, config, parts, hidden, h, selected as Value, pastLatent(layer), chunk);
    results.set(newLatent(layer), latent);
    hidden = graph.node("Identity", [next], {}, hiddenStates(layer + 1));
  }
  const start = graph.node("Sub", [graph.dimension(hidden, 0), "logits_to_keep"]);
  const end = graph.int([Number.MAX_SAFE_INTEGER]);
  const kept = graph.node("Slice", [hidden, start, end, graph.int([0])]);
  results.set("logits", logits(graph, config, weights, kept));
  for (const { name, type, shape } of spec.outputs) graph.output(name, results.get(name) as Value, type, shape);
  return graph.model("dsa", { architecture: config.modelType });
}
