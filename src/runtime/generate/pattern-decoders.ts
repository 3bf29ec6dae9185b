/**
 * A decoder of each pattern, in a graph of its own, that takes one prompt after the other. On a CPU patterns once shared a
 * prefill by stages; alone it takes 0.65 to 0.9 of the time with two patterns, 1.05 with four, and a copy of the weights less.
 */
import { RuntimeFailure } from "../../base/errors.ts";
import { sum } from "../../base/sum.ts";
import type { Provider } from "../../graph/layer/kernels.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { deviceMemory } from "../loss/sequence-memory.ts";
import type { ComputeDevice, Dtype } from "../measurement.ts";
import { providerOf } from "../session/execution-provider.ts";
import type { CachedDecoder } from "./cached-decoder.ts";
import { decoderNeed, openDecoder } from "./decoder.ts";
import { totalNeed } from "./generation-runs.ts";

export interface PrefillSettings {
  device: ComputeDevice;
  threads: number;
  /** float16 on CUDA only. Default float32. */
  dtype?: Dtype;
}

/** A decoder with a prompt in its caches. Whoever appends to it takes the rows off again. */
export interface PrefilledDecoder {
  decoder: CachedDecoder;
  /** Logits of the prompt's last token, `[vocab]`. */
  logits: Float32Array;
  seconds: number;
}

export class PatternDecoders {
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
  ): Promise<PatternDecoders> {
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
    return new PatternDecoders(model, settings);
  }

  /** @param room rows that will be appended after the prompt */
  async prefill(
    prompt: readonly number[],
    pattern: Pattern,
    room: number,
    signal?: AbortSignal,
  ): Promise<PrefilledDecoder> {
    const decoder = await this.#decoderFor(pattern, prompt.length + room);
    decoder.rewind(0);
    const started = performance.now();
    const logits = await decoder.prefill(prompt, signal);
    return { decoder, logits, seconds: (performance.now() - started) / 1000 };
  }

  async release(): Promise<void> {
    for (const { decoder } of this.#decoders.values()) await decoder.release();
    this.#decoders.clear();
  }

  /** Caches of a fixed size do not grow: a longer prompt opens its pattern's graph again. */
  async #decoderFor(pattern: Pattern, tokens: number): Promise<CachedDecoder> {
    const open = this.#decoders.get(pattern);
    if (open !== undefined && (open.decoder.grows || open.capacity >= tokens)) return open.decoder;
    this.#decoders.delete(pattern);
    await open?.decoder.release();
    // Twice as much each time, so that prompts that grow little by little open few graphs.
    const capacity = 2 ** Math.ceil(Math.log2(tokens));
    // On a CPU they are not alone in their process: no spinning threads.
    const solo = providerOf(this.#settings.device) === "cuda";
    const decoder = await openDecoder(this.#model, pattern, { ...this.#settings, capacity, solo });
    this.#decoders.set(pattern, { decoder, capacity });
    return decoder;
  }
}
