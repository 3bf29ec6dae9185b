/** What each layer takes: in the files, and in memory once ONNX Runtime has it. */
import {
  elementCount,
  isRouted,
  type LayerWeights,
  type ModelWeights,
  storedBytes,
  weightsIn,
} from "../../checkpoint/weights.ts";

/** Bytes. */
export interface PartSize {
  /** In the weight files, in the dtype that they have there. */
  stored: number;
  /** Once loaded on a CPU. */
  loaded: number;
}

/** The parts of a model that are loaded and released as one. */
export interface ModelSizes {
  embedding: PartSize;
  /** By layer: its indexer and everything else. */
  indexers: PartSize[];
  bodies: PartSize[];
  head: PartSize;
}

/** Float32, whatever is stored: ONNX Runtime folds the casts. */
const perElement = 4;
/**
 * Experts stand in branches of their graph, where ONNX Runtime keeps the transposed weight beside its packed form: measured
 * 455 MiB for 226 MiB of float32 (docs/search.md).
 */
const perExpertElement = 8;

export function modelSizes({ embedding, finalNorm, lmHead, layers }: ModelWeights): ModelSizes {
  return {
    // Rows are looked up in the table as it is stored.
    embedding: { stored: storedBytes([embedding]), loaded: storedBytes([embedding]) },
    indexers: layers.map(indexerSize),
    bodies: layers.map(bodySize),
    head: { stored: storedBytes([finalNorm, lmHead]), loaded: perElement * elementCount([finalNorm, lmHead]) },
  };
}

/** The indexer reads the query latent, which the body computes as well. */
function indexerSize({ indexer, inputNorm, qA, qABias, qANorm }: LayerWeights): PartSize {
  if (indexer === undefined) return { stored: 0, loaded: 0 };
  const held = weightsIn([indexer, inputNorm, qA, qABias, qANorm]);
  return { stored: storedBytes(held), loaded: perElement * elementCount(held) };
}

function bodySize({ indexer: _, ...layer }: LayerWeights): PartSize {
  const held = weightsIn(layer);
  const experts = isRouted(layer.mlp) ? weightsIn(layer.mlp.experts) : [];
  return {
    stored: storedBytes(held),
    loaded: perElement * elementCount(held) + (perExpertElement - perElement) * elementCount(experts),
  };
}
