/**
 * Times patterns against each other: each in a graph of its own where memory holds them, and every query chunk and every
 * burst of decoded tokens runs under all of them in turn, so that whatever else the machine does meets all of them alike. Between them runs the
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
import { standInIds } from "../session/stand-in-ids.ts";
import type { Chunk } from "../stages/chunks.ts";
import type { CachedDecoder } from "./cached-decoder.ts";
import { convertsInRuns } from "./decoder.ts";
import type { GenerationRun } from "./generation-runs.ts";
import { type GraphName, type OpenGraphs, openGraphs, type TimedPattern, type TimerSettings } from "./timed-graphs.ts";

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

/** Seconds of a whole prefill, and of one decoded token after it. */
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
  readonly #graphs: OpenGraphs;
  readonly #settings: TimerSettings;
  readonly #numbers = new RandomNumbers(Random.forPart(0, "cache rows"));

  private constructor(vocabulary: number, graphs: OpenGraphs, settings: TimerSettings, converts: boolean) {
    this.#vocabulary = vocabulary;
    this.#graphs = graphs;
    this.#settings = settings;
    if (graphs.oneGraph) {
      this.plan.push(
        "the device has no room for a graph of each pattern: all run in one, whose runs leave out the indexers that a pattern does not have",
      );
    }
    if (converts) {
      this.plan.push(
        "every run converts the weights that it reads, which takes every pattern as long: a decoded token gains less here than on a server",
      );
    }
  }

  static async open(model: ModelFolder, patterns: readonly Pattern[], settings: TimerSettings): Promise<PatternTimer> {
    const graphs = await openGraphs(model, patterns, settings);
    const converts = await convertsInRuns(model, model.config.indexerLayers, settings);
    return new PatternTimer(model.config.vocabSize, graphs, settings, converts);
  }

  /** Do all patterns share a graph? */
  get oneGraph(): boolean {
    return this.#graphs.oneGraph;
  }

  get #decoders(): Set<CachedDecoder> {
    return new Set([...this.#graphs.timed.values()].map(({ decoder }) => decoder));
  }

  /** Decoders are at the same position, and cut prompts alike. */
  get #anyOf(): CachedDecoder {
    return this.#decoders.values().next().value as CachedDecoder;
  }

  async release(): Promise<void> {
    for (const decoder of this.#decoders) await decoder.release();
  }

  /** Times prefills of `context` tokens, and tokens decoded after them. */
  async measure({
    context,
    repeats,
    decodeTokens,
    sampledChunks,
    signal,
    onChunk,
  }: TimingPlan): Promise<ContextTimings> {
    const prefill: Pieces = new Map();
    const decode: Pieces = new Map();
    const chunks = this.#anyOf.runsOf(0, context);
    const sample = sampleOf(chunks, sampledChunks ?? chunks.length);
    const before = new Map([...this.#decoders].map((decoder) => [decoder, decoder.runs]));
    const warmUps = await this.#warmUp(chunks);
    for (let repeat = 0; repeat < repeats; repeat++) {
      this.#rewind(0);
      for (const pieces of [prefill, decode]) for (const name of this.#graphs.timed.keys()) beginRepeat(pieces, name);
      for (const [index, { chunk, weight }] of sample.entries()) {
        await pause(signal);
        this.#fillTo(chunk.start);
        await this.#step(chunk.end - chunk.start, 1, repeat + index, weight, prefill);
        onChunk?.(repeat * sample.length + index + 1, repeats * sample.length);
      }
      this.#fillTo(context);
      await pause(signal);
      await this.#step(1, decodeTokens, repeat, 1 / decodeTokens, decode);
    }
    this.#requireRuns(before, warmUps + repeats * (sample.length + decodeTokens));
    return {
      prefill: timingsOf(prefill),
      decode: timingsOf(decode),
      chunks: { timed: sample.length, all: chunks.length },
    };
  }

  /**
   * Runs the last chunk of each way of reading keys and a token untimed: kernels are chosen and memory is taken then, for each
   * way on its own. Returns how many calls that was.
   */
  async #warmUp(chunks: readonly GenerationRun[]): Promise<number> {
    const lastOfWay = new Map(chunks.map((chunk) => [chunk.way, chunk]));
    for (const { start, end } of lastOfWay.values()) {
      this.#rewind(0);
      this.#fillTo(start);
      await this.#step(end - start, 1, 0, 1, new Map());
    }
    await this.#step(1, 1, 0, 1, new Map());
    return lastOfWay.size + 1;
  }

  /**
   * `calls` forward calls of `rows` tokens under every name, one after the other, beginning with another one each time; their seconds, times `weight`, go to `pieces`.
   */
  async #step(rows: number, calls: number, turn: number, weight: number, pieces: Pieces): Promise<void> {
    const { position } = this.#anyOf;
    const tokens = Array.from({ length: calls }, (_, call) =>
      standInIds(this.#vocabulary, rows, position + call * rows),
    );
    const inTurn = [...this.#graphs.timed];
    for (let index = 0; index < inTurn.length; index++) {
      const [name, { decoder, pattern }] = inTurn[(index + turn) % inTurn.length] as [GraphName, TimedPattern];
      decoder.rewind(position);
      decoder.follow(pattern);
      const begun = this.#settings.clock();
      for (const ids of tokens) {
        await (rows === 1 && decoder.position > 0 ? decoder.decode(ids[0] as number) : decoder.prefill(ids));
      }
      pieces
        .get(name)
        ?.at(-1)
        ?.push(weight * (this.#settings.clock() - begun));
    }
  }

  /** Random rows up to `position`: what caches hold does not change what a chunk after them takes. */
  #fillTo(position: number): void {
    const count = position - this.#anyOf.position;
    if (count <= 0) return;
    for (const decoder of this.#decoders) decoder.fill(count, (rows) => this.#numbers.fill(rows));
  }

  #rewind(position: number): void {
    for (const decoder of this.#decoders) decoder.rewind(position);
  }

  /**
   * A timing of work that was not done means nothing.
   * @param expected calls under every name since `before`
   */
  #requireRuns(before: ReadonlyMap<CachedDecoder, number>, expected: number): void {
    const timed = [...this.#graphs.timed.values()];
    const made = [...before].map(([decoder, runs]) => {
      const names = timed.filter((each) => each.decoder === decoder).length;
      return (decoder.runs - runs) / names;
    });
    if (made.every((runs) => runs === expected)) return;
    throw new Error(`graphs were run ${made.join(", ")} times, the timing is of ${expected}`);
  }
}

function beginRepeat(pieces: Pieces, name: GraphName): void {
  pieces.set(name, [...(pieces.get(name) ?? []), []]);
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

/** A run blocks the event loop; between chunks a signal can arrive. */
async function pause(signal: AbortSignal | undefined): Promise<void> {
  await nextTurn();
  if (signal?.aborted) throw new InterruptedError("Interrupted");
}
