/**
 * Inference with a pattern: one graph of it, or of several, the prompt in runs of several rows and then one token a run. Shared layers
 * have neither indexer weights nor index keys. On a CPU the caches are in JavaScript and grow; on CUDA they have a fixed
 * size, on the device in float16, in host memory in float32.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Tensor } from "onnxruntime-node";
import { InputError, InterruptedError } from "../../base/errors.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import {
  cachedBytes,
  type GenerationSettings,
  hasLayersInput,
  layersInput,
  wayInput,
  waysOf,
} from "../../graph/frames/generation-graph.ts";
import { selectInput } from "../../graph/frames/sequence-graph.ts";
import { kernelsOf } from "../../graph/layer/kernels.ts";
import { fullLayers, isFull, type Pattern } from "../../pattern/pattern.ts";
import type { Decoder } from "../measurement.ts";
import { type Feeds, floats, type OnnxSession } from "../session/onnx-session.ts";
import { chunksOf, rowsOfLogits } from "../stages/chunks.ts";
import type { FedCache } from "./fed-cache.ts";
import { decodeRun, type GenerationRun, promptRuns } from "./generation-runs.ts";
import { scoreRows } from "./sampling.ts";

/** A graph of a pattern that is open, and what it is. */
interface OpenGraph {
  config: DsaConfig;
  /** The layers whose indexers and index keys it has; a generation graph may leave some out, run by run. */
  held: Pattern;
  session: OnnxSession;
  tensor: typeof Tensor;
  /** Of a generation graph; caches grow where absent. */
  fixed: GenerationSettings | undefined;
  /** Tokens that caches of a fixed size are made for. */
  tokens: number;
  bytesPerElement: number;
}

/** A decoder that can score tokens without advancing, and start again. */
export class CachedDecoder implements Decoder {
  readonly vocabularySize: number;
  readonly plan: string[];
  readonly #graph: OpenGraph;
  readonly #config: DsaConfig;
  /** Empty where caches are resident. */
  readonly #caches: FedCache[];
  #pattern: Pattern;
  #position = 0;
  /** What has put the tokens into caches that cannot be set aside. */
  #runs: (GenerationRun & { ids: readonly number[] })[] = [];
  #made = 0;
  #saved = 0;

  constructor(pattern: Pattern, graph: OpenGraph, caches: FedCache[], plan: string[]) {
    this.#pattern = pattern;
    this.vocabularySize = graph.config.vocabSize;
    this.plan = plan;
    this.#graph = graph;
    this.#config = graph.config;
    this.#caches = caches;
  }

  get pattern(): Pattern {
    return this.#pattern;
  }

  /**
   * Forgets all tokens and follows another pattern from now on.
   * @param pattern one that the decoder was opened for
   */
  startAgain(pattern: Pattern): void {
    this.follow(pattern);
    this.rewind(0);
  }

  /**
   * Follows another pattern from here on, for timings: index keys of tokens so far are missing where the last one had no
   * indexer.
   * @param pattern one that the decoder was opened for
   */
  follow(pattern: Pattern): void {
    const { held, fixed } = this.#graph;
    const strange = [...held].some(
      (letter, layer) => letter !== pattern[layer] && fixed?.switched?.includes(layer) !== true,
    );
    if (strange || pattern.length !== held.length) throw new RangeError(`the graph of ${held} does not run ${pattern}`);
    this.#pattern = pattern;
  }

