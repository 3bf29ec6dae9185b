/**
 * `model.onnx`: the whole model in one graph with a bypass switch for each indexer, for any ONNX Runtime host. A
 * bypassed layer still writes its indexer keys, so that the cache has no holes when the switch changes.
 */
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import type { ModelWeights } from "../../checkpoint/weights.ts";
import {
  bypassInput,
  fullModelSpec,
  hiddenStates,
  newIndexerKey,
  newLatent,
  pastIndexerKey,
  pastLatent,
  topkIndices,
} from "../exported/contract.ts";
import { GraphBuilder, type Value } from "../graph-builder.ts";
import { enterLayer, type LayerFrame, layerBody, lightningIndexer, type Queries, sumOf } from "../layer/dsa-layer.ts";
import { rotaryAngles } from "../layer/rope.ts";
import type { ModelProto } from "../onnx_pb.ts";
import { embedding, logits } from "./head.ts";
import { pastFrame } from "./past-frame.ts";

export function buildFullModel(config: DsaConfig, weights: ModelWeights): ModelProto {
  const graph = new GraphBuilder();
  const spec = fullModelSpec(config);
  for (const { name, type, shape } of spec.inputs) graph.input(name, type, shape);
  const results = new Map<string, Value>();
  const chunk = { ...rotaryAngles(graph, config, "position_ids"), positions: "position_ids" };
  let hidden = graph.node("Identity", [embedding(graph, weights, "input_ids")], {}, hiddenStates(0));
  let selected: Value | undefined;
  for (const [index, layer] of weights.layers.entries()) {
    const past = { latent: pastLatent(index), indexKey: pastIndexerKey(index) };
    const frame = pastFrame(graph, config, chunk, past);
    const entering = enterLayer(frame, layer, { residual: hidden });
    if (layer.indexer !== undefined) {
      const own = selected === undefined ? frame : switched(frame, bypassInput(index), selected);
      const chosen = lightningIndexer(own, layer.indexer, entering) as Value;
      selected = graph.node("Identity", [chosen], {}, topkIndices(index));
      results.set(newIndexerKey(index), frame.fresh.indexKey as Value);
    }
    const next = sumOf(graph, layerBody(frame, layer, entering, selected));
    results.set(newLatent(index), frame.fresh.latent as Value);
    hidden = graph.node("Identity", [next], {}, hiddenStates(index + 1));
  }
  const start = graph.node("Sub", [graph.dimension(hidden, 0), "logits_to_keep"]);
  const end = graph.int([Number.MAX_SAFE_INTEGER]);
  const kept = graph.node("Slice", [hidden, start, end, graph.int([0])]);
  results.set("logits", logits(graph, config, weights, kept));
  for (const { name, type, shape } of spec.outputs) graph.output(name, results.get(name) as Value, type, shape);
  return graph.model("dsa", { architecture: config.modelType });
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
