/** A joined graph with the caches of one sequence: rows go in, logits come out, and the caches grow. */
import type { Tensor } from "onnxruntime-node";
import { sum } from "../../base/sum.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import {
  givenSelection,
  latentWidth,
  newIndexerKey,
  newLatent,
  pastIndexerKey,
  pastLatent,
} from "../../graph/exported/contract.ts";
import { type Feeds, floats, loadRuntime, OnnxSession, type SessionSettings } from "../session/onnx-session.ts";
import { RowCache } from "../stages/row-cache.ts";
import type { SelectedKeys } from "../stages/stage-model.ts";

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

/** Caches that others have filled: one of latents a layer and one of keys a layer that keeps them, all equally long. */
export interface FilledCaches {
  latents: readonly RowCache[];
  indexerKeys: ReadonlyMap<number, RowCache>;
}

export class CachedGraph {
  readonly #config: DsaConfig;
  readonly #session: OnnxSession;
  readonly #tensor: typeof Tensor;
  readonly #settings: GraphCaches;
  #latents: NamedCache[] = [];
  #indexerKeys: NamedCache[] = [];
  #position = 0;

  private constructor(config: DsaConfig, session: OnnxSession, tensor: typeof Tensor, caches: GraphCaches) {
    this.#config = config;
    this.#session = session;
    this.#tensor = tensor;
    this.#settings = caches;
    this.restart();
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

  /** Runs of the graph since it was opened. */
  get runs(): number {
    return this.#session.traffic.runs;
  }

  get cacheBytes(): { latent: number; indexerKey: number } {
    const bytes = (caches: NamedCache[]) => sum(caches.map(({ rows }) => rows.bytes));
    return { latent: bytes(this.#latents), indexerKey: bytes(this.#indexerKeys) };
  }

  /** Begins a sequence in caches of its own. */
  restart(): void {
    const { capacity } = this.#settings;
    this.#use(
      () => new RowCache(latentWidth(this.#config), capacity),
      () => new RowCache(this.#config.indexHeadDim, capacity),
      0,
    );
  }

  /** Works on these caches from now on, and appends to them. */
  adopt({ latents, indexerKeys }: FilledCaches): void {
    this.#use(
      (layer) => latents[layer] as RowCache,
      (layer) => indexerKeys.get(layer) as RowCache,
      latents[0]?.length ?? 0,
    );
  }

  /**
   * Runs the next tokens; gives the logits of the last `keep` of them, `[keep, vocab]`.
   * @param given the selection of these rows, for a graph without indexers
   */
  async forward(
    ids: readonly number[],
    { given, keep = 1 }: { given?: SelectedKeys | undefined; keep?: number } = {},
  ): Promise<Float32Array> {
    const start = this.#position;
    const feeds: Feeds = {
      input_ids: this.#int64(BigInt64Array.from(ids, BigInt)),
      position_ids: this.#int64(BigInt64Array.from(ids, (_, i) => BigInt(start + i))),
      logits_to_keep: this.#int64(BigInt64Array.of(BigInt(keep))),
    };
    if (given !== undefined) {
      feeds[givenSelection.name] = new this.#tensor("int32", given.indices, [ids.length, given.width]);
    }
    const caches = this.#caches();
    for (const { past, rows } of caches) {
      feeds[past] = new this.#tensor("float32", rows.view(), [rows.length, rows.width]);
    }
    const outputs = await this.#session.run(feeds);
    for (const { fresh, rows } of caches) rows.append(floats(outputs[fresh], fresh));
    this.#position += ids.length;
    return floats(outputs.logits, "logits");
  }

  /** Adds `count` rows to the caches without running anything; `write` gives them their content. */
  fill(count: number, write: (rows: Float32Array) => void): void {
    for (const { rows } of this.#caches()) write(rows.extend(count));
    this.#position += count;
  }

  /** Back to `position` rows in the caches. */
  rewind(position: number): void {
    for (const { rows } of this.#caches()) rows.truncate(position);
    this.#position = Math.min(position, this.#position);
  }

  /** Takes the rows from `position` on off; gives what puts them back in the place of whatever has come since. */
  setAside(position: number): () => void {
    const before = this.#position;
    const taken = this.#caches().map(({ rows }) => ({ rows, kept: rows.cut(position) }));
    this.#position = position;
    return () => {
      for (const { rows, kept } of taken) {
        rows.truncate(position);
        rows.append(kept);
      }
      this.#position = before;
    };
  }

  async release(): Promise<void> {
    await this.#session.release();
  }

  #use(latents: (layer: number) => RowCache, keys: (layer: number) => RowCache, position: number): void {
    this.#latents = Array.from({ length: this.#config.numHiddenLayers }, (_, layer) => ({
      past: pastLatent(layer),
      fresh: newLatent(layer),
      rows: latents(layer),
    }));
    this.#indexerKeys = this.#settings.indexers.map((layer) => ({
      past: pastIndexerKey(layer),
      fresh: newIndexerKey(layer),
      rows: keys(layer),
    }));
    this.#position = position;
  }

  #caches(): NamedCache[] {
    return [...this.#latents, ...this.#indexerKeys];
  }

  #int64(values: BigInt64Array): Tensor {
    return new this.#tensor("int64", values, [values.length]);
  }
}