  get indexerExecutions(): { made: number; saved: number } {
    return { made: this.#made, saved: this.#saved };
  }

  get cacheBytes(): { latent: number; indexerKey: number } {
    return cachedBytes(this.#config, this.pattern, this.position * this.#graph.bytesPerElement);
  }

  /** Do the caches grow? Otherwise there is room for as many tokens as they were made for. */
  get grows(): boolean {
    return this.#graph.fixed === undefined;
  }

  /** Tokens in the caches. */
  get position(): number {
    return this.#position;
  }

  /** Runs of the graph since it was opened. */
  get runs(): number {
    return this.#graph.session.traffic.runs;
  }

  async prefill(ids: readonly number[], signal?: AbortSignal): Promise<Float32Array> {
    if (ids.length === 0) throw new InputError("The prompt has no tokens");
    return await this.#extend(ids, signal);
  }

  async decode(id: number): Promise<Float32Array> {
    this.#requireRoom(1);
    const { position } = this;
    const run = this.#graph.fixed === undefined ? plain(position, position + 1) : decodeRun(this.#config, position);
    return await this.#run(run, [id], false);
  }

  /** Forgets the tokens from `position` on: what is written next takes their place. */
  rewind(position: number): void {
    if (!(position >= 0 && position <= this.position)) throw new RangeError(`no position ${position} to go back to`);
    this.#position = position;
    for (const { rows } of this.#caches) rows.truncate(position);
    // What is cut off a run counts as padding: run again, it keeps its shape and with it its bits.
    this.#runs = this.#runs
      .filter(({ start }) => start < position)
      .map((run) => ({
        ...run,
        ids: run.ids.slice(0, position - run.start),
        end: Math.min(run.end, position),
        padding: run.padding + Math.max(run.end - position, 0),
      }));
  }

  /** Takes `count` rows for tokens that have been run, for timings: `write` makes up what caches in host memory hold. */
  fill(count: number, write: (rows: Float32Array) => void): void {
    this.#requireRoom(count);
    for (const { rows } of this.#caches) {
      rows.truncate(this.position);
      const added = rows.extend(count);
      if (added instanceof Float32Array) write(added);
    }
    this.#position += count;
  }

  /**
   * Scores `ids[start..]` after what is known of those before; the tokens so far stay as they were.
   * @param ids agree with the decoder's tokens up to `start`, which is at least 1 and at most the tokens so far
   * @returns the log-probability of each token of `ids` from `start` on, and the logits after the last one
   */
  async lookAhead(
    ids: readonly number[],
    start: number,
    signal?: AbortSignal,
  ): Promise<{ logProbabilities: number[]; logits: Float32Array }> {
    const counts = [this.#made, this.#saved] as const;
    // The row before `start` runs again: nobody keeps the logits of rows inside a prompt.
    const putBack = this.#setAside(start - 1);
    try {
      const logProbabilities: number[] = [];
      const logits = await this.#extend(ids.slice(start - 1), signal, (all, first) =>
        scoreRows(all, this.vocabularySize, ids, first, logProbabilities),
      );
      return { logProbabilities, logits };
    } finally {
      await putBack();
      [this.#made, this.#saved] = counts;
    }
  }

  /** How a prompt of so many tokens is cut. @param most rows of a run */
  runsOf(start: number, end: number, most?: number): GenerationRun[] {
    const { fixed } = this.#graph;
    if (fixed !== undefined)
      return promptRuns(this.#config, kernelsOf(fixed.provider, fixed.precision, fixed), start, end, most);
    return chunksOf(this.#config, start, end).flatMap((chunk) => {
      const rows = most ?? chunk.end - chunk.start;
      const pieces = Array.from(
        { length: Math.ceil((chunk.end - chunk.start) / rows) },
        (_, i) => chunk.start + i * rows,
      );
      return pieces.map((first) => plain(first, Math.min(first + rows, chunk.end)));
    });
  }

  async release(): Promise<void> {
    await this.#graph.session.release();
  }

  /**
   * Forgets the rows from `position` on and returns what brings them back in the place of whatever has come since. Caches on
   * the device cannot be copied: runs whose rows were overwritten are made again.
   */
  #setAside(position: number): () => Promise<void> {
    if (this.#graph.fixed === undefined) {
      const before = this.position;
      const kept = this.#caches.map(({ rows }) => rows.cut(position));
      this.#position = position;
      return async () => {
        this.rewind(position);
        for (const [index, { rows }] of this.#caches.entries()) rows.append(kept[index] as Float32Array);
        this.#position = before;
      };
    }
    const again = this.#runs.filter(({ end }) => end > position);
    const from = again[0]?.start ?? position;
    this.rewind(position);
    return async () => {
      this.rewind(from);
      for (const { ids, ...run } of again) await this.#run(run, ids, false);
    };
  }

  /**
   * Runs the next tokens.
   * @param read takes the logits of every row of a run and the position of its first, and returns those of the last one
   */
  async #extend(
    ids: readonly number[],
    signal: AbortSignal | undefined,
    read?: (logits: Float32Array, first: number) => Float32Array,
  ): Promise<Float32Array> {
    const first = this.position;
    this.#requireRoom(ids.length);
    const most = read === undefined ? undefined : rowsOfLogits(this.vocabularySize);
    let logits: Float32Array = new Float32Array();
    for (const run of this.runsOf(first, first + ids.length, most)) {
      // A run blocks the event loop; between runs a signal can arrive.
      await nextTurn();
      if (signal?.aborted) throw new InterruptedError("Interrupted");
      const all = await this.#run(run, ids.slice(run.start - first, run.end - first), read !== undefined);
      logits = read === undefined ? all : read(all, run.start);
    }
    return logits;
  }

  #requireRoom(tokens: number): void {
    const { fixed, tokens: room } = this.#graph;
    if (fixed === undefined || this.position + tokens <= room) return;
    throw new InputError(`The caches were made for ${room} tokens, and ${this.position + tokens} are needed`);
  }

  /** Logits of the last row, or of each. */
  async #run(run: GenerationRun, ids: readonly number[], ofEachRow: boolean): Promise<Float32Array> {
    const { start, end, padding } = run;
    const { fixed } = this.#graph;
    const rows = Array.from({ length: end - start + padding }, (_, row) => row);
    const feeds: Feeds = {
      input_ids: this.#int64(rows.map((row) => ids[row] ?? 0)),
      position_ids: this.#int64(rows.map((row) => start + row)),
      ...(fixed === undefined
        ? { logits_to_keep: this.#int64([ofEachRow ? ids.length : 1]) }
        : this.#fixedFeeds(fixed, run, ofEachRow ? rows.slice(0, ids.length) : [ids.length - 1])),
    };
    for (const cache of this.#caches) feeds[cache.past] = cache.tensor(this.#graph.tensor);
    const outputs = await this.#graph.session.run(feeds);
    for (const cache of this.#caches) cache.put(start, outputs);
    this.#position += ids.length;
    if (fixed !== undefined) this.#runs.push({ ...run, ids });
    // With no more keys than index_topk there is nothing to select, and nothing that a Shared layer could save.
    if (end > this.#config.indexTopk) {
      const full = fullLayers(this.pattern).length;
      this.#made += full;
      this.#saved += this.#config.numHiddenLayers - full;
    }
    return floats(outputs.logits, "logits");
  }

  /** What a generation graph is told beside the rows. @param wanted rows whose logits are wanted */
  #fixedFeeds(fixed: GenerationSettings, { way, blocks }: GenerationRun, wanted: readonly number[]): Feeds {
    const feeds: Feeds = {
      logits_row: this.#int64(wanted),
      readable_blocks: new this.#graph.tensor("float32", new Float32Array(), [blocks, 0]),
    };
    for (const each of waysOf(this.#config, fixed).slice(0, -1)) {
      feeds[wayInput(each)] = this.#bool(each === way);
    }
    if (hasLayersInput(this.#config)) feeds[layersInput] = this.#bool(true);
    for (const layer of fixed.switched ?? []) feeds[selectInput(layer)] = this.#bool(isFull(this.#pattern, layer));
    return feeds;
  }

  #bool(value: boolean): Tensor {
    return new this.#graph.tensor("bool", Uint8Array.of(value ? 1 : 0), []);
  }

  #int64(values: readonly number[]): Tensor {
    return new this.#graph.tensor("int64", BigInt64Array.from(values, BigInt), [values.length]);
  }
}

/** A run of a graph whose caches grow: nothing is padded, and the graph sees in shapes what it has to do. */
function plain(start: number, end: number): GenerationRun {
  return { start, end, padding: 0, way: "every", blocks: 0 };
}
