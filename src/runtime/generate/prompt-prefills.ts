/**
 * One prompt under several patterns, one after the other: a decoder of each, with the prompt in its caches. On a CPU the
 * patterns share what they have in common (`shared-prefill.ts`); on a GPU, which runs a whole prompt faster than it would
 * take over a layer's rows, each runs its own graph.
 */

import type { Provider } from "../../graph/layer/kernels.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { cacheForm } from "../device/frame-choice.ts";
import type { ComputeDevice, Dtype } from "../measurement.ts";
import { type CachedDecoder, openDecoder } from "./decoder.ts";
import { SharedPrefill } from "./shared-prefill.ts";

export interface PrefillSettings {
  device: ComputeDevice;
  threads: number;
  /** float16 on CUDA only. Default float32. */
  dtype?: Dtype;
}

export interface PrefilledDecoder {
  pattern: Pattern;
  decoder: CachedDecoder;
  /** Logits of the prompt's last token, `[vocab]`. */
  logits: Float32Array;
  /** Time of this pattern's layers and rows, those that it shares counted in full. */
  seconds: number;
}

export interface PromptPrefills {
  /** Layers run so far, and those that every pattern alone would have run. */
  readonly executions: { made: number; alone: number };
  readonly plan: string[];
  /**
   * Prefills a prompt under each of these patterns, which must differ. A decoder is good until the next one is asked for,
   * and whoever appends to it takes the rows off again.
   * @param room rows that will be appended after the prompt
   */
  run(
    prompt: readonly number[],
    patterns: readonly Pattern[],
    room: number,
    signal?: AbortSignal,
  ): AsyncGenerator<PrefilledDecoder>;
  release(): Promise<void>;
}

/** @param patterns those that can be asked for */
export function openPrefills(
  model: ModelFolder,
  patterns: readonly Pattern[],
  settings: PrefillSettings,
): Promise<PromptPrefills> {
  return cacheForm(settings.device, settings.dtype ?? "float32") === "growing"
    ? StagedPrefills.open(model, patterns, settings)
    : Promise.resolve(new DevicePrefills(model, settings));
}

/** Prefills by stages, and a graph of each pattern that takes over their caches. */
class StagedPrefills implements PromptPrefills {
  readonly plan: string[];
  readonly #prefill: SharedPrefill;
  readonly #decoders: ReadonlyMap<Pattern, CachedDecoder>;

  private constructor(prefill: SharedPrefill, decoders: ReadonlyMap<Pattern, CachedDecoder>) {
    this.#prefill = prefill;
    this.#decoders = decoders;
    this.plan = [`weights are loaded ${decoders.size + 1} times: stages for prefills, and a graph for each pattern`];
  }

  static async open(
    model: ModelFolder,
    patterns: readonly Pattern[],
    { device, threads }: PrefillSettings,
  ): Promise<StagedPrefills> {
    const prefill = await SharedPrefill.open(model, patterns, { device, threads });
    const decoders = new Map<Pattern, CachedDecoder>();
    const prefills = new StagedPrefills(prefill, decoders);
    try {
      // They are not alone in their process: no spinning threads.
      for (const pattern of patterns) {
        decoders.set(pattern, await openDecoder(model, pattern, { device, threads, solo: false }));
      }
    } catch (error) {
      await prefills.release();
      throw error;
    }
    return prefills;
  }

  get executions(): { made: number; alone: number } {
    return this.#prefill.executions;
  }

  async *run(
    prompt: readonly number[],
    patterns: readonly Pattern[],
    room: number,
    signal?: AbortSignal,
  ): AsyncGenerator<PrefilledDecoder> {
    for await (const prefilled of this.#prefill.run(prompt, patterns, room, signal)) {
      const { pattern, logits, seconds } = prefilled;
      const decoder = this.#decoders.get(pattern) as CachedDecoder;
      decoder.adopt(prefilled);
      yield { pattern, decoder, logits, seconds };
    }
  }

  async release(): Promise<void> {
    for (const decoder of this.#decoders.values()) await decoder.release();
    await this.#prefill.release();
  }
}

/** A generation graph of each pattern. Caches there do not grow: a longer prompt opens its pattern's graph again. */
export class DevicePrefills implements PromptPrefills {
  readonly executions = { made: 0, alone: 0 };
  readonly plan = ["weights are loaded once for each pattern, in a graph of its own"];
  readonly #model: ModelFolder;
  readonly #settings: PrefillSettings & { provider?: Provider };
  readonly #decoders = new Map<Pattern, { decoder: CachedDecoder; capacity: number }>();

  constructor(model: ModelFolder, settings: PrefillSettings & { provider?: Provider }) {
    this.#model = model;
    this.#settings = settings;
  }

  async *run(
    prompt: readonly number[],
    patterns: readonly Pattern[],
    room: number,
    signal?: AbortSignal,
  ): AsyncGenerator<PrefilledDecoder> {
    for (const pattern of patterns) {
      const decoder = await this.#decoderFor(pattern, prompt.length + room);
      decoder.rewind(0);
      const started = performance.now();
      const logits = await decoder.prefill(prompt, signal);
      const seconds = (performance.now() - started) / 1000;
      const layers = this.#model.config.numHiddenLayers;
      this.executions.made += layers;
      this.executions.alone += layers;
      yield { pattern, decoder, logits, seconds };
    }
  }

  async release(): Promise<void> {
    for (const { decoder } of this.#decoders.values()) await decoder.release();
    this.#decoders.clear();
  }

  async #decoderFor(pattern: Pattern, tokens: number): Promise<CachedDecoder> {
    const open = this.#decoders.get(pattern);
    if (open !== undefined && open.capacity >= tokens) return open.decoder;
    this.#decoders.delete(pattern);
    await open?.decoder.release();
    // Twice as much each time, so that prompts that grow little by little open few graphs.
    const capacity = 2 ** Math.ceil(Math.log2(tokens));
    const decoder = await openDecoder(this.#model, pattern, { ...this.#settings, capacity });
    this.#decoders.set(pattern, { decoder, capacity });
    return decoder;
  }
}
