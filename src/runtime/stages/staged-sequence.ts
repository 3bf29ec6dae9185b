/**
 * One sequence under one pattern, run by the stages: tokens go in, logits come out, the caches grow. Stages serve every
 * pattern with one copy of the weights, so a process can answer each request with another pattern. Rows are what
 * `staged-loss.ts` computes, to the last bit, as long as the sequence grows by the chunks of `chunksOf`.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { InterruptedError } from "../../base/errors.ts";
import { sum } from "../../base/sum.ts";
import { latentWidth } from "../../graph/exported/contract.ts";
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import { rowsOfLogits } from "./chunks.ts";
import { RowCache } from "./row-cache.ts";
import type { SelectedKeys, StageModel } from "./stage-model.ts";

/** Sees the logits after a row, `[vocab_size]`, valid until it returns. */
type RowReader = (position: number, logits: Float32Array) => void;

/** Rows whose logits are wanted beside the last one's. */
export interface WantedRows {
  /** Position of the first of them. */
  from: number;
  read: RowReader;
}

interface RunOptions {
  wanted?: WantedRows | undefined;
  /** Hears of every run of an indexer. */
  onIndexer?: ((layer: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

export class StagedSequence {
  readonly pattern: Pattern;
  readonly #stages: StageModel;
  readonly #latents: readonly RowCache[];
  readonly #indexerKeys: ReadonlyMap<number, RowCache>;

  private constructor(
    stages: StageModel,
    pattern: Pattern,
    latents: readonly RowCache[],
    indexerKeys: ReadonlyMap<number, RowCache>,
  ) {
    this.pattern = pattern;
    this.#stages = stages;
    this.#latents = latents;
    this.#indexerKeys = indexerKeys;
  }

  /** An empty sequence with room for `capacity` rows; it grows where they do not suffice. */
  static empty(stages: StageModel, pattern: Pattern, capacity: number): StagedSequence {
    const { config } = stages;
    const latents = Array.from(pattern, () => new RowCache(latentWidth(config), capacity));
    const keys = fullLayers(pattern).map((layer) => [layer, new RowCache(config.indexHeadDim, capacity)] as const);
    return new StagedSequence(stages, pattern, latents, new Map(keys));
  }

  /** Rows in the caches. */
  get length(): number {
    return this.#latents[0]?.length ?? 0;
  }

  /** Bytes that the caches take. */
  get bytes(): number {
    return sum([...this.#latents, ...this.#indexerKeys.values()].map((cache) => cache.allocatedBytes));
  }

  /** A sequence of the first `length` rows, which share nothing with these. */
  copy(length: number, capacity: number): StagedSequence {
    const latents = this.#latents.map((cache) => cache.copy(length, capacity));
    const keys = [...this.#indexerKeys].map(([layer, cache]) => [layer, cache.copy(length, capacity)] as const);
    return new StagedSequence(this.#stages, this.pattern, latents, new Map(keys));
  }

  /** Forgets the rows from `length` on. */
  rewind(length: number): void {
    for (const cache of [...this.#latents, ...this.#indexerKeys.values()]) cache.truncate(length);
  }

  /**
   * Runs the next tokens as one chunk.
   * @returns the logits after the last of them, `[vocab_size]`
   * @throws InterruptedError at the signal, between layers; the caches are then as before
   */
  async run(ids: readonly number[], { wanted, onIndexer, signal }: RunOptions = {}): Promise<Float32Array> {
    const start = this.length;
    let { hidden, rows } = await this.#stages.embedAfter(start, Int32Array.from(ids));
    let selected: SelectedKeys[] = [];
    try {
      for (const [layer, latents] of this.#latents.entries()) {
        // A run blocks the event loop; between layers a signal can arrive.
        await nextTurn();
        if (signal?.aborted) throw new InterruptedError("Interrupted");
        const keys = this.#indexerKeys.get(layer);
        if (keys !== undefined) {
          onIndexer?.(layer);
          ({ selected } = await this.#stages.selectKeys(layer, hidden, rows, undefined, keys.reserve(ids.length)));
        }
        const kept = latents.reserve(ids.length);
        ({ hidden } = await this.#stages.runBody(layer, hidden, rows, selected, undefined, kept));
      }
    } catch (error) {
      this.rewind(start);
      throw error;
    }
    return wanted === undefined || wanted.from >= start + ids.length
      ? await this.#stages.lastLogits(hidden)
      : await this.#readRows(hidden, start, wanted);
  }

  /** The head runs in blocks that begin at the chunk's first row, whatever is wanted: a row's bits do not depend on it. */
  async #readRows(hidden: Float32Array, start: number, { from, read }: WantedRows): Promise<Float32Array> {
    const { hiddenSize, vocabSize } = this.#stages.config;
    const rows = hidden.length / hiddenSize;
    const most = rowsOfLogits(vocabSize);
    let last: Float32Array = new Float32Array();
    for (let first = 0; first < rows; first += most) {
      const end = Math.min(first + most, rows);
      if (start + end <= from) continue;
      const logits = await this.#stages.logits(hidden.subarray(first * hiddenSize, end * hiddenSize));
      for (let row = Math.max(first, from - start); row < end; row++) {
        read(start + row, logits.subarray((row - first) * vocabSize, (row - first + 1) * vocabSize));
      }
      last = logits.subarray((end - 1 - first) * vocabSize);
    }
    return last;
  }
}
