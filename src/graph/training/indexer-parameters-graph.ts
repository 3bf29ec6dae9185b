/** Reads indexers out of a checkpoint in float32, whatever they are stored as: outputs are the tensors, by layer and name. */

import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import type { ModelWeights } from "../../checkpoint/weights.ts";
import { indexerTensors } from "../layer/lightning-indexer.ts";
import { ModelGraph } from "../model-graph.ts";
import type { ModelProto } from "../onnx_pb.ts";
import { indexerOf, parameterName } from "./distill-graph.ts";

export function buildIndexerParametersGraph(
  config: DsaConfig,
  weights: ModelWeights,
  layers: readonly number[],
): ModelProto {
  const graph = new ModelGraph(config);
  for (const layer of layers) {
    const indexer = indexerOf(weights, layer);
    for (const tensor of indexerTensors) {
      const weight = indexer[tensor];
      graph.output(parameterName(layer, tensor), graph.weight(weight), OnnxType.float, [...weight.shape]);
    }
  }
  return graph.model("dsa indexers", { architecture: config.modelType });
}
