/** The indexers of a checkpoint in float32. */

import { encodeModel } from "../../graph/graph-builder.ts";
import { indexerTensors } from "../../graph/layer/lightning-indexer.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { parameterName } from "../../graph/training/distill-graph.ts";
import { buildIndexerParametersGraph } from "../../graph/training/indexer-parameters-graph.ts";
import { floats, OnnxSession } from "../session/onnx-session.ts";
import type { IndexerParameters } from "./gradient-session.ts";

/** Copies of the tensors, by layer. */
export async function readIndexers(
  model: ModelFolder,
  layers: readonly number[],
): Promise<Map<number, IndexerParameters>> {
  const graph = buildIndexerParametersGraph(model.config, await model.weights(), layers);
  const session = await OnnxSession.create(encodeModel(graph), "indexers", {
    device: "cpu",
    threads: 1,
    folder: model.places.folder,
  });
  try {
    const outputs = await session.run({});
    return new Map(
      layers.map((layer) => {
        const read = indexerTensors.map((tensor) => {
          const name = parameterName(layer, tensor);
          return [tensor, Float32Array.from(floats(outputs[name], name))];
        });
        return [layer, Object.fromEntries(read) as IndexerParameters];
      }),
    );
  } finally {
    await session.release();
  }
}
