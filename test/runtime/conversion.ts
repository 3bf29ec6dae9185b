import { elementsOf, isRouted } from "../../src/checkpoint/weights.ts";
import type { ModelFolder } from "../../src/graph/model-folder.ts";
import { convertingShare } from "../../src/runtime/device/weight-conversion.ts";

/** Bytes of host memory in which everything but experts is converted to float32 before the first run, and no more. */
export async function bytesToConvertBesideExperts(model: ModelFolder): Promise<number> {
  const weights = await model.weights();
  const layers = weights.layers.map((layer) =>
    isRouted(layer.mlp) ? { ...layer, mlp: { ...layer.mlp, experts: [] } } : layer,
  );
  return convertingShare * 4 * elementsOf({ ...weights, layers }, model.config.indexerLayers);
}
