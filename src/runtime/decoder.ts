/**
 * Inference with a fixed pattern: one graph joined for it, caches in JavaScript, the prompt in query chunks and then
 * one token a step. Shared layers hold no indexer weights and store no indexer keys.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { InputError, InterruptedError } from "../base/errors.ts";
import type { DsaConfig } from "../checkpoint/model-config.ts";
import { composeModel } from "../graph/compose.ts";
import { latentWidth } from "../graph/contract.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import { fullLayers, type Pattern } from "../pattern/pattern.ts";
import { CachedGraph } from "./cached-graph.ts";
import { chunkBytes, chunksOf } from "./chunks.ts";
import type { Decoder } from "./measurement.ts";
import { defaultThreads, type SessionSettings } from "./onnx-session.ts";
import type { Recording } from "./recording.ts";

export interface DecoderSettings {
  device: SessionSettings["device"];
  threads?: number;
  /** Rows that the caches hold before they first grow. */
  capacity?: number;
  profilePrefix?: string;
  recording?: Recording;
}

const defaultCapacity = 1024;

/** Opens a decoder for one sequence. */
export async function openDecoder(model: ModelFolder, pattern: Pattern, settings: DecoderSettings): Promise<Decoder> {
  const { device, threads = defaultThreads(), capacity = defaultCapacity, profilePrefix, recording } = settings;
  const encoded = await composeModel(model.config, pattern, model.stage);
  const caches = { indexers: fullLayers(pattern), capacity };
  const graph = await CachedGraph.open(model.config, encoded, `${model.config.name} ${pattern}`, caches, {
    device,
    threads,
    folder: model.path,
    solo: true,
    ...(profilePrefix === undefined ? {} : { profilePrefix }),
    ...(recording === undefined ? {} : { recording }),
  });
  return new ComposedDecoder(model.config, pattern, graph, capacity);
}

class ComposedDecoder implements Decoder {
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

  async release(): Promise<void> {
    await this.#graph.release();
  }

  async #forward(ids: readonly number[]): Promise<Float32Array> {
    const logits = await this.#graph.forward(ids);
    // With no more keys than index_topk there is nothing to select, and nothing that a Shared layer could save.
    if (this.#graph.position > this.#config.indexTopk) {
      this.#made += this.#fullLayers;
      this.#saved += this.#config.numHiddenLayers - this.#fullLayers;
    }
    return logits;
  }
}
