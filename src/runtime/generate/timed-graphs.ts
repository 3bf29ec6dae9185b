/** The graphs that are timed against each other: those that the device generates with. */
import type { Clock } from "../../base/clock.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import type { CachedDecoder } from "./cached-decoder.ts";
import { type DecoderSettings, openDecoder } from "./decoder.ts";

export interface TimerSettings extends DecoderSettings {
  clock: Clock;
}

export interface TimedGraphs {
  /** In the order of the patterns. */
  arms: CachedDecoder[];
  /** All layers, each of which reads the most recent keys. */
  withoutIndexers: CachedDecoder;
  /** The first layer with its indexer and without, and no layer: embedding and head. */
  full: CachedDecoder;
  shared: CachedDecoder;
  none: CachedDecoder;
}

export async function openTimedGraphs(
  model: ModelFolder,
  patterns: readonly Pattern[],
  settings: DecoderSettings,
): Promise<TimedGraphs> {
  const open = (of: ModelFolder, pattern: string) => openDecoder(of, pattern as Pattern, settings);
  const arms: CachedDecoder[] = [];
  for (const pattern of patterns) arms.push(await open(model, pattern));
  const one = firstLayers(model, 1);
  return {
    arms,
    withoutIndexers: await open(model, "S".repeat(model.config.numHiddenLayers)),
    full: await open(one, "F"),
    shared: await open(one, "S"),
    none: await open(firstLayers(model, 0), ""),
  };
}

function firstLayers(model: ModelFolder, count: number): ModelFolder {
  const indexerLayers = model.config.indexerLayers.slice(0, count) as Pattern;
  const weights = async () => {
    const all = await model.weights();
    return { ...all, layers: all.layers.slice(0, count) };
  };
  return { ...model, config: { ...model.config, numHiddenLayers: count, indexerLayers }, weights };
}
