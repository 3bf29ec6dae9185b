/** The model as stage sessions: any range of layers over a whole sequence, with any indexer left out. */
import type { Tensor } from "onnxruntime-node";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { bodyStage, indexerStage, latentWidth, type StageName } from "../../graph/exported/contract.ts";
import { buildDivergenceStage, divergenceNames, divergenceWidth, ownWidth } from "../../graph/frames/head.ts";
import { encodeModel } from "../../graph/graph-builder.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { modelSizes } from "../device/model-sizes.ts";
import { type Feeds, floats, int32s, loadRuntime, OnnxSession, type SessionSettings } from "../session/onnx-session.ts";
import { type Chunk, chunksOf } from "./chunks.ts";
import { divergenceStage, type LayerRoom, type LoadedStage, type Loads, StageSessions } from "./stage-sessions.ts";

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

/** What an earlier pass left of the invariant rows behind one layer. */
export interface KnownRows {
  /** `[invariant, latentWidth]` */
  latent: Float32Array;
  /** Hidden states of at least the invariant rows. */
  hidden: Float32Array;
}

interface StageOptions {
  top?: number | undefined;
  room?: LayerRoom | undefined;
  logits?: boolean;
}

type TensorClass = typeof Tensor;

export class StageModel {
  readonly config: DsaConfig;
  /**
   * Layers `[from, to)` that are in memory together, from the bottom up: all of them, or where layers come and go each of
   * those alone, and then all that stay.
   */
  readonly ranges: readonly { from: number; to: number }[];
  readonly #sessions: StageSessions;
  readonly #tensor: TensorClass;
  /** Of a row of the model's own distribution. */
  readonly #ownWidth: number;
  /** What all layers are told of a chunk's rows. */
  readonly #places = new WeakMap<Chunk, Feeds>();
  /** One latent and one key cache serve all layers: a layer runs over the whole sequence before the next starts. */
  #latent = new Float32Array();
  #indexerKeys = new Float32Array();

  private constructor(
    config: DsaConfig,
    sessions: StageSessions,
    tensor: TensorClass,
    ownWidth: number,
    staysFrom: number,
  ) {
    this.config = config;
    this.#sessions = sessions;
    this.#tensor = tensor;
    this.#ownWidth = ownWidth;
    const layers = config.numHiddenLayers;
    const passing = Array.from({ length: staysFrom }, (_, from) => ({ from, to: from + 1 }));
    this.ranges = staysFrom < layers ? [...passing, { from: staysFrom, to: layers }] : passing;
  }

