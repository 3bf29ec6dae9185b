/**
 * Inference with a fixed pattern: one graph joined for it, caches in JavaScript, the prompt in query chunks and then
 * one token a step. Shared layers hold no indexer weights and store no indexer keys. CUDA has a decoder of its own,
 * `device-decoder.ts`.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Tensor } from "onnxruntime-node";
import { InputError, InterruptedError, UsageError } from "../base/errors.ts";
import { sum } from "../base/sum.ts";
import type { DsaConfig } from "../checkpoint/model-config.ts";
import { composeModel } from "../graph/compose.ts";
import { latentWidth, newIndexerKey, newLatent, pastIndexerKey, pastLatent } from "../graph/contract.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import { fullLayers, type Pattern } from "../pattern/pattern.ts";
import { chunkBytes, chunksOf } from "./chunks.ts";
import { DeviceDecoder } from "./device-decoder.ts";
import { providerOf } from "./execution-provider.ts";
import type { Decoder, Dtype } from "./measurement.ts";
import { defaultThreads, type Feeds, floats, loadRuntime, OnnxSession, type SessionSettings } from "./onnx-session.ts";
import type { Recording } from "./recording.ts";
import { RowCache } from "./row-cache.ts";

export interface DecoderSettings {
  device: SessionSettings["device"];
  /** float16 on CUDA only. */
  dtype?: Dtype;
  threads?: number;
  /** Tokens that the caches are made for; on CUDA they do not grow. */
  capacity?: number;
  profilePrefix?: string;
  recording?: Recording;
}

const defaultCapacity = 1024;

/**
 * Opens a decoder for one sequence.
 * @throws UsageError for a dtype that the device does not generate in
 */
export async function openDecoder(model: ModelFolder, pattern: Pattern, settings: DecoderSettings): Promise<Decoder> {
  const { device, dtype = "float32", capacity = defaultCapacity } = settings;
  if (providerOf(device) === "cuda") {
    return await DeviceDecoder.open(model, pattern, { ...settings, dtype, capacity });
  }
  if (dtype !== "float32") {
    throw new UsageError(`--dtype ${dtype} generates on CUDA only, and this is ${device}: leave it out`);
  }
  const { Tensor } = await loadRuntime();
  const graph = await composeModel(model.config, pattern, model.stage);
  const session = await OnnxSession.create(graph, `${model.config.name} ${pattern}`, {
    device,
    threads: settings.threads ?? defaultThreads(),
    folder: model.path,
    solo: true,
    ...(settings.profilePrefix === undefined ? {} : { profilePrefix: settings.profilePrefix }),
    ...(settings.recording === undefined ? {} : { recording: settings.recording }),
  });
  return new ComposedDecoder(model.config, pattern, session, Tensor, capacity);
}

/** A cache and the names under which the graph reads it and gives its new rows. */
interface NamedCache {
  past: string;
  fresh: string;
  rows: RowCache;
}

class ComposedDecoder implements Decoder {
  readonly pattern: Pattern;
  readonly vocabularySize: number;
  readonly plan: string[];
  readonly #config: DsaConfig;
  readonly #session: OnnxSession;
  readonly #tensor: typeof Tensor;
  readonly #latents: NamedCache[];
  readonly #indexerKeys: NamedCache[];
  readonly #fullLayers: number;
  #position = 0;
  #made = 0;
  #saved = 0;

  constructor(config: DsaConfig, pattern: Pattern, session: OnnxSession, tensor: typeof Tensor, capacity: number) {
    this.pattern = pattern;
    this.vocabularySize = config.vocabSize;
    this.#config = config;
    this.#session = session;
    this.#tensor = tensor;
    this.#fullLayers = fullLayers(pattern).length;
    this.#latents = Array.from({ length: config.numHiddenLayers }, (_, layer) => ({
      past: pastLatent(layer),
      fresh: newLatent(layer),
      rows: new RowCache(latentWidth(config), capacity),
    }));
    this.#indexerKeys = fullLayers(pattern).map((layer) => ({
      past: pastIndexerKey(layer),
      fresh: newIndexerKey(layer),
      rows: new RowCache(config.indexHeadDim, capacity),
    }));
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
    const bytes = (caches: NamedCache[]) => sum(caches.map(({ rows }) => rows.bytes));
    return { latent: bytes(this.#latents), indexerKey: bytes(this.#indexerKeys) };
  }

  async prefill(ids: readonly number[], signal?: AbortSignal): Promise<Float32Array> {
    if (ids.length === 0) throw new InputError("The prompt has no tokens");
    let logits: Float32Array = new Float32Array();
    const first = this.#position;
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
    await this.#session.release();
  }

  async #forward(ids: readonly number[]): Promise<Float32Array> {
    const start = this.#position;
    const feeds: Feeds = {
      input_ids: this.#int64(BigInt64Array.from(ids, BigInt)),
      position_ids: this.#int64(BigInt64Array.from(ids, (_, i) => BigInt(start + i))),
      logits_to_keep: this.#int64(BigInt64Array.of(1n)),
    };
    const caches = [...this.#latents, ...this.#indexerKeys];
    for (const { past, rows } of caches) {
      feeds[past] = new this.#tensor("float32", rows.view(), [rows.length, rows.width]);
    }
    const outputs = await this.#session.run(feeds);
    for (const { fresh, rows } of caches) rows.append(floats(outputs[fresh], fresh));
    this.#position += ids.length;
    // With no more keys than index_topk there is nothing to select, and nothing that a Shared layer could save.
    if (this.#position > this.#config.indexTopk) {
      this.#made += this.#fullLayers;
      this.#saved += this.#config.numHiddenLayers - this.#fullLayers;
    }
    return floats(outputs.logits, "logits");
  }

  #int64(values: BigInt64Array): Tensor {
    return new this.#tensor("int64", values, [values.length]);
  }
}
