/**
 * Decoders of patterns that take one prompt after the other: on a CPU each in a graph of its own, on CUDA one of a graph whose
 * runs leave out the indexers that a pattern does not have: the weights are there once. On a CPU patterns once shared a
 * prefill by stages; alone it takes 0.65 to 0.9 of the time with two patterns, 1.05 with four, and a copy of the weights less.
 */
import type { Provider } from "../../graph/layer/kernels.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { cacheForm } from "../device/frame-choice.ts";
import type { ComputeDevice, Dtype } from "../measurement.ts";
import { providerOf } from "../session/execution-provider.ts";
import type { CachedDecoder } from "./cached-decoder.ts";
import { openDecoder, requireDecoderRoom } from "./decoder.ts";

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

/** `provider`: whose generation graph runs, on whatever device; in tests. */
type PatternSettings = PrefillSettings & { provider?: Provider };

export class PatternDecoders {
  readonly plan: string[];
  readonly #model: ModelFolder;
  readonly #settings: PatternSettings;
  /** By the place of the graph: patterns that share one have the same. */
  readonly #graphs: readonly (readonly Pattern[])[];
  readonly #decoders = new Map<number, { decoder: CachedDecoder; capacity: number }>();

  private constructor(model: ModelFolder, graphs: readonly (readonly Pattern[])[], settings: PatternSettings) {
    this.#model = model;
    this.#graphs = graphs;
    this.#settings = settings;
    this.plan = [
      graphs.length === 1
        ? "weights are loaded once, for all patterns"
        : "weights are loaded once for each pattern, in a graph of its own",
    ];
  }

  /** @throws RuntimeFailure where the device's memory does not hold the graph of all patterns, not even for a short prompt */
  static async open(
    model: ModelFolder,
    patterns: readonly Pattern[],
    settings: PatternSettings,
  ): Promise<PatternDecoders> {
    const { device, dtype = "float32", provider } = settings;
    const together = provider !== undefined || cacheForm(device, dtype) !== "growing";
    const graphs = together ? [patterns] : patterns.map((pattern) => [pattern]);
    for (const [first, ...others] of graphs) {
      if (first !== undefined) await requireDecoderRoom(model, first, { ...settings, others });
    }
    return new PatternDecoders(model, graphs, settings);
  }

  /** @param room rows that will be appended after the prompt */
  async prefill(
    prompt: readonly number[],
    pattern: Pattern,
    room: number,
    signal?: AbortSignal,
  ): Promise<PrefilledDecoder> {
    const decoder = await this.#decoderFor(pattern, prompt.length + room);
    decoder.startAgain(pattern);
    const started = performance.now();
    const logits = await decoder.prefill(prompt, signal);
    return { decoder, logits, seconds: (performance.now() - started) / 1000 };
  }

  async release(): Promise<void> {
    for (const { decoder } of this.#decoders.values()) await decoder.release();
    this.#decoders.clear();
  }

  /** Caches of a fixed size do not grow: a longer prompt opens the graph again. */
  async #decoderFor(pattern: Pattern, tokens: number): Promise<CachedDecoder> {
    const place = this.#graphs.findIndex((patterns) => patterns.includes(pattern));
    const [first, ...others] = this.#graphs[place] ?? [];
    if (first === undefined) throw new RangeError(`no decoder was opened for ${pattern}`);
    const open = this.#decoders.get(place);
    if (open !== undefined && (open.decoder.grows || open.capacity >= tokens)) return open.decoder;
    this.#decoders.delete(place);
    await open?.decoder.release();
    // Twice as much each time, so that prompts that grow little by little open few graphs.
    const capacity = 2 ** Math.ceil(Math.log2(tokens));
    // On a CPU they are not alone in their process: no spinning threads.
    const solo = providerOf(this.#settings.device) === "cuda";
    const decoder = await openDecoder(this.#model, first, { ...this.#settings, others, capacity, solo });
    this.#decoders.set(place, { decoder, capacity });
    return decoder;
  }
}
