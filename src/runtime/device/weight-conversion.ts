/** Which weights of a graph for a GPU are converted when it is loaded, and which in every run. */
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { elementsOf, isRouted, type ModelWeights, weightsIn } from "../../checkpoint/weights.ts";
import { readsAsStored } from "../../graph/layer/experts.ts";
import type { WeightsInRuns } from "../../graph/layer/kernels.ts";
import type { Dtype } from "../measurement.ts";
import { availableMemory } from "./host-memory.ts";

/**
 * Bytes of host memory for each byte of weights, where those are converted before the first run (measured with A.X-K2-Light,
 * whose experts are stacked as well).
 */
export const convertingShare = 4.5;

/** Copies of a layer's experts at one time, where every run puts them together: as they are stored, and converted. */
const togetherCopies = 1.5;

/** How a graph's weights come to the device, in bytes. */
export interface WeightConversion {
  /** Which are converted in every run; where absent, none are. */
  inRuns?: WeightsInRuns;
  /** On the device from the first run to the last. */
  device: number;
  /** What one layer's experts take on the device while it runs. */
  together: number;
  /** On the host while the graph is loaded. */
  host: number;
}

/**
 * As much is converted beforehand as the host has memory for: everything, everything but the experts, or nothing.
 * @param host bytes. Default: what is free
 */
export function weightConversion(
  config: DsaConfig,
  weights: ModelWeights,
  dtype: Dtype,
  host: number = availableMemory(),
): WeightConversion {
  const size = dtype === "float16" ? 2 : 4;
  const all = size * elementsOf(weights, config.indexerLayers);
  if (convertingShare * all <= host) return { device: all, together: 0, host: convertingShare * all };
  const routed = weights.layers.flatMap(({ mlp }) => (isRouted(mlp) ? [mlp] : []));
  const experts = routed.map((mlp) => weightsIn(mlp.experts));
  const elements = experts.map((held) => held.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0));
  const together = togetherCopies * size * Math.max(0, ...elements);
  const stored = experts.flat().reduce((sum, { length }) => sum + length, 0);
  const rest = all - size * elements.reduce((sum, count) => sum + count, 0);
  const apart = routed.length > 0 && routed.every(readsAsStored) && convertingShare * rest <= host;
  return apart
    ? { inRuns: "experts", device: stored + rest, together, host: convertingShare * rest }
    : { inRuns: "all", device: all, together, host: 0 };
}

/** A line of the plan, where there is something to say. */
export function conversionLines({ inRuns }: WeightConversion): string[] {
  const why = `converted in every run: ${convertingShare} times the size of all weights is more than the host has`;
  if (inRuns === undefined) return [];
  return [inRuns === "experts" ? `experts are ${why}` : `weights are ${why}`];
}
