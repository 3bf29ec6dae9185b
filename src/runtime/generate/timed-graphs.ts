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
  /** Open and time one graph after the other? Default: where the device's memory does not hold all of them. */
  inTurn?: boolean;
}

/**
 * A pattern by its place, or what it is compared with: `bare` has all layers, each of which reads the most recent keys; `full`
 * and `shared` are the first layer with its indexer and without, and `none` has no layer: embedding and head.
 */
export type GraphName = number | "bare" | "full" | "shared" | "none";

export interface TimedGraph {
  name: GraphName;
  model: ModelFolder;
  pattern: Pattern;
}

export type OpenGraphs = ReadonlyMap<GraphName, CachedDecoder>;

/**
 * The graphs in groups that are open together: in one, so that they take turns, or one by one where there is no room for that.
 * Those of one layer and of none are small and of no use apart.
 */
export async function graphGroups(
  model: ModelFolder,
  patterns: readonly Pattern[],
  settings: TimerSettings,
): Promise<TimedGraph[][]> {
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
  const inTurn = settings.inTurn ?? !(await holds([...large, ...small], settings));
  return inTurn ? [...large.map((graph) => [graph]), small] : [[...large, ...small]];
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

export async function openGraphs(graphs: readonly TimedGraph[], settings: DecoderSettings): Promise<OpenGraphs> {
  const open = new Map<GraphName, CachedDecoder>();
  for (const { name, model, pattern } of graphs) open.set(name, await openDecoder(model, pattern, settings));
  return open;
}

export async function releaseGraphs(graphs: OpenGraphs): Promise<void> {
  for (const graph of graphs.values()) await graph.release();
}

function firstLayers(model: ModelFolder, count: number): ModelFolder {
  const indexerLayers = model.config.indexerLayers.slice(0, count) as Pattern;
  const weights = async () => {
    const all = await model.weights();
    return { ...all, layers: all.layers.slice(0, count) };
  };
  return { ...model, config: { ...model.config, numHiddenLayers: count, indexerLayers }, weights };
}
