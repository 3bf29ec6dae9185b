/**
 * Times patterns against each other: their graphs are open side by side where memory holds them, and every query chunk and every
 * burst of decoded tokens runs in all of them in turn, so that whatever else the machine does meets all of them alike. Between them runs the
 * same graph without indexers, whose layers read the most recent keys: the difference to all Full is what the indexers take,
 * in the graphs and at the time that the speed-ups are of.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { InterruptedError } from "../../base/errors.ts";
import { Random } from "../../base/random.ts";
import { RandomNumbers } from "../../base/random-numbers.ts";
import { sum } from "../../base/sum.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import type { Chunk } from "../stages/chunks.ts";
import type { CachedDecoder } from "./cached-decoder.ts";
import { convertsInRuns } from "./decoder.ts";
import {
  type GraphName,
  graphGroups,
  type OpenGraphs,
  openGraphs,
  releaseGraphs,
  type TimedGraph,
  type TimerSettings,
} from "./timed-graphs.ts";

export interface TimingPlan {
  /** Tokens of the prompt. */
  context: number;
  repeats: number;
  /** Tokens of a burst of decoding. */
  decodeTokens: number;
  /** Chunks of the prefill that are timed; all where absent. */
  sampledChunks?: number;
  signal?: AbortSignal;
  /** Hears of every chunk that was timed, of all repeats together. */
  onChunk?: (timed: number, all: number) => void;
}

/** Seconds of one phase, an entry for each repeat. */
export interface Timings {
  /** In the order of the patterns. */
  patterns: number[][];
  withoutIndexers: number[];
  /** One indexer: a graph of one layer with it, less the same without. */
  alone: number[];
  /** Embedding and head. */
  other: number[];
}

/** Seconds of a whole prefill, and of one decoded token behind it. */
export interface ContextTimings {
  prefill: Timings;
  decode: Timings;
  chunks: { timed: number; all: number };
}

/** Seconds of every piece that was timed, by graph and repeat. */
type Pieces = Map<GraphName, number[][]>;

export class PatternTimer {
  readonly plan: string[] = [];
  readonly #vocabulary: number;
  readonly #groups: readonly TimedGraph[][];
  readonly #settings: TimerSettings;
  /** The only group, where there is one. */
  readonly #open: OpenGraphs | undefined;
  readonly #numbers = new RandomNumbers(Random.forPart(0, "cache rows"));

  private constructor(
    vocabulary: number,
    groups: readonly TimedGraph[][],
    settings: TimerSettings,
    open: OpenGraphs | undefined,
    converts: boolean,
  ) {
    this.#vocabulary = vocabulary;
    this.#groups = groups;
    this.#settings = settings;
    this.#open = open;
    if (open === undefined) {
      this.plan.push(
        "the device has no room for all graphs side by side: each is loaded and timed alone, one after the other",
      );
    }
    if (converts) {
      this.plan.push(
        "every run converts the weights that it reads, which takes every pattern as long: a decoded token gains less here than on a server",
      );
    }
  }

  static async open(model: ModelFolder, patterns: readonly Pattern[], settings: TimerSettings): Promise<PatternTimer> {
    const groups = await graphGroups(model, patterns, settings);
    const [first = [], ...others] = groups;
    const open = others.length === 0 ? await openGraphs(first, settings) : undefined;
    const converts = await convertsInRuns(model, model.config.indexerLayers, settings);
    return new PatternTimer(model.config.vocabSize, groups, settings, open, converts);
  }

  /** Are graphs timed one after the other? Whatever else the machine does then meets them at different times. */
  get inTurn(): boolean {
    return this.#open === undefined;
  }

