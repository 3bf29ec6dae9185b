/**
 * Times patterns against each other: their graphs are open side by side, and every query chunk and every burst of decoded
 * tokens runs in all of them in turn, so that whatever else the machine does meets all of them alike. Between them runs the
 * same graph without indexers, whose layers read the most recent keys: the difference to all Full is what the indexers take,
 * in the graphs and at the time that the speed-ups are of.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Clock } from "../../base/clock.ts";
import { InterruptedError } from "../../base/errors.ts";
import { Random } from "../../base/random.ts";
import { RandomNumbers } from "../../base/random-numbers.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import type { Chunk } from "../stages/chunks.ts";
import type { CachedDecoder } from "./cached-decoder.ts";
import { openTimedGraphs, type TimedGraphs, type TimerSettings } from "./timed-graphs.ts";

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

export class PatternTimer {
  readonly #model: ModelFolder;
  readonly #graphs: TimedGraphs;
  readonly #clock: Clock;
  readonly #numbers = new RandomNumbers(Random.forPart(0, "cache rows"));

  private constructor(model: ModelFolder, graphs: TimedGraphs, clock: Clock) {
    this.#model = model;
    this.#graphs = graphs;
    this.#clock = clock;
  }

  static async open(model: ModelFolder, patterns: readonly Pattern[], settings: TimerSettings): Promise<PatternTimer> {
    return new PatternTimer(model, await openTimedGraphs(model, patterns, settings), settings.clock);
  }

  /** Times prefills of `context` tokens, and tokens decoded behind them. */
  async measure(plan: TimingPlan): Promise<ContextTimings> {
    const { context, repeats, decodeTokens, sampledChunks, signal, onChunk } = plan;
    const chunks = this.#graphs.withoutIndexers.runsOf(0, context);
    const sample = sampleOf(chunks, sampledChunks ?? chunks.length);
    const prefill = this.#noTimings();
    const decode = this.#noTimings();
    const before = this.#runs();
    await this.#warmUp(chunks);
    for (let repeat = 0; repeat < repeats; repeat++) {
      this.#rewind(0);
      const parts = this.#noTimings();
      for (const [index, { chunk, weight }] of sample.entries()) {
        await pause(signal);
        this.#fillTo(chunk.start);
        await this.#step(chunk.end - chunk.start, 1, repeat + index, weight, parts);
        onChunk?.(repeat * sample.length + index + 1, repeats * sample.length);
      }
      this.#fillTo(context);
      addSums(prefill, parts);
      await pause(signal);
      const burst = this.#noTimings();
      await this.#step(1, decodeTokens, repeat, 1 / decodeTokens, burst);
      addSums(decode, burst);
    }
    this.#requireRuns(before, 2 + repeats * (sample.length + decodeTokens));
    return { prefill, decode, chunks: { timed: sample.length, all: chunks.length } };
  }

  async release(): Promise<void> {
    for (const graph of this.#all()) await graph.release();
  }

  /** Runs the largest chunk and a token untimed: kernels are chosen and memory is taken then. */
  async #warmUp(chunks: readonly Chunk[]): Promise<void> {
    const { start, end } = chunks.at(-1) as Chunk;
    this.#rewind(0);
    this.#fillTo(start);
    await this.#step(end - start, 1, 0, 1, this.#noTimings());
    await this.#step(1, 1, 0, 1, this.#noTimings());
  }

  /**
   * `calls` forward calls of `rows` tokens in every graph, one graph after the other, beginning with another one each
   * time; their seconds, times `weight`, go to `timings`.
   */
  async #step(rows: number, calls: number, turn: number, weight: number, timings: Timings): Promise<void> {
    const { arms, withoutIndexers, full, shared, none } = this.#graphs;
    const tokens = Array.from({ length: calls }, (_, call) =>
      someIds(withoutIndexers.position + call * rows, rows, this.#model.config.vocabSize),
    );
    const timed = async (graph: CachedDecoder): Promise<number> => {
      const begun = this.#clock();
      for (const ids of tokens) {
        await (rows === 1 && graph.position > 0 ? graph.decode(ids[0] as number) : graph.prefill(ids));
      }
      return weight * (this.#clock() - begun);
    };
    const inTurn = [
      ...arms.map((arm, index) => async () => timings.patterns[index]?.push(await timed(arm))),
      async () => timings.withoutIndexers.push(await timed(withoutIndexers)),
      async () => {
        timings.alone.push(Math.max((await timed(full)) - (await timed(shared)), 0));
        timings.other.push(await timed(none));
      },
    ];
    for (let index = 0; index < inTurn.length; index++) await inTurn[(index + turn) % inTurn.length]?.();
  }

  #all(): CachedDecoder[] {
    const { arms, withoutIndexers, full, shared, none } = this.#graphs;
    return [...arms, withoutIndexers, full, shared, none];
  }

  #runs(): number[] {
    return this.#all().map(({ runs }) => runs);
  }

  /**
   * A timing of work that was not done means nothing.
   * @param expected calls of every graph since `before`
   */
  #requireRuns(before: readonly number[], expected: number): void {
    const made = this.#runs().map((runs, graph) => runs - (before[graph] ?? 0));
    if (made.every((runs) => runs === expected)) return;
    throw new Error(`graphs were run ${made.join(", ")} times, the timing is of ${expected}`);
  }

  #rewind(position: number): void {
    for (const graph of this.#all()) graph.rewind(position);
  }

  /** Random rows up to `position`: what caches hold does not change what a chunk behind them takes. */
  #fillTo(position: number): void {
    const count = position - this.#graphs.withoutIndexers.position;
    if (count <= 0) return;
    for (const graph of this.#all()) {
      graph.fill(count, (rows) => this.#numbers.fill(rows));
    }
  }

  #noTimings(): Timings {
    return { patterns: this.#graphs.arms.map(() => []), withoutIndexers: [], alone: [], other: [] };
  }
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

/** The sums of one repeat's parts. */
function addSums(timings: Timings, parts: Timings): void {
  const add = (target: number[], seconds: readonly number[]): void => {
    target.push(seconds.reduce((total, part) => total + part, 0));
  };
  for (const [index, target] of timings.patterns.entries()) add(target, parts.patterns[index] ?? []);
  add(timings.withoutIndexers, parts.withoutIndexers);
  add(timings.alone, parts.alone);
  add(timings.other, parts.other);
}

/** A run blocks the event loop; between chunks a signal can arrive. */
async function pause(signal: AbortSignal | undefined): Promise<void> {
  await nextTurn();
  if (signal?.aborted) throw new InterruptedError("Interrupted");
}
