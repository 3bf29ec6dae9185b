/** Carries hidden states over a range of layers, every layer with its own indexer. */
import type { Tensor } from "onnxruntime-node";
import type { DsaConfig } from "../../checkpoint/model-config.ts";
import { encodeModel } from "../../graph/graph-builder.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { buildRangeGraph, type LayerRange } from "../../graph/training/distill-graph.ts";
import { providerOf } from "../execution-provider.ts";
import type { ComputeDevice } from "../measurement.ts";
import { type Feeds, floats, loadRuntime, OnnxSession } from "../onnx-session.ts";

export interface LayerStatesSettings {
  device: ComputeDevice;
  threads: number;
  /** Sequences of one run. */
  batch: number;
  /** Tokens of a sequence. */
  length: number;
}

export class LayerStates {
  readonly #session: OnnxSession;
  readonly #tensor: typeof Tensor;
  readonly #config: DsaConfig;
  readonly #settings: LayerStatesSettings;
  readonly #embeds: boolean;
  readonly #positions: BigInt64Array;

  private constructor(
    session: OnnxSession,
    tensor: typeof Tensor,
    config: DsaConfig,
    settings: LayerStatesSettings,
    embeds: boolean,
  ) {
    this.#session = session;
    this.#tensor = tensor;
    this.#config = config;
    this.#settings = settings;
    this.#embeds = embeds;
    const { batch, length } = settings;
    this.#positions = BigInt64Array.from({ length: batch * length }, (_, row) => BigInt(row % length));
  }

  static async open(model: ModelFolder, range: LayerRange, settings: LayerStatesSettings): Promise<LayerStates> {
    const { batch, length } = settings;
    const shape = { batch, length, chunks: 1, chunkRows: length };
    const weights = await model.weights();
    const graph = buildRangeGraph(model.config, weights, range, shape, providerOf(settings.device));
    const { Tensor } = await loadRuntime();
    const session = await OnnxSession.create(encodeModel(graph), `layers ${range.from} to ${range.to - 1}`, {
      device: settings.device,
      threads: settings.threads,
      folder: model.places.folder,
      solo: true,
    });
    return new LayerStates(session, Tensor, model.config, settings, range.from === range.to);
  }

  /**
   * @param input token ids `[batch * length]` of a range without layers, else states `[batch * length, hidden_size]`
   * @returns the states after the range's last layer, `[batch * length, hidden_size]`
   */
  async run(input: BigInt64Array | Float32Array): Promise<Float32Array> {
    const rows = this.#settings.batch * this.#settings.length;
    const feeds: Feeds = { position_ids: new this.#tensor("int64", this.#positions, [rows]) };
    if (this.#embeds) feeds.input_ids = new this.#tensor("int64", input as BigInt64Array, [rows]);
    else feeds.hidden_states = new this.#tensor("float32", input as Float32Array, [rows, this.#config.hiddenSize]);
    const outputs = await this.#session.run(feeds);
    return floats(outputs.next_hidden_states, "next_hidden_states");
  }

  async release(): Promise<void> {
    await this.#session.release();
  }
}
