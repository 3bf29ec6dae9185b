/**
 * Inference with a fixed pattern: one graph joined for it, caches in JavaScript, the prompt in query chunks and then
 * one token a step. Shared layers hold no indexer weights and store no indexer keys. CUDA has a decoder of its own,
 * `device-decoder.ts`.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { InputError, InterruptedError } from "../../base/errors.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { latentWidth } from "../../graph/exported/contract.ts";
import { composeModel } from "../../graph/frames/compose.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import { decodingFrame, requireDecodingDtype } from "../device/frame-choice.ts";
import type { Decoder, Dtype } from "../measurement.ts";
import { defaultThreads, type SessionSettings } from "../session/onnx-session.ts";
import type { Recording } from "../session/recording.ts";
import { chunkBytes, chunksOf } from "../stages/chunks.ts";
import { CachedGraph, type FilledCaches } from "./cached-graph.ts";
import { DeviceDecoder } from "./device-decoder.ts";
import { rowsOfLogits, scoreRows } from "./sampling.ts";

export interface DecoderSettings {
  device: SessionSettings["device"];
  /** float16 on CUDA only. */
  dtype?: Dtype;
  threads?: number;
  /** Tokens that the caches are made for; on CUDA they do not grow. */
  capacity?: number;
  profilePrefix?: string;
  recording?: Recording;
  /** The only session of its process; default true. */
  solo?: boolean;
}

const defaultCapacity = 1024;

/** What a prefill leaves. */
export interface PrefilledCaches extends FilledCaches {
  /** Logits of the last row, `[vocab]`. */
  logits: Float32Array;
}

/** A decoder that can score tokens without advancing, and start again. */
export interface ScoringDecoder extends Decoder {
  /** Forgets the tokens from position `length` on. */
  rewind(length: number): void;
  /**
   * Scores `ids[start..]` after what is known of those before; the tokens so far stay as they were.
   * @param ids agree with the decoder's tokens up to `start`, which is at least 1 and at most the tokens so far
   * @returns the log-probability of each token of `ids` from `start` on, and the logits after the last one
   */
  lookAhead(
    ids: readonly number[],
    start: number,
    signal?: AbortSignal,
  ): Promise<{ logProbabilities: number[]; logits: Float32Array }>;
}

/** A scoring decoder that starts from caches filled elsewhere. */
export interface SharedDecoder extends ScoringDecoder {
  /**
   * Works on these caches from now on. It appends to them and takes the rows off again with `rewind`, so that several
   * decoders can use them one after the other.
   */
  adopt(caches: PrefilledCaches): void;
  /** Starts a sequence of its own, in caches of its own. */
  restart(): void;
}

/**
 * Opens a decoder for one sequence.
 * @throws UsageError for a dtype that the device does not generate in
 */
export async function openDecoder(model: ModelFolder, pattern: Pattern, settings: DecoderSettings): Promise<Decoder> {
  const { device, dtype = "float32", capacity = defaultCapacity } = settings;
  if (decodingFrame(device) === "generation") {
    return await DeviceDecoder.open(model, pattern, { ...settings, dtype, capacity });
  }
  requireDecodingDtype(device, dtype);
  return await openSharedDecoder(model, pattern, settings);
}

/** Opens a decoder whose caches can be handed over, on the graph that stages and decoders of the CPU share. */
export async function openSharedDecoder(
  model: ModelFolder,
  pattern: Pattern,
  settings: DecoderSettings,
): Promise<SharedDecoder> {
  const { device, capacity = defaultCapacity } = settings;
  const encoded = await composeModel(model.config, pattern, model.stage);
  const caches = { indexers: fullLayers(pattern), capacity };
  const graph = await CachedGraph.open(model.config, encoded, `${model.config.name} ${pattern}`, caches, {
    device,
    threads: settings.threads ?? defaultThreads(),
    folder: model.places.folder,
    solo: settings.solo ?? true,
    ...(settings.profilePrefix === undefined ? {} : { profilePrefix: settings.profilePrefix }),
    ...(settings.recording === undefined ? {} : { recording: settings.recording }),
  });
  return new ComposedDecoder(model.config, pattern, graph, capacity);
}

