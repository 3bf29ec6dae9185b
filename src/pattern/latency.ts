/**
 * What a pattern takes, predicted from the cost of a layer: indexers of one model are all of one shape, and so is the
 * attention, so a pattern's time depends on how many layers are Full and not on which.
 */
import { fullLayers, type Pattern } from "./pattern.ts";

/** Seconds of one forward call's parts, at one length of the context. */
export interface LayerCosts {
  /** What no pattern changes and no layer has: embedding and head. */
  otherSeconds: number;
  /** A Full layer, its indexer included. */
  fullLayerSeconds: number;
  /** A Shared layer. */
  sharedLayerSeconds: number;
}

/** Seconds that a pattern takes. */
export function predictLatency(pattern: Pattern, costs: LayerCosts): number {
  return latencyOf(fullLayers(pattern).length, pattern.length, costs);
}

/** How much faster a pattern is than every layer Full: the Amdahl limit that the indexers' share sets. */
export function predictSpeedup(pattern: Pattern, costs: LayerCosts): number {
  return latencyOf(pattern.length, pattern.length, costs) / predictLatency(pattern, costs);
}

/**
 * The most Full layers with which a model of `layers` layers is predicted to be `speedup` times as fast as with all of
 * them; undefined if not even one Full layer is.
 */
export function fullLayersForSpeedup(speedup: number, layers: number, costs: LayerCosts): number | undefined {
  const allowed = latencyOf(layers, layers, costs) / speedup;
  for (let full = layers; full >= 1; full--) if (latencyOf(full, layers, costs) <= allowed) return full;
  return undefined;
}

function latencyOf(full: number, layers: number, costs: LayerCosts): number {
  return costs.otherSeconds + full * costs.fullLayerSeconds + (layers - full) * costs.sharedLayerSeconds;
}