  /** Times prefills of `context` tokens, and tokens decoded behind them. */
  async measure(plan: TimingPlan): Promise<ContextTimings> {
    const prefill: Pieces = new Map();
    const decode: Pieces = new Map();
    let chunks = { timed: 0, all: 0 };
    for (const [index, group] of this.#groups.entries()) {
      const graphs = this.#open ?? (await openGraphs(group, this.#settings));
      const onChunk = (timed: number, all: number) => plan.onChunk?.(index * all + timed, this.#groups.length * all);
      try {
        chunks = await this.#measureGroup(graphs, { ...plan, onChunk }, prefill, decode);
      } finally {
        if (this.#open === undefined) await releaseGraphs(graphs);
      }
    }
    return { prefill: timingsOf(prefill), decode: timingsOf(decode), chunks };
  }

  async release(): Promise<void> {
    if (this.#open !== undefined) await releaseGraphs(this.#open);
  }

  async #measureGroup(
    graphs: OpenGraphs,
    { context, repeats, decodeTokens, sampledChunks, signal, onChunk }: TimingPlan,
    prefill: Pieces,
    decode: Pieces,
  ): Promise<ContextTimings["chunks"]> {
    const chunks = anyOf(graphs).runsOf(0, context);
    const sample = sampleOf(chunks, sampledChunks ?? chunks.length);
    const before = new Map([...graphs].map(([name, { runs }]) => [name, runs]));
    await this.#warmUp(graphs, chunks);
    for (let repeat = 0; repeat < repeats; repeat++) {
      rewind(graphs, 0);
      for (const pieces of [prefill, decode]) for (const name of graphs.keys()) beginRepeat(pieces, name);
      for (const [index, { chunk, weight }] of sample.entries()) {
        await pause(signal);
        this.#fillTo(graphs, chunk.start);
        await this.#step(graphs, chunk.end - chunk.start, 1, repeat + index, weight, prefill);
        onChunk?.(repeat * sample.length + index + 1, repeats * sample.length);
      }
      this.#fillTo(graphs, context);
      await pause(signal);
      await this.#step(graphs, 1, decodeTokens, repeat, 1 / decodeTokens, decode);
    }
    requireRuns(graphs, before, 2 + repeats * (sample.length + decodeTokens));
    return { timed: sample.length, all: chunks.length };
  }

  /** Runs the largest chunk and a token untimed: kernels are chosen and memory is taken then. */
  async #warmUp(graphs: OpenGraphs, chunks: readonly Chunk[]): Promise<void> {
    const { start, end } = chunks.at(-1) as Chunk;
    rewind(graphs, 0);
    this.#fillTo(graphs, start);
    for (const rows of [end - start, 1]) await this.#step(graphs, rows, 1, 0, 1, new Map());
  }

  /**
   * `calls` forward calls of `rows` tokens in every graph, one graph after the other, beginning with another one each
   * time; their seconds, times `weight`, go to `pieces`.
   */
  async #step(
    graphs: OpenGraphs,
    rows: number,
    calls: number,
    turn: number,
    weight: number,
    pieces: Pieces,
  ): Promise<void> {
    const tokens = Array.from({ length: calls }, (_, call) =>
      someIds(anyOf(graphs).position + call * rows, rows, this.#vocabulary),
    );
    const inTurn = [...graphs];
    for (let index = 0; index < inTurn.length; index++) {
      const [name, graph] = inTurn[(index + turn) % inTurn.length] as [GraphName, CachedDecoder];
      const begun = this.#settings.clock();
      for (const ids of tokens) {
        await (rows === 1 && graph.position > 0 ? graph.decode(ids[0] as number) : graph.prefill(ids));
      }
      pieces
        .get(name)
        ?.at(-1)
        ?.push(weight * (this.#settings.clock() - begun));
    }
  }

  /** Random rows up to `position`: what caches hold does not change what a chunk behind them takes. */
  #fillTo(graphs: OpenGraphs, position: number): void {
    const count = position - anyOf(graphs).position;
    if (count <= 0) return;
    for (const graph of graphs.values()) graph.fill(count, (rows) => this.#numbers.fill(rows));
  }
}

/** Graphs of a group are at the same position, and cut prompts alike. */
function anyOf(graphs: OpenGraphs): CachedDecoder {
  return graphs.values().next().value as CachedDecoder;
}

function rewind(graphs: OpenGraphs, position: number): void {
  for (const graph of graphs.values()) graph.rewind(position);
}

function beginRepeat(pieces: Pieces, name: GraphName): void {
  pieces.set(name, [...(pieces.get(name) ?? []), []]);
}

/**
 * A timing of work that was not done means nothing.
 * @param expected calls of every graph since `before`
 */
function requireRuns(graphs: OpenGraphs, before: ReadonlyMap<GraphName, number>, expected: number): void {
  const made = [...graphs].map(([name, { runs }]) => runs - (before.get(name) ?? 0));
  if (made.every((runs) => runs === expected)) return;
  throw new Error(`graphs were run ${made.join(", ")} times, the timing is of ${expected}`);
}

/** The sums of every repeat's pieces. */
function timingsOf(pieces: Pieces): Timings {
  const of = (name: GraphName) => pieces.get(name) ?? [];
  const sums = (name: GraphName) => of(name).map((seconds) => sum(seconds));
  const patterns = [...pieces.keys()].filter((name) => typeof name === "number").sort((a, b) => a - b);
  return {
    patterns: patterns.map(sums),
    withoutIndexers: sums("bare"),
    alone: of("full").map((seconds, repeat) =>
      sum(seconds.map((full, piece) => Math.max(full - (of("shared")[repeat]?.[piece] ?? 0), 0))),
    ),
    other: sums("none"),
  };
}

/** Chunks that stand for all: the middle one of each of `wanted` stretches of about the same length. */
function sampleOf(chunks: readonly Chunk[], wanted: number): { chunk: Chunk; weight: number }[] {
  if (wanted >= chunks.length) return chunks.map((chunk) => ({ chunk, weight: 1 }));
  const length = chunks.at(-1)?.end ?? 0;
  const stretches = Array.from({ length: wanted }, (): Chunk[] => []);
  for (const chunk of chunks) stretches[Math.floor(((chunk.start + chunk.end - 1) / 2 / length) * wanted)]?.push(chunk);
  return stretches
    .filter((stretch) => stretch.length > 0)
    .map((stretch) => {
      const chunk = stretch[Math.floor(stretch.length / 2)] as Chunk;
      const rows = (stretch.at(-1)?.end ?? 0) - (stretch[0]?.start ?? 0);
      return { chunk, weight: rows / (chunk.end - chunk.start) };
    });
}

/** Token ids that do not repeat for a while; what they say does not matter to the clock. */
function someIds(first: number, count: number, vocabulary: number): number[] {
  return Array.from({ length: count }, (_, i) => ((first + i) * 7919 + 13) % vocabulary);
}

/** A run blocks the event loop; between chunks a signal can arrive. */
async function pause(signal: AbortSignal | undefined): Promise<void> {
  await nextTurn();
  if (signal?.aborted) throw new InterruptedError("Interrupted");
}
