/** One indexer as a graph of its own, with its key cache: what it selects, and what it takes by itself. */
import type { Tensor } from "onnxruntime-node";
import type { Clock } from "../../base/clock.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { indexerStage, type StageName } from "../../graph/exported/contract.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { type Feeds, floats, int32s, loadRuntime, OnnxSession, type SessionSettings } from "../session/onnx-session.ts";
import { RowCache } from "./row-cache.ts";
import type { SelectedKeys } from "./stage-model.ts";

export interface AloneResult {
  selected: SelectedKeys;
  /** Seconds of the indexer. */
  indexer: number;
  /** Seconds of embedding and head, which are in no layer. */
  other: number;
}

/** The indexer of layer 0, which every pattern has; its hidden states are those of the embedding. */
export class IndexerAlone {
  readonly #config: DsaConfig;
  readonly #sessions: Map<StageName, OnnxSession>;
  readonly #tensor: typeof Tensor;
  readonly #keys: RowCache;

  private constructor(config: DsaConfig, sessions: Map<StageName, OnnxSession>, tensor: typeof Tensor, keys: RowCache) {
    this.#config = config;
    this.#sessions = sessions;
    this.#tensor = tensor;
    this.#keys = keys;
  }

  static async open(
    model: ModelFolder,
    capacity: number,
    settings: Omit<SessionSettings, "folder">,
  ): Promise<IndexerAlone> {
    const { Tensor } = await loadRuntime();
    const sessions = new Map<StageName, OnnxSession>();
    for (const name of ["embed", indexerStage(0), "head"] as const) {
      sessions.set(
        name,
        await OnnxSession.create(await model.stage(name), name, { ...settings, folder: model.places.folder }),
      );
    }
    return new IndexerAlone(model.config, sessions, Tensor, new RowCache(model.config.indexHeadDim, capacity));
  }

  /** Runs of the indexer since it was opened. */
  get runs(): number {
    return (this.#sessions.get(indexerStage(0)) as OnnxSession).traffic.runs;
  }

  /** Runs the next tokens, timed by `clock`. */
  async forward(ids: readonly number[], clock: Clock): Promise<AloneResult> {
    const start = this.#keys.length;
    const { hiddenSize } = this.#config;
    const positions = this.#int64(BigInt64Array.from(ids, (_, i) => BigInt(start + i)));
    const begun = clock();
    const embedded = await this.#run("embed", {
      input_ids: this.#int64(BigInt64Array.from(ids, BigInt)),
      position_ids: positions,
    });
    const hidden = floats(embedded.hidden_states, "hidden_states");
    await this.#run("head", {
      hidden_states: new this.#tensor("float32", hidden.subarray((ids.length - 1) * hiddenSize), [1, hiddenSize]),
    });
    const between = clock();
    const outputs = await this.#run(indexerStage(0), {
      ...embedded,
      position_ids: positions,
      past_indexer_key: new this.#tensor("float32", this.#keys.view(), [start, this.#keys.width]),
    });
    this.#keys.append(floats(outputs.indexer_key, "indexer_key"));
    const ended = clock();
    const indices = outputs.topk_indices;
    return {
      selected: { indices: int32s(indices, "topk_indices"), width: indices?.dims[1] ?? 0 },
      indexer: ended - between,
      other: between - begun,
    };
  }

  /** Adds `count` keys to the cache without running anything; `write` gives them their content. */
  fill(count: number, write: (rows: Float32Array) => void): void {
    write(this.#keys.extend(count));
  }

  rewind(position: number): void {
    this.#keys.truncate(position);
  }

  async release(): Promise<void> {
    for (const session of this.#sessions.values()) await session.release();
  }

  #run(name: StageName, feeds: Feeds): Promise<Feeds> {
    return (this.#sessions.get(name) as OnnxSession).run(feeds);
  }

  #int64(values: BigInt64Array): Tensor {
    return new this.#tensor("int64", values, [values.length]);
  }
}
