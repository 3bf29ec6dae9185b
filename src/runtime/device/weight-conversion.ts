/** Whether the weights of a GPU's graph are converted when it is loaded, or in every run. */
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import {
  elementCount,
  elementsOf,
  isRouted,
  listWeights,
  type ModelWeights,
  storedBytes,
  weightsIn,
} from "../../checkpoint/weights.ts";
import { readsAsStored } from "../../graph/layer/experts.ts";
import type { Dtype } from "../measurement.ts";
import { availableMemory } from "./host-memory.ts";

/**
 * Bytes of host memory for each byte of weights, where those are converted before the first run (measured with A.X-K2-Light,
 * whose experts are stacked as well).
 */
const convertingShare = 4.5;

/**
 * More bytes than these stay as they are stored: ONNX Runtime converts 50 million elements a second on the host, in one
 * thread, a GPU as many bytes in a few milliseconds of each run. Where a run has thousands of rows that is nothing. A decoded
 * token takes up to three times as long with it, so that a decoder waits some two minutes before it does without.
 */
export const convertedAhead = { losses: 3 * 2 ** 30, decoding: 12 * 2 ** 30 };

/**
 * Bytes of a tensor that is converted ahead all the same: norms, biases and small matrices are most of the tensors and few of
 * the elements (A.X-K2-Light: 34 of the 78 casts of three layers, 0.5 million elements), and each of them costs a launch of some
 * 8 us in every run.
 */
const smallBytes = 2 ** 18;

/** Copies of a layer's experts at one time, where every run puts them together: as they are stored, and converted. */
const togetherCopies = 1.5;

/** How a graph's weights come to the device, in bytes. */
export interface WeightConversion {
  /** Are they there as they are stored, and all but small ones converted in every run? */
  inRuns: boolean;
  /** Bytes of a tensor up to which it is converted ahead; undefined where all are. */
  foldsUpTo?: number;
  /** On the device from the first run to the last. */
  device: number;
  /** On the device while a run is under way: weights that are converted, and one layer's experts. */
  run: number;
}

/**
 * @param most bytes that are converted before the first run, of those in `convertedAhead`
 * @param host bytes of host memory. Default: what is free
 */
export function weightConversion(
  config: DsaConfig,
  weights: ModelWeights,
  dtype: Dtype,
  most: number,
  host: number = availableMemory(),
): WeightConversion {
  const size = dtype === "float16" ? 2 : 4;
  const elements = elementsOf(weights, config.indexerLayers);
  const inRuns = size * elements > most || convertingShare * size * elements > host;
  if (!inRuns) return { inRuns, device: size * elements, run: 0 };
  const layers = weights.layers.flatMap(({ mlp }) => (isRouted(mlp) && readsAsStored(mlp) ? [mlp.experts] : []));
  const experts = layers.map((each) => elementCount(weightsIn(each)));
  const together = togetherCopies * size * Math.max(0, ...experts);
  const others = size * (elements - experts.reduce((total, count) => total + count, 0));
  const foldsUpTo = Math.min(smallBytes, host);
  return { inRuns, foldsUpTo, device: storedBytes(listWeights(weights)), run: others + together };
}

/** A line of the plan, where there is something to say. */
export function conversionLines({ inRuns }: WeightConversion): string[] {
  return inRuns ? ["weights are on the device as they are stored, and are converted in every run"] : [];
}
