/**
 * Long prompts on two or more cores: ranges of layers take turns in two threads, chunk after chunk. Within one graph many
 * operators run on one thread, whatever the session has; two graphs side by side wait for each other at the first range of the
 * first chunk and at the last of the last chunk alone. Each range holds its own weights and caches, and nothing is held twice.
 * Chunks, and with them all bits, are those of `CachedDecoder`.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { InputError, InterruptedError } from "../../base/errors.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { cachedBytes } from "../../graph/frames/generation-graph.ts";
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import type { Decoder } from "../measurement.ts";
import { chunksOf } from "../stages/chunks.ts";
import { type CachedLayers, type HandedTensor, type HandedTensors, int64s } from "./cached-layers.ts";
import type { LayerThread } from "./layer-thread.ts";

/** A chunk on its way through the ranges. */
interface Passage {
  start: number;
  positions: HandedTensor;
  /** What the range before the next one hands on. */
  handed: HandedTensors;
  /** The range of this thread that takes it next. */
  range: number;
  /** Is what that one takes there? */
  arrived: boolean;
  /** Settles when it is. */
  arrival: Promise<void>;
}

export class OverlappedDecoder implements Decoder {
  readonly pattern: Pattern;
  readonly vocabularySize: number;
  readonly plan: string[];
  readonly #config: DsaConfig;
  readonly #own: readonly CachedLayers[];
  readonly #others: LayerThread;
  #position = 0;
  #made = 0;
  #saved = 0;

  /**
   * @param own the ranges that run in this thread: the first one, the third, ...
   * @param others a thread with as many: the second, the fourth, ... to the last one
   */
  constructor(config: DsaConfig, pattern: Pattern, own: readonly CachedLayers[], others: LayerThread, plan: string[]) {
    this.pattern = pattern;
    this.vocabularySize = config.vocabSize;
    this.plan = plan;
    this.#config = config;
    this.#own = own;
    this.#others = others;
  }

  get indexerExecutions(): { made: number; saved: number } {
    return { made: this.#made, saved: this.#saved };
  }

  get cacheBytes(): { latent: number; indexerKey: number } {
    return cachedBytes(this.#config, this.pattern, 4 * this.#position);
  }

  async prefill(ids: readonly number[], signal?: AbortSignal): Promise<Float32Array> {
    if (ids.length === 0) throw new InputError("The prompt has no tokens");
    const first = this.#position;
    const chunks = chunksOf(this.#config, first, first + ids.length);
    return await this.#pass(
      chunks.map(({ start, end }) => passage(start, ids.slice(start - first, end - first))),
      first + ids.length,
      signal,
    );
  }

  async decode(id: number): Promise<Float32Array> {
    return await this.#pass([passage(this.#position, [id])], this.#position + 1);
  }

  /** Forgets the tokens from `position` on: what is written next takes their place. */
  rewind(position: number): void {
    this.#position = position;
  }

  async release(): Promise<void> {
    for (const range of this.#own) await range.release();
    await this.#others.end();
  }

  /** Runs chunks through all ranges, up to position `end`. @returns the logits after the last one */
  async #pass(chunks: readonly Passage[], end: number, signal?: AbortSignal): Promise<Float32Array> {
    for (;;) {
      // A run blocks the event loop; between runs a signal and what the other thread has done can arrive.
      await nextTurn();
      if (signal?.aborted) throw new InterruptedError("Interrupted");
      const chunk = this.#next(chunks);
      const range = this.#own[chunk?.range ?? -1];
      if (chunk !== undefined && range !== undefined) {
        const inputs = { ...chunk.handed, position_ids: chunk.positions };
        this.#handOn(chunk, await range.run(chunk.start, inputs));
        continue;
      }
      const away = chunks.filter(({ arrived }) => !arrived);
      if (away.length === 0) break;
      await Promise.race(away.map(({ arrival }) => arrival));
    }
    for (const { start, positions } of chunks) this.#count(start + (positions.dims[0] ?? 0));
    this.#position = end;
    return logitsOf(chunks.at(-1)?.handed ?? {});
  }

  /**
   * The chunk to run next in this thread. Each range takes chunks in their order; of several the one that is earliest in ranges
   * and chunks together, so that what has the longest way to go is not left for the end.
   */
  #next(chunks: readonly Passage[]): Passage | undefined {
    const ready = chunks.flatMap((chunk, index) => {
      const open = chunk.arrived && chunk.range < this.#own.length;
      return open && (chunks[index - 1]?.range ?? chunk.range + 1) > chunk.range
        ? [{ chunk, place: 2 * chunk.range + index }]
        : [];
    });
    return ready.sort((a, b) => a.place - b.place)[0]?.chunk;
  }

  /** Gives a chunk to the other thread's next range. */
  #handOn(chunk: Passage, handed: HandedTensors): void {
    const inputs = { ...handed, position_ids: chunk.positions, logits_to_keep: int64s([1]) };
    chunk.arrived = false;
    chunk.arrival = this.#others.ask({ range: chunk.range, start: chunk.start, inputs }).then((outputs) => {
      chunk.handed = outputs;
      chunk.arrived = true;
    });
    // Whoever waits for it hears of a failure; until then nobody may.
    chunk.arrival.catch(() => undefined);
    chunk.range++;
  }

  #count(end: number): void {
    // With no more keys than index_topk there is nothing to select, and nothing that a Shared layer could save.
    if (end <= this.#config.indexTopk) return;
    const full = fullLayers(this.pattern).length;
    this.#made += full;
    this.#saved += this.#config.numHiddenLayers - full;
  }
}

function passage(start: number, ids: readonly number[]): Passage {
  const positions = int64s(ids.map((_, row) => start + row));
  return { start, positions, handed: { input_ids: int64s(ids) }, range: 0, arrived: true, arrival: Promise.resolve() };
}

function logitsOf({ logits }: HandedTensors): Float32Array {
  if (logits?.data instanceof Float32Array) return logits.data;
  throw new InputError('Output "logits" of the model is not float32');
}
