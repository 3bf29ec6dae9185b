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
import { logProbability } from "./sampling.ts";

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

/** What a prefill leaves: one latent cache a layer and one key cache a Full layer, all of the same number of rows. */
export interface PrefilledCaches {
  latents: readonly RowCache[];
  indexerKeys: ReadonlyMap<number, RowCache>;
  /** Logits of the last row, `[vocab]`. */
  logits: Float32Array;
}

/** A decoder that goes on behind prefills that others have made, and looks ahead without moving. */
export interface SharedDecoder extends Decoder {
  /**
   * Works on these caches from now on. It appends to them and takes the rows off again with `rewind`, so that several
   * decoders can use them one after the other.
   */
  adopt(caches: PrefilledCaches): void;
  /** Forgets the tokens from position `length` on. */
  rewind(length: number): void;
  /** Starts a sequence of its own, in caches of its own. */
  restart(): void;
  /**
   * Runs the tokens of `ids` from `start - 1` on behind what is known of those before, then takes them back.
   * @param ids agree with the decoder's tokens up to `start`, which is at least 1 and at most the tokens so far
   * @returns the log-probability of each token of `ids` from `start` on, and the logits behind the last one
   */
  lookAhead(
    ids: readonly number[],
    start: number,
    signal?: AbortSignal,
  ): Promise<{ logProbabilities: number[]; logits: Float32Array }>;
}

/** Floats of logits that one call of `lookAhead` may make: 64 MiB. */
const logitBudget = 16 << 20;

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
  return await openSharedDecoder(model, pattern, settings);
}

/** Opens a decoder whose caches can be handed over, on the graph that stages and decoders of the CPU share. */
export async function openSharedDecoder(
  model: ModelFolder,
  pattern: Pattern,
  settings: DecoderSettings,
): Promise<SharedDecoder> {
  const { device, capacity = defaultCapacity } = settings;
  const { Tensor } = await loadRuntime();
  const graph = await composeModel(model.config, pattern, model.stage);
  const session = await OnnxSession.create(graph, `${model.config.name} ${pattern}`, {
    device,
    threads: settings.threads ?? defaultThreads(),
    folder: model.path,
    solo: settings.solo ?? true,
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

class ComposedDecoder implements SharedDecoder {
  readonly pattern: Pattern;
  readonly vocabularySize: number;
  readonly plan: string[];
  readonly #config: DsaConfig;
  readonly #session: OnnxSession;
  readonly #tensor: typeof Tensor;
  readonly #capacity: number;
  #latents: NamedCache[];
  #indexerKeys: NamedCache[];
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
    this.#capacity = capacity;
    this.#latents = this.#namedLatents(() => new RowCache(latentWidth(config), capacity));
    this.#indexerKeys = this.#namedKeys(() => new RowCache(config.indexHeadDim, capacity));
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

  adopt({ latents, indexerKeys }: PrefilledCaches): void {
    this.#latents = this.#namedLatents((layer) => latents[layer] as RowCache);
    this.#indexerKeys = this.#namedKeys((layer) => indexerKeys.get(layer) as RowCache);
    this.#position = latents[0]?.length ?? 0;
  }

  rewind(length: number): void {
    for (const { rows } of this.#caches()) rows.cut(length);
    this.#position = length;
  }

  restart(): void {
    this.#latents = this.#namedLatents(() => new RowCache(latentWidth(this.#config), this.#capacity));
    this.#indexerKeys = this.#namedKeys(() => new RowCache(this.#config.indexHeadDim, this.#capacity));
    this.#position = 0;
  }

  async lookAhead(ids: readonly number[], start: number, signal?: AbortSignal) {
    const position = this.#position;
    const counts = [this.#made, this.#saved] as const;
    // The row before `start` runs again: nobody keeps the logits of rows inside a prompt.
    const first = start - 1;
    const taken = this.#caches().map(({ rows }) => ({ rows, kept: rows.cut(first) }));
    this.#position = first;
    try {
      const logProbabilities: number[] = [];
      let logits: Float32Array = new Float32Array();
      const most = Math.max(1, Math.floor(logitBudget / this.vocabularySize));
      for (const chunk of chunksOf(this.#config, first, ids.length)) {
        for (let row = chunk.start; row < chunk.end; row += most) {
          await nextTurn();
          if (signal?.aborted) throw new InterruptedError("Interrupted");
          const end = Math.min(row + most, chunk.end);
          const all = await this.#forward(ids.slice(row, end), end - row);
          const at = (index: number) => all.subarray(index * this.vocabularySize, (index + 1) * this.vocabularySize);
          for (let next = row + 1; next <= end && next < ids.length; next++) {
            logProbabilities.push(logProbability(at(next - 1 - row), ids[next] as number));
          }
          logits = at(end - row - 1);
        }
      }
      return { logProbabilities, logits };
    } finally {
      for (const { rows, kept } of taken) {
        rows.cut(first);
        rows.append(kept);
      }
      this.#position = position;
      [this.#made, this.#saved] = counts;
    }
  }

  async release(): Promise<void> {
    await this.#session.release();
  }

  #namedLatents(rows: (layer: number) => RowCache): NamedCache[] {
    return Array.from({ length: this.#config.numHiddenLayers }, (_, layer) => ({
      past: pastLatent(layer),
      fresh: newLatent(layer),
      rows: rows(layer),
    }));
  }

  #namedKeys(rows: (layer: number) => RowCache): NamedCache[] {
    return fullLayers(this.pattern).map((layer) => ({
      past: pastIndexerKey(layer),
      fresh: newIndexerKey(layer),
      rows: rows(layer),
    }));
  }

  #caches(): NamedCache[] {
    return [...this.#latents, ...this.#indexerKeys];
  }

  /** @param kept how many rows' logits are wanted, from the last one back */
  async #forward(ids: readonly number[], kept = 1): Promise<Float32Array> {
    const start = this.#position;
    const feeds: Feeds = {
      input_ids: this.#int64(BigInt64Array.from(ids, BigInt)),
      position_ids: this.#int64(BigInt64Array.from(ids, (_, i) => BigInt(start + i))),
      logits_to_keep: this.#int64(BigInt64Array.of(BigInt(kept))),
    };
    const caches = this.#caches();
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