  /**
   * Loads the stages that losses need, or logits.
   * @param top tokens of the model's own distribution that are kept, where divergences are asked for beside losses
   * @param room loads only what stays by it; layers below come and go
   * @param logits loads the head that makes logits in the place of losses
   */
  static async open(
    model: ModelFolder,
    settings: Omit<SessionSettings, "folder">,
    { top, room, logits = false }: StageOptions = {},
  ): Promise<StageModel> {
    const { config, places, stage, weights } = model;
    const { Tensor } = await loadRuntime();
    const open = async (name: LoadedStage) => {
      const graph =
        name === divergenceStage
          ? encodeModel(buildDivergenceStage(config, await weights(), top as number))
          : await stage(name);
      return await OnnxSession.create(graph, name, { ...settings, folder: places.folder });
    };
    const passing = room === undefined ? undefined : { room, sizes: modelSizes(await weights()) };
    const sessions = new StageSessions(open, passing);
    const width = top === undefined ? 0 : ownWidth(top);
    const stages = new StageModel(config, sessions, Tensor, width, room?.staysFrom ?? 0);
    // What comes and goes is opened when it is asked for, and what stays with it.
    if (passing !== undefined) return stages;
    const head = logits ? "head" : top === undefined ? "loss" : divergenceStage;
    try {
      for (const name of [...layerStages(config), head] as const) {
        await sessions.open(name);
      }
    } catch (error) {
      await stages.release();
      throw error;
    }
    return stages;
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
    const cache = kept ?? this.#reserveIndexerKeys(rows.length * width);
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
    const cache = kept ?? this.#reserveLatent(rows.length * width);
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
   * Negative log-likelihood of each next token, `[length - 1]`, nats.
   * @param known losses of the invariant rows
   */
  async negativeLogLikelihood(
    hidden: Float32Array,
    ids: Int32Array,
    rows: SequenceRows,
    known?: Float32Array,
  ): Promise<Float32Array> {
    const from = known === undefined ? 0 : rows.invariant;
    const losses = new Float32Array(rows.length - 1);
    losses.set(known ?? []);
    await this.#forTargets(hidden, ids, rows, from, async (start, _last, feeds) => {
      const outputs = await this.#run("loss", feeds);
      losses.set(floats(outputs.negative_log_likelihood, "negative_log_likelihood"), start);
    });
    return losses;
  }

  /** Logits behind the last row, `[vocab_size]`. */
  async lastLogits(hidden: Float32Array): Promise<Float32Array> {
    return await this.logits(hidden.slice(-this.config.hiddenSize));
  }

  /** Logits after each row of hidden states `[rows, hidden_size]`: `[rows, vocab_size]`. */
  async logits(hidden: Float32Array): Promise<Float32Array> {
    const width = this.config.hiddenSize;
    const outputs = await this.#run("head", { hidden_states: this.#matrix(hidden, 0, hidden.length / width, width) });
    return floats(outputs.logits, "logits");
  }

  /** Losses of the model's own pattern and what is kept of its distributions, `[length - 1, 1 + 2 top]`. */
  ownDistribution(hidden: Float32Array, ids: Int32Array, rows: SequenceRows): Promise<Float32Array> {
    return this.#divergence(hidden, ids, rows, 0, this.#ownWidth, undefined);
  }

  /**
   * Loss and KL divergence of each next token behind the invariant rows, `[length - 1 - invariant, 2]`, nats.
   * @param own rows of the model's own distribution, from the first of these rows on
   */
  divergence(hidden: Float32Array, ids: Int32Array, rows: SequenceRows, own: Float32Array): Promise<Float32Array> {
    return this.#divergence(hidden, ids, rows, rows.invariant, divergenceWidth, own);
  }

  async #divergence(
    hidden: Float32Array,
    ids: Int32Array,
    rows: SequenceRows,
    from: number,
    width: number,
    own: Float32Array | undefined,
  ): Promise<Float32Array> {
    const { baseline, own: isOwn, output } = divergenceNames;
    const results = new Float32Array(Math.max(0, rows.length - 1 - from) * width);
    await this.#forTargets(hidden, ids, rows, from, async (start, last, feeds) => {
      const [first, end] = own === undefined ? [0, 0] : [start - from, last - from];
      const outputs = await this.#run(divergenceStage, {
        ...feeds,
        [baseline]: this.#matrix(own ?? new Float32Array(), first, end, this.#ownWidth),
        [isOwn]: new this.#tensor("bool", Uint8Array.of(own === undefined ? 1 : 0), []),
      });
      results.set(floats(outputs[output], output), (start - from) * width);
    });
    return results;
  }

  /** Calls `run` for the rows `start` to `last` of each chunk from row `from` on that have a next token. */
  async #forTargets(
    hidden: Float32Array,
    ids: Int32Array,
    rows: SequenceRows,
    from: number,
    run: (start: number, last: number, feeds: Feeds) => Promise<void>,
  ): Promise<void> {
    for (const { start, end } of rows.chunks) {
      const last = Math.min(end, rows.length - 1);
      if (start < from || last <= start) continue;
      await run(start, last, {
        hidden_states: this.#matrix(hidden, start, last, this.config.hiddenSize),
        target_ids: this.#int64(BigInt64Array.from(ids.subarray(start + 1, last + 1), BigInt)),
      });
    }
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

  #reserveLatent(size: number): Float32Array {
    if (this.#latent.length < size) this.#latent = new Float32Array(size);
    return this.#latent;
  }

  #reserveIndexerKeys(size: number): Float32Array {
    if (this.#indexerKeys.length < size) this.#indexerKeys = new Float32Array(size);
    return this.#indexerKeys;
  }

  async #run(name: LoadedStage, feeds: Feeds): Promise<Feeds> {
    return await (await this.#sessions.at(name)).run(feeds);
  }
}

/** The selection of a chunk of invariant rows: all keys up to its end. */
function everyKey({ start, end }: Chunk): SelectedKeys {
  return { indices: Int32Array.from({ length: (end - start) * end }, (_, i) => i % end), width: end };
}

function layerStages({ indexerLayers }: DsaConfig): StageName[] {
  const layers = [...indexerLayers].map((letter, layer) =>
    letter === "F" ? [indexerStage(layer), bodyStage(layer)] : [bodyStage(layer)],
  );
  return ["embed", ...layers.flat()];
}
