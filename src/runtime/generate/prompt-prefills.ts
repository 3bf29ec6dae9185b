/**
 * One prompt under several patterns, one after the other: a decoder of each, with the prompt in its caches. On a CPU the
 * patterns share what they have in common (`shared-prefill.ts`); on a GPU, which runs a whole prompt faster than it would
 * take over a layer's rows, each runs its own graph.
 */

import { RuntimeFailure } from "../../base/errors.ts";
import { sum } from "../../base/sum.ts";
import type { Provider } from "../../graph/layer/kernels.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { deviceMemory } from "../loss/sequence-memory.ts";
import type { ComputeDevice, Dtype } from "../measurement.ts";
import type { CachedDecoder } from "./cached-decoder.ts";
import { decoderNeed, openDecoder } from "./decoder.ts";
import { totalNeed } from "./generation-runs.ts";

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

  /** @throws RuntimeFailure where the device's memory does not hold a graph of each pattern, with whatever short prompt */
  static async open(
    model: ModelFolder,
    patterns: readonly Pattern[],
    settings: PrefillSettings,
  ): Promise<DevicePrefills> {
    const free = (await deviceMemory(settings.device))?.free;
    const needs = await Promise.all(patterns.map((pattern) => decoderNeed(model, pattern, settings)));
    const need = sum(needs.map((each) => (each === undefined ? 0 : totalNeed(each))));
    if (free !== undefined && need > free) {
      const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(2)} GiB`;
      throw new RuntimeFailure(
        `${patterns.length} patterns side by side take ${gib(need)}, each with weights of its own; ${settings.device} has ${gib(free)} free`,
        { hint: "give fewer patterns at once, --dtype float16, or a device with more memory" },
      );
    }
    return new DevicePrefills(model, settings);
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
