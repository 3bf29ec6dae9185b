/**
 * Long prompts on two or more cores: the lower half of the layers takes chunk after chunk in this thread, the upper half
 * follows in another. Within one graph many operators run on one thread, whatever the session has; two graphs side by side wait
 * for each other at the first and the last chunk alone. Each half holds its own weights and caches, and nothing is held twice.
 * Chunks, and with them all bits, are those of `CachedDecoder`.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { InputError, InterruptedError } from "../../base/errors.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { cachedBytes } from "../../graph/frames/generation-graph.ts";
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import type { Decoder } from "../measurement.ts";
import { chunksOf } from "../stages/chunks.ts";
import { type CachedLayers, type HandedTensors, int64s } from "./cached-layers.ts";
import type { LayerThread } from "./layer-thread.ts";

/** Chunks that the upper half may be behind: more would only take memory. */
const mostWaiting = 4;

export class OverlappedDecoder implements Decoder {
  readonly pattern: Pattern;
  readonly vocabularySize: number;
  readonly plan: string[];
  readonly #config: DsaConfig;
  readonly #lower: CachedLayers;
  readonly #upper: LayerThread;
  #position = 0;
  #made = 0;
  #saved = 0;

  constructor(config: DsaConfig, pattern: Pattern, lower: CachedLayers, upper: LayerThread, plan: string[]) {
    this.pattern = pattern;
    this.vocabularySize = config.vocabSize;
    this.plan = plan;
    this.#config = config;
    this.#lower = lower;
    this.#upper = upper;
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
    const waiting: Promise<HandedTensors>[] = [];
    let answer: HandedTensors = {};
    for (const { start, end } of chunksOf(this.#config, first, first + ids.length)) {
      // A run blocks the event loop; between runs a signal can arrive.
      await nextTurn();
      if (signal?.aborted) throw new InterruptedError("Interrupted");
      waiting.push((await this.#begin(ids.slice(start - first, end - first))).answer);
      if (waiting.length > mostWaiting) await waiting.shift();
    }
    for (const chunk of waiting) answer = await chunk;
    return logitsOf(answer);
  }

  async decode(id: number): Promise<Float32Array> {
    return logitsOf(await (await this.#begin([id])).answer);
  }

  /** Forgets the tokens from `position` on: what is written next takes their place. */
  rewind(position: number): void {
    this.#position = position;
  }

  async release(): Promise<void> {
    await this.#lower.release();
    await this.#upper.end();
  }

  /** Runs the next tokens through the lower half and hands them to the upper one. */
  async #begin(ids: readonly number[]): Promise<{ answer: Promise<HandedTensors> }> {
    const start = this.#position;
    const positions = int64s(ids.map((_, row) => start + row));
    const handed = await this.#lower.run(start, { input_ids: int64s(ids), position_ids: positions });
    this.#position += ids.length;
    // With no more keys than index_topk there is nothing to select, and nothing that a Shared layer could save.
    if (this.#position > this.#config.indexTopk) {
      const full = fullLayers(this.pattern).length;
      this.#made += full;
      this.#saved += this.#config.numHiddenLayers - full;
    }
    const inputs = { ...handed, position_ids: positions, logits_to_keep: int64s([1]) };
    return { answer: this.#upper.ask({ start, inputs }) };
  }
}

function logitsOf({ logits }: HandedTensors): Float32Array {
  if (logits?.data instanceof Float32Array) return logits.data;
  throw new InputError('Output "logits" of the model is not float32');
}