class ComposedDecoder implements SharedDecoder {
  readonly pattern: Pattern;
  readonly vocabularySize: number;
  readonly plan: string[];
  readonly #config: DsaConfig;
  readonly #graph: CachedGraph;
  readonly #fullLayers: number;
  #made = 0;
  #saved = 0;

  constructor(config: DsaConfig, pattern: Pattern, graph: CachedGraph, capacity: number) {
    this.pattern = pattern;
    this.vocabularySize = config.vocabSize;
    this.#config = config;
    this.#graph = graph;
    this.#fullLayers = fullLayers(pattern).length;
    const perToken = 4 * (latentWidth(config) * config.numHiddenLayers + config.indexHeadDim * this.#fullLayers);
    this.plan = [
      `caches: ${perToken} bytes a token = 4 x (${config.numHiddenLayers} layers x ${latentWidth(config)} latent + ${this.#fullLayers} Full layers x ${config.indexHeadDim} indexer key)`,
      `one chunk: at most ${(chunkBytes(config, capacity) / 2 ** 20).toFixed(1)} MiB at ${capacity} tokens`,
    ];
  }

  get indexerExecutions(): { made: number; saved: number } {
    return { made: this.#made, saved: this.#saved };
  }

  get cacheBytes(): { latent: number; indexerKey: number } {
    return this.#graph.cacheBytes;
  }

  async prefill(ids: readonly number[], signal?: AbortSignal): Promise<Float32Array> {
    if (ids.length === 0) throw new InputError("The prompt has no tokens");
    let logits: Float32Array = new Float32Array();
    const first = this.#graph.position;
    for (const { start, end } of chunksOf(this.#config, first, first + ids.length)) {
      await nextTurn();
      if (signal?.aborted) throw new InterruptedError("Interrupted");
      logits = await this.#forward(ids.slice(start - first, end - first));
    }
    return logits;
  }

  async decode(id: number): Promise<Float32Array> {
    return await this.#forward([id]);
  }

  adopt(caches: PrefilledCaches): void {
    this.#graph.adopt(caches);
  }

  rewind(length: number): void {
    this.#graph.rewind(length);
  }

  restart(): void {
    this.#graph.restart();
  }

  async lookAhead(ids: readonly number[], start: number, signal?: AbortSignal) {
    const counts = [this.#made, this.#saved] as const;
    // The row before `start` runs again: nobody keeps the logits of rows inside a prompt.
    const first = start - 1;
    const putBack = this.#graph.setAside(first);
    try {
      const logProbabilities: number[] = [];
      let logits: Float32Array = new Float32Array();
      const most = rowsOfLogits(this.vocabularySize);
      for (const chunk of chunksOf(this.#config, first, ids.length)) {
        for (let row = chunk.start; row < chunk.end; row += most) {
          await nextTurn();
          if (signal?.aborted) throw new InterruptedError("Interrupted");
          const end = Math.min(row + most, chunk.end);
          const all = await this.#forward(ids.slice(row, end), end - row);
          logits = scoreRows(all, this.vocabularySize, ids, row, logProbabilities);
        }
      }
      return { logProbabilities, logits };
    } finally {
      putBack();
      [this.#made, this.#saved] = counts;
    }
  }

  async release(): Promise<void> {
    await this.#graph.release();
  }

  /** @param keep how many rows' logits are wanted, from the last one back */
  async #forward(ids: readonly number[], keep = 1): Promise<Float32Array> {
    const logits = await this.#graph.forward(ids, { keep });
    // With no more keys than index_topk there is nothing to select, and nothing that a Shared layer could save.
    if (this.#graph.position > this.#config.indexTopk) {
      this.#made += this.#fullLayers;
      this.#saved += this.#config.numHiddenLayers - this.#fullLayers;
    }
    return logits;
  }
}
