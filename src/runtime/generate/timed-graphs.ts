/** The graphs that are timed against each other: those that the device generates with. */
import type { Clock } from "../../base/clock.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { deviceMemory } from "../loss/sequence-memory.ts";
import type { CachedDecoder } from "./cached-decoder.ts";
import { type DecoderSettings, decoderNeed, openDecoder } from "./decoder.ts";
import { totalNeed } from "./generation-runs.ts";

export interface TimerSettings extends DecoderSettings {
  clock: Clock;
  /** Do all patterns share one graph? Default: where the device's memory does not hold one of each. */
  oneGraph?: boolean;
}

/**
 * A pattern by its place, or what it is compared with: `bare` has all layers, each of which reads the most recent keys; `full`
 * and `shared` are the first layer with its indexer and without, and `none` has no layer: embedding and head.
 */
export type GraphName = number | "bare" | "full" | "shared" | "none";

interface TimedGraph {
  name: GraphName;
  model: ModelFolder;
  pattern: Pattern;
}

/** What is timed under a name: a decoder, which several names may share, and the pattern that it follows. */
export interface TimedPattern {
  decoder: CachedDecoder;
  pattern: Pattern;
}

export interface OpenGraphs {
  timed: ReadonlyMap<GraphName, TimedPattern>;
  /** Do all patterns share a graph, whose runs leave out the indexers that a pattern does not have? */
  oneGraph: boolean;
}

/** All graphs side by side, so that they take turns. */
export async function openGraphs(
  model: ModelFolder,
  patterns: readonly Pattern[],
  settings: TimerSettings,
): Promise<OpenGraphs> {
  const one = firstLayers(model, 1);
  const large: TimedGraph[] = [
    ...patterns.map((pattern, name) => ({ name, model, pattern })),
    { name: "bare", model, pattern: "S".repeat(model.config.numHiddenLayers) as Pattern },
  ];
  const small: TimedGraph[] = [
    { name: "full", model: one, pattern: "F" as Pattern },
    { name: "shared", model: one, pattern: "S" as Pattern },
    { name: "none", model: firstLayers(model, 0), pattern: "" as Pattern },
  ];
  const oneGraph = settings.oneGraph ?? !(await holds([...large, ...small], settings));
  const timed = new Map<GraphName, TimedPattern>();
  if (oneGraph) {
    const [first, ...others] = large.map(({ pattern }) => pattern) as [Pattern, ...Pattern[]];
    const decoder = await openDecoder(model, first, { ...settings, others });
    for (const { name, pattern } of large) timed.set(name, { decoder, pattern });
  }
  for (const { name, model, pattern } of oneGraph ? small : [...large, ...small]) {
    timed.set(name, { decoder: await openDecoder(model, pattern, settings), pattern });
  }
  return { timed, oneGraph };
}

/** Share of the free memory that plans may add up to: allocators take more than a plan says. */
const plannedShare = 0.8;

/** Does the device's memory hold all graphs at once? On a CPU the command has looked. */
async function holds(graphs: readonly TimedGraph[], settings: DecoderSettings): Promise<boolean> {
  const memory = await deviceMemory(settings.device);
  if (memory === undefined) return true;
  const needs = await Promise.all(graphs.map(({ model, pattern }) => decoderNeed(model, pattern, settings)));
  return needs.reduce((sum, need) => sum + (need === undefined ? 0 : totalNeed(need)), 0) <= plannedShare * memory.free;
}

function firstLayers(model: ModelFolder, count: number): ModelFolder {
  const indexerLayers = model.config.indexerLayers.slice(0, count) as Pattern;
  const weights = async () => {
    const all = await model.weights();
    return { ...all, layers: all.layers.slice(0, count) };
  };
  return { ...model, config: { ...model.config, numHiddenLayers: count, indexerLayers }, weights };
}
