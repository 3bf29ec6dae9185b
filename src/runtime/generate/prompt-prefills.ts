/**
 * One prompt under several patterns, one after the other: a decoder of each, with the prompt in its caches. On a CPU the
 * patterns share what they have in common (`shared-prefill.ts`); on a GPU, which runs a whole prompt faster than it would
 * take over a layer's rows, each runs its own graph.
 */
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { decodingFrame } from "../device/frame-choice.ts";
import type { ComputeDevice, Dtype } from "../measurement.ts";
import { openSharedDecoder, type ScoringDecoder, type SharedDecoder } from "./decoder.ts";
import { DeviceDecoder, type DeviceDecoderSettings } from "./device-decoder.ts";
import { SharedPrefill } from "./shared-prefill.ts";

export interface PrefillSettings {
  device: ComputeDevice;
  threads: number;
  /** float16 on CUDA only. Default float32. */
  dtype?: Dtype;
}

export interface PrefilledDecoder {
  pattern: Pattern;
  decoder: ScoringDecoder;
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
  return decodingFrame(settings.device) === "generation"
    ? Promise.resolve(new DevicePrefills(model, settings))
    : JoinedPrefills.open(model, patterns, settings);
}

/** Prefills by stages, and a joined graph of each pattern that takes over their caches. */
class JoinedPrefills implements PromptPrefills {
  readonly plan: string[];
  readonly #prefill: SharedPrefill;
  readonly #decoders: ReadonlyMap<Pattern, SharedDecoder>;

  private constructor(prefill: SharedPrefill, decoders: ReadonlyMap<Pattern, SharedDecoder>) {
    this.#prefill = prefill;
    this.#decoders = decoders;
    this.plan = [`weights are loaded ${decoders.size + 1} times: stages for prefills, and a graph for each pattern`];
  }

  static async open(
    model: ModelFolder,
    patterns: readonly Pattern[],
    { device, threads }: PrefillSettings,
  ): Promise<JoinedPrefills> {
    const prefill = await SharedPrefill.open(model, patterns, { device, threads });
    const decoders = new Map<Pattern, SharedDecoder>();
    const prefills = new JoinedPrefills(prefill, decoders);
    try {
      // They are not alone in their process: no spinning threads.
      for (const pattern of patterns) {
        decoders.set(pattern, await openSharedDecoder(model, pattern, { device, threads, solo: false }));
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
      const decoder = this.#decoders.get(pattern) as SharedDecoder;
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
  readonly #settings: Omit<DeviceDecoderSettings, "capacity">;
  readonly #decoders = new Map<Pattern, { decoder: DeviceDecoder; capacity: number }>();

  constructor(
    model: ModelFolder,
    { dtype = "float32", ...settings }: PrefillSettings & Pick<DeviceDecoderSettings, "provider">,
  ) {
    this.#model = model;
    this.#settings = { ...settings, dtype };
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

  async #decoderFor(pattern: Pattern, tokens: number): Promise<DeviceDecoder> {
    const open = this.#decoders.get(pattern);
    if (open !== undefined && open.capacity >= tokens) return open.decoder;
    this.#decoders.delete(pattern);
    await open?.decoder.release();
    // Twice as much each time, so that prompts that grow little by little open few graphs.
    const capacity = 2 ** Math.ceil(Math.log2(tokens));
    const decoder = await DeviceDecoder.open(this.#model, pattern, { ...this.#settings, capacity });
    this.#decoders.set(pattern, { decoder, capacity });
    return decoder;
  }
}
