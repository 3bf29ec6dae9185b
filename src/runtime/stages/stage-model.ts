/** The model as stage sessions: any range of layers over a whole sequence, with any indexer left out. */
import type { Tensor } from "onnxruntime-node";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { bodyStage, indexerStage, latentWidth } from "../../graph/exported/contract.ts";
import { divergenceNames, divergenceWidth, ownWidth } from "../../graph/frames/head.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { type Feeds, floats, int32s, loadRuntime, type SessionSettings } from "../session/onnx-session.ts";
import { type Chunk, chunksOf } from "./chunks.ts";
import {
  divergenceStage,
  type LoadedStage,
  type Loads,
  probeStage,
  type StageOptions,
  StageSessions,
} from "./stage-sessions.ts";

/** `topk_indices` of one chunk, `[rows, width]`. */
export interface SelectedKeys {
  indices: Int32Array;
  width: number;
}

/** What all layers share about a sequence's rows. */
export interface SequenceRows {
  /** Position of the first row that hidden states and angles have: 0 unless rows before it are in caches. */
  first: number;
  /** Rows of the sequence, those before `first` included. */
  length: number;
  chunks: readonly Chunk[];
  /** Rows below `index_topk`: they see no more keys than they may select, so no pattern changes them. */
  invariant: number;
  cos: Float32Array;
  sin: Float32Array;
}

/** What an earlier pass left of the invariant rows after one layer. */
export interface KnownRows {
  /** `[invariant, latentWidth]` */
  latent: Float32Array;
  /** Hidden states of at least the invariant rows. */
  hidden: Float32Array;
}

export class StageModel {
  readonly config: DsaConfig;
  readonly #sessions: StageSessions;
  readonly #tensor: typeof Tensor;
  /** Of a row of the model's own distribution; 0 where divergences are not asked for. */
  readonly #ownWidth: number;
  /** What all layers are told of a chunk's rows. */
  readonly #places = new WeakMap<Chunk, Feeds>();
  /** One latent and one key cache serve all layers: a layer runs over the whole sequence before the next starts. */
  readonly #caches = { latent: new Float32Array(), indexerKeys: new Float32Array() };

  private constructor(config: DsaConfig, sessions: StageSessions, tensor: typeof Tensor, top: number | undefined) {
    this.config = config;
    this.#sessions = sessions;
    this.#tensor = tensor;
    this.#ownWidth = top === undefined ? 0 : ownWidth(top);
  }

  static async open(
    model: ModelFolder,
    settings: Omit<SessionSettings, "folder">,
    options: StageOptions = {},
  ): Promise<StageModel> {
    const { Tensor } = await loadRuntime();
    return new StageModel(model.config, await StageSessions.open(model, settings, options), Tensor, options.top);
  }

  /**
   * Layers `[from, to)` that are in memory together, from the bottom up: all of them, or where layers come and go each of
   * those alone, and then all that stay.
   */
  get ranges(): readonly { from: number; to: number }[] {
    const layers = this.config.numHiddenLayers;
    const { staysFrom } = this.#sessions;
    const passing = Array.from({ length: staysFrom }, (_, from) => ({ from, to: from + 1 }));
    return staysFrom < layers ? [...passing, { from: staysFrom, to: layers }] : passing;
  }

  /** Embeds a window from position 0: hidden states `[length, hidden_size]` and the rows' angles. */
  async embed(ids: Int32Array): Promise<{ hidden: Float32Array; rows: SequenceRows }> {
    const { hidden, ...rows } = await this.#embed(ids, 0);
    const chunks = chunksOf(this.config, 0, ids.length);
    return { hidden, rows: { ...rows, chunks, invariant: Math.min(this.config.indexTopk, ids.length) } };
  }

  /** Embeds the next tokens of a sequence with `first` rows in its caches, as one chunk; no row counts as invariant. */
  async embedAfter(first: number, ids: Int32Array): Promise<{ hidden: Float32Array; rows: SequenceRows }> {
    const { hidden, ...rows } = await this.#embed(ids, first);
    return { hidden, rows: { ...rows, chunks: [{ start: first, end: rows.length }], invariant: 0 } };
  }

