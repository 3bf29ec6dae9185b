/** The graphs that are timed against each other: those that the device generates with (`frame-choice.ts`). */
import type { Clock } from "../../base/clock.ts";
import { composeModel, composeWithoutIndexers } from "../../graph/frames/compose.ts";
import { precisionOf } from "../../graph/frames/generation-graph.ts";
import { kernelsOf, type Provider } from "../../graph/layer/kernels.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import { decodingFrame } from "../device/frame-choice.ts";
import type { Dtype } from "../measurement.ts";
import { providerOf } from "../session/execution-provider.ts";
import type { SessionSettings } from "../session/onnx-session.ts";
import { type Chunk, chunksOf } from "../stages/chunks.ts";
import { type AloneResult, IndexerAlone } from "../stages/indexer-alone.ts";
import type { SelectedKeys } from "../stages/stage-model.ts";
import { CachedGraph } from "./cached-graph.ts";
import { DeviceDecoder } from "./device-decoder.ts";
import { promptRuns } from "./generation-runs.ts";

export interface TimerSettings extends Omit<SessionSettings, "folder"> {
  /** Rows that the caches hold, on a CPU before they first grow. */
  capacity: number;
  clock: Clock;
  /** float16 on CUDA only. Default float32. */
  dtype?: Dtype;
  /** The provider whose generation graphs are timed, where it is not the device's: in tests. */
  provider?: Provider;
}

/** A graph with caches. */
interface Timed {
  /** Runs since it was opened. */
  readonly runs: number;
  /** Adds `count` rows to the caches without running anything. */
  fill(count: number, write: (rows: Float32Array) => void): void;
  rewind(position: number): void;
  release(): Promise<void>;
}

/** A graph of all layers. */
interface TimedGraph extends Timed {
  readonly position: number;
  /** @param options the selection of these rows, for a joined graph without indexers */
  forward(ids: readonly number[], options?: { given?: SelectedKeys | undefined }): Promise<unknown>;
}

/** What times one indexer by itself, and embedding and head; joined graphs without indexers take what it selects. */
interface TimedParts extends Timed {
  forward(ids: readonly number[], clock: Clock): Promise<Omit<AloneResult, "selected"> & { selected?: SelectedKeys }>;
}

export interface TimedGraphs {
  /** In the order of the patterns. */
  arms: TimedGraph[];
  withoutIndexers: TimedGraph;
  parts: TimedParts;
  /** How a prompt of so many tokens is cut. */
  chunks: (context: number) => Chunk[];
}

export function openTimedGraphs(
  model: ModelFolder,
  patterns: readonly Pattern[],
  settings: TimerSettings,
): Promise<TimedGraphs> {
  return decodingFrame(settings.device) === "generation" || settings.provider !== undefined
    ? openGenerationGraphs(model, patterns, settings)
    : openJoinedGraphs(model, patterns, settings);
}

async function openJoinedGraphs(
  model: ModelFolder,
  patterns: readonly Pattern[],
  { capacity, clock: _clock, dtype: _dtype, provider: _provider, ...rest }: TimerSettings,
): Promise<TimedGraphs> {
  const session = { ...rest, folder: model.places.folder, solo: true };
  const { config, stage } = model;
  const open = (graph: Uint8Array, name: string, indexers: readonly number[]) =>
    CachedGraph.open(config, graph, name, { indexers, capacity }, session);
  const arms: CachedGraph[] = [];
  for (const pattern of patterns) {
    arms.push(await open(await composeModel(config, pattern, stage), pattern, fullLayers(pattern)));
  }
  const withoutIndexers = await open(await composeWithoutIndexers(config, stage), "without indexers", []);
  const parts = await IndexerAlone.open(model, capacity, { ...rest, solo: true });
  return { arms, withoutIndexers, parts, chunks: (context) => chunksOf(config, 0, context) };
}

/**
 * A generation graph of each pattern, one that reads the most recent keys everywhere, and three of the first layers: what
 * one layer takes with its indexer and without, and what no layer takes.
 */
async function openGenerationGraphs(
  model: ModelFolder,
  patterns: readonly Pattern[],
  { device, threads, capacity, dtype = "float32", provider = providerOf(device) }: TimerSettings,
): Promise<TimedGraphs> {
  const { config } = model;
  const open = async (of: ModelFolder, pattern: string) =>
    new DeviceGraph(await DeviceDecoder.open(of, pattern as Pattern, { device, threads, dtype, capacity, provider }));
  const arms: DeviceGraph[] = [];
  for (const pattern of patterns) arms.push(await open(model, pattern));
  const withoutIndexers = await open(model, "S".repeat(config.numHiddenLayers));
  const one = firstLayers(model, 1);
  const parts = new DeviceParts(await open(one, "F"), await open(one, "S"), await open(firstLayers(model, 0), ""));
  const kernels = kernelsOf(provider, precisionOf(dtype));
  return { arms, withoutIndexers, parts, chunks: (context) => promptRuns(config, kernels, 0, context) };
}

function firstLayers(model: ModelFolder, count: number): ModelFolder {
  const config = { ...model.config, numHiddenLayers: count, indexerLayers: model.config.indexerLayers.slice(0, count) };
  const weights = async () => {
    const all = await model.weights();
    return { ...all, layers: all.layers.slice(0, count) };
  };
  return { ...model, config: { ...config, indexerLayers: config.indexerLayers as Pattern }, weights };
}

class DeviceGraph implements TimedGraph {
  readonly #decoder: DeviceDecoder;

  constructor(decoder: DeviceDecoder) {
    this.#decoder = decoder;
  }

  get position(): number {
    return this.#decoder.position;
  }

  get runs(): number {
    return this.#decoder.runs;
  }

  forward(ids: readonly number[]): Promise<unknown> {
    const [only] = ids;
    return ids.length === 1 && only !== undefined && this.position > 0
      ? this.#decoder.decode(only)
      : this.#decoder.prefill(ids);
  }

  fill(count: number): void {
    this.#decoder.skip(count);
  }

  rewind(position: number): void {
    this.#decoder.rewind(position);
  }

  release(): Promise<void> {
    return this.#decoder.release();
  }
}

class DeviceParts implements TimedParts {
  readonly #full: DeviceGraph;
  readonly #shared: DeviceGraph;
  readonly #none: DeviceGraph;

  constructor(full: DeviceGraph, shared: DeviceGraph, none: DeviceGraph) {
    this.#full = full;
    this.#shared = shared;
    this.#none = none;
  }

  get runs(): number {
    return this.#full.runs;
  }

  async forward(ids: readonly number[], clock: Clock): Promise<{ indexer: number; other: number }> {
    const timed = async (graph: DeviceGraph): Promise<number> => {
      const begun = clock();
      await graph.forward(ids);
      return clock() - begun;
    };
    const [full, shared, other] = [await timed(this.#full), await timed(this.#shared), await timed(this.#none)];
    return { indexer: Math.max(full - shared, 0), other };
  }

  fill(count: number): void {
    for (const graph of this.#all()) graph.fill(count);
  }

  rewind(position: number): void {
    for (const graph of this.#all()) graph.rewind(position);
  }

  async release(): Promise<void> {
    for (const graph of this.#all()) await graph.release();
  }

  #all(): DeviceGraph[] {
    return [this.#full, this.#shared, this.#none];
  }
}
