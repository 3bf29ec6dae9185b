/** A joined graph with the caches of one sequence: rows go in, logits come out, and the caches grow. */
import type { Tensor } from "onnxruntime-node";
import { sum } from "../base/sum.ts";
import type { DsaConfig } from "../checkpoint/model-config.ts";
import {
  givenSelection,
  latentWidth,
  newIndexerKey,
  newLatent,
  pastIndexerKey,
  pastLatent,
} from "../graph/contract.ts";
import { type Feeds, floats, loadRuntime, OnnxSession, type SessionSettings } from "./onnx-session.ts";
import { RowCache } from "./row-cache.ts";
import type { SelectedKeys } from "./stage-model.ts";

/** A cache and the names under which the graph reads it and gives its new rows. */
interface NamedCache {
  past: string;
  fresh: string;
  rows: RowCache;
}

export interface GraphCaches {
  /** Layers that keep indexer keys. */
  indexers: readonly number[];
  /** Rows that the caches hold before they first grow. */
  capacity: number;
}

export class CachedGraph {
  readonly #session: OnnxSession;
  readonly #tensor: typeof Tensor;
  readonly #latents: NamedCache[];
  readonly #indexerKeys: NamedCache[];
  #position = 0;

  private constructor(config: DsaConfig, session: OnnxSession, tensor: typeof Tensor, caches: GraphCaches) {
    this.#session = session;
    this.#tensor = tensor;
    this.#latents = Array.from({ length: config.numHiddenLayers }, (_, layer) => ({
      past: pastLatent(layer),
      fresh: newLatent(layer),
      rows: new RowCache(latentWidth(config), caches.capacity),
    }));
    this.#indexerKeys = caches.indexers.map((layer) => ({
      past: pastIndexerKey(layer),
      fresh: newIndexerKey(layer),
      rows: new RowCache(config.indexHeadDim, caches.capacity),
    }));
  }

  static async open(
    config: DsaConfig,
    graph: Uint8Array,
    name: string,
    caches: GraphCaches,
    settings: SessionSettings,
  ): Promise<CachedGraph> {
    const { Tensor } = await loadRuntime();
    return new CachedGraph(config, await OnnxSession.create(graph, name, settings), Tensor, caches);
  }

  /** Rows in the caches. */
  get position(): number {
    return this.#position;
  }

  get cacheBytes(): { latent: number; indexerKey: number } {
    const bytes = (caches: NamedCache[]) => sum(caches.map(({ rows }) => rows.bytes));
    return { latent: bytes(this.#latents), indexerKey: bytes(this.#indexerKeys) };
  }

  /**
   * Runs the next tokens; gives the logits of the last one, `[vocab]`.
   * @param given the selection of these rows, for a graph without indexers
   */
  async forward(ids: readonly number[], given?: SelectedKeys): Promise<Float32Array> {
    const start = this.#position;
    const feeds: Feeds = {
      input_ids: this.#int64(BigInt64Array.from(ids, BigInt)),
      position_ids: this.#int64(BigInt64Array.from(ids, (_, i) => BigInt(start + i))),
      logits_to_keep: this.#int64(BigInt64Array.of(1n)),
    };
    if (given !== undefined) {
      feeds[givenSelection.name] = new this.#tensor("int32", given.indices, [ids.length, given.width]);
    }
    const caches = [...this.#latents, ...this.#indexerKeys];
    for (const { past, rows } of caches) {
      feeds[past] = new this.#tensor("float32", rows.view(), [rows.length, rows.width]);
    }
    const outputs = await this.#session.run(feeds);
    for (const { fresh, rows } of caches) rows.append(floats(outputs[fresh], fresh));
    this.#position += ids.length;
    return floats(outputs.logits, "logits");
  }

  /** Puts `count` rows into the caches without running anything: `row(width)` gives the content of one. */
  fill(count: number, rows: (count: number, width: number) => Float32Array): void {
    for (const { rows: cache } of [...this.#latents, ...this.#indexerKeys]) cache.append(rows(count, cache.width));
    this.#position += count;
  }

  /** Back to `position` rows in the caches. */
  rewind(position: number): void {
    for (const { rows } of [...this.#latents, ...this.#indexerKeys]) rows.truncate(position);
    this.#position = Math.min(position, this.#position);
  }

  async release(): Promise<void> {
    await this.#session.release();
  }

  #int64(values: BigInt64Array): Tensor {
    return new this.#tensor("int64", values, [values.length]);
  }
}