  async #embed(ids: Int32Array, first: number) {
    const outputs = await this.#run("embed", {
      input_ids: this.#int64(BigInt64Array.from(ids, BigInt)),
      position_ids: this.#positions(first, first + ids.length),
    });
    return {
      hidden: floats(outputs.hidden_states, "hidden_states"),
      first,
      length: first + ids.length,
      cos: floats(outputs.cos, "cos"),
      sin: floats(outputs.sin, "sin"),
    };
  }

  /**
   * Runs one indexer over a sequence; returns the selected keys, chunk by chunk, and the keys of the invariant
   * rows.
   * @param knownKeys keys of the invariant rows: their chunks are then left out of the result as well
   * @param kept takes the keys of all rows, `[length, index_head_dim]`, where the caller wants them
   */
  async selectKeys(
    layer: number,
    hidden: Float32Array,
    rows: SequenceRows,
    knownKeys?: Float32Array,
    kept?: Float32Array,
  ): Promise<{ selected: SelectedKeys[]; firstKeys: Float32Array }> {
    const width = this.config.indexHeadDim;
    const cache = kept ?? this.#reserve("indexerKeys", rows.length * width);
    if (knownKeys !== undefined) cache.set(knownKeys);
    const selected: SelectedKeys[] = [];
    for (const chunk of rows.chunks) {
      if (knownKeys !== undefined && chunk.end <= rows.invariant) {
        selected.push(everyKey(chunk));
        continue;
      }
      const outputs = await this.#run(indexerStage(layer), {
        ...this.#chunkFeeds(hidden, rows, chunk),
        past_indexer_key: this.#matrix(cache, 0, chunk.start, width),
      });
      cache.set(floats(outputs.indexer_key, "indexer_key"), chunk.start * width);
      const indices = outputs.topk_indices;
      selected.push({ indices: int32s(indices, "topk_indices"), width: indices?.dims[1] ?? 0 });
    }
    return { selected, firstKeys: cache.slice(0, rows.invariant * width) };
  }

  /**
   * Runs one layer's body over a sequence; returns the next hidden states, the latents of the invariant rows, and all
   * latents `[length, latentWidth]`, which are valid until the next layer runs.
   * @param known the invariant rows, where a pass of any pattern has run this layer before
   * @param kept takes the latents of all rows, `[length, latentWidth]`, where the caller wants them
   */
  async runBody(
    layer: number,
    hidden: Float32Array,
    rows: SequenceRows,
    selected: readonly SelectedKeys[],
    known?: KnownRows,
    kept?: Float32Array,
  ): Promise<{ hidden: Float32Array; firstLatent: Float32Array; latent: Float32Array }> {
    const width = latentWidth(this.config);
    const cache = kept ?? this.#reserve("latent", rows.length * width);
    const next = new Float32Array(hidden.length);
    if (known !== undefined) {
      cache.set(known.latent);
      next.set(known.hidden.subarray(0, rows.invariant * this.config.hiddenSize));
    }
    for (const [index, chunk] of rows.chunks.entries()) {
      if (known !== undefined && chunk.end <= rows.invariant) continue;
      const { indices, width: selectedWidth } = selected[index] as SelectedKeys;
      const outputs = await this.#run(bodyStage(layer), {
        ...this.#chunkFeeds(hidden, rows, chunk),
        topk_indices: new this.#tensor("int32", indices, [chunk.end - chunk.start, selectedWidth]),
        past_latent: this.#matrix(cache, 0, chunk.start, width),
      });
      cache.set(floats(outputs.latent, "latent"), chunk.start * width);
      const own = floats(outputs.next_hidden_states, "next_hidden_states");
      next.set(own, (chunk.start - rows.first) * this.config.hiddenSize);
    }
    return {
      hidden: next,
      firstLatent: cache.slice(0, rows.invariant * width),
      latent: cache.subarray(0, rows.length * width),
    };
  }

  /**
   * Losses of each next token from row `from` on, nats, in the first of so many columns. Where divergences are asked for, what
   * is kept of the model's own distribution stands beside them, or, with that given, the KL divergence from it.
   * @param own rows of the model's own distribution, from row `from` on; absent in the model's own pattern
   */
  async lossRows(
    hidden: Float32Array,
    ids: Int32Array,
    rows: SequenceRows,
    from: number,
    own?: Float32Array,
  ): Promise<{ values: Float32Array; width: number }> {
    const diverges = this.#ownWidth > 0;
    const width = !diverges ? 1 : own === undefined ? this.#ownWidth : divergenceWidth;
    const name = diverges ? divergenceNames.output : "negative_log_likelihood";
    const values = new Float32Array(Math.max(0, rows.length - 1 - from) * width);
    for (const { start, end } of rows.chunks) {
      const last = Math.min(end, rows.length - 1);
      if (start < from || last <= start) continue;
      const feeds: Feeds = {
        hidden_states: this.#matrix(hidden, start, last, this.config.hiddenSize),
        target_ids: this.#int64(BigInt64Array.from(ids.subarray(start + 1, last + 1), BigInt)),
      };
      if (diverges) {
        const [first, end] = own === undefined ? [0, 0] : [start - from, last - from];
        feeds[divergenceNames.baseline] = this.#matrix(own ?? new Float32Array(), first, end, this.#ownWidth);
        feeds[divergenceNames.own] = new this.#tensor("bool", Uint8Array.of(own === undefined ? 1 : 0), []);
      }
      const outputs = await this.#run(diverges ? divergenceStage : "loss", feeds);
      values.set(floats(outputs[name], name), (start - from) * width);
    }
    return { values, width };
  }

  /**
   * What a layer's attention would lose in the rows `start` to `end` (`attention-probe.ts`), `[selections, rows]` each.
   * @param latent what `runBody` has returned
   * @param own the layer's own selection, `[rows, index_topk]`, and the tried ones, `[selections, rows, index_topk]`
   */
  async probe(
    layer: number,
    hidden: Float32Array,
    rows: SequenceRows,
    chunk: Chunk,
    { latent, own, tried }: { latent: Float32Array; own: Int32Array; tried: Int32Array },
  ): Promise<{ recall: Float32Array; similarity: Float32Array }> {
    const { indexTopk } = this.config;
    const count = chunk.end - chunk.start;
    const outputs = await this.#run(probeStage(layer), {
      ...this.#chunkFeeds(hidden, rows, chunk),
      latent: this.#matrix(latent, 0, chunk.end, latentWidth(this.config)),
      own_indices: new this.#tensor("int32", own, [count, indexTopk]),
      topk_indices: new this.#tensor("int32", tried, [
        own.length === 0 ? 0 : tried.length / own.length,
        count,
        indexTopk,
      ]),
    });
    return { recall: floats(outputs.recall, "recall"), similarity: floats(outputs.similarity, "similarity") };
  }

  /** Logits after the last row, `[vocab_size]`. */
  async lastLogits(hidden: Float32Array): Promise<Float32Array> {
    return await this.logits(hidden.slice(-this.config.hiddenSize));
  }

  /** Logits after each row of hidden states `[rows, hidden_size]`: `[rows, vocab_size]`. */
  async logits(hidden: Float32Array): Promise<Float32Array> {
    const width = this.config.hiddenSize;
    const outputs = await this.#run("head", { hidden_states: this.#matrix(hidden, 0, hidden.length / width, width) });
    return floats(outputs.logits, "logits");
  }

  /** Weights read and loaded so far. */
  get loads(): Readonly<Loads> {
    return this.#sessions.loads;
  }

  async release(): Promise<void> {
    await this.#sessions.release();
  }

  #chunkFeeds(hidden: Float32Array, { first, ...rows }: SequenceRows, chunk: Chunk): Feeds {
    const [start, end] = [chunk.start - first, chunk.end - first];
    const half = this.config.qkRopeHeadDim / 2;
    const places = this.#places.get(chunk) ?? {
      cos: this.#matrix(rows.cos, start, end, half),
      sin: this.#matrix(rows.sin, start, end, half),
      position_ids: this.#positions(chunk.start, chunk.end),
    };
    this.#places.set(chunk, places);
    return { hidden_states: this.#matrix(hidden, start, end, this.config.hiddenSize), ...places };
  }

  /** Rows `start` to `end` as a tensor over the same memory: inputs are not copied. */
  #matrix(data: Float32Array, start: number, end: number, width: number): Tensor {
    return new this.#tensor("float32", data.subarray(start * width, end * width), [end - start, width]);
  }

  #positions(start: number, end: number): Tensor {
    return this.#int64(BigInt64Array.from({ length: end - start }, (_, i) => BigInt(start + i)));
  }

  #int64(values: BigInt64Array): Tensor {
    return new this.#tensor("int64", values, [values.length]);
  }

  #reserve(cache: "latent" | "indexerKeys", size: number): Float32Array {
    if (this.#caches[cache].length < size) this.#caches[cache] = new Float32Array(size);
    return this.#caches[cache];
  }

  async #run(name: LoadedStage, feeds: Feeds): Promise<Feeds> {
    return await (await this.#sessions.at(name)).run(feeds);
  }
}

/** The selection of a chunk of invariant rows: all keys up to its end. */
function everyKey({ start, end }: Chunk): SelectedKeys {
  return { indices: Int32Array.from({ length: (end - start) * end }, (_, i) => i % end), width: end };
}
