/** Carries hidden states over a range of layers, every layer with its own indexer. */
import type { Tensor } from "onnxruntime-node";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import type { LayerRange } from "../../graph/exported/contract.ts";
import type { SequenceShape } from "../../graph/frames/sequence-rows.ts";
import { encodeModel } from "../../graph/graph-builder.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { boundaryOutput, buildRangeGraph, type StatesType } from "../../graph/training/range-graph.ts";
import { rowBytes } from "../loss/sequence-batch.ts";
import type { ComputeDevice } from "../measurement.ts";
import { providerOf } from "../session/execution-provider.ts";
import { type Feeds, floats, OnnxSession } from "../session/onnx-session.ts";

export interface LayerStatesSettings {
  device: ComputeDevice;
  threads: number;
  /** Sequences of one run. */
  batch: number;
  /** Tokens of a sequence. */
  length: number;
  /** How states are fed; numbers by default. */
  states?: StatesType;
  /** Boundaries above the range's first that are asked for; all of them, unless given. */
  boundaries?: readonly number[];
}

/** Bytes that the widest tensors of one chunk of query rows may take. */
const chunkBytes = 1.25 * 2 ** 30;
/** Fewer rows than this starve the matrix products. */
const minChunkRows = 64;

/** Sequences cut into as few equal chunks of query rows as keep within `chunkBytes`. */
export function rangeShape(
  config: DsaConfig,
  { batch, length }: Pick<LayerStatesSettings, "batch" | "length">,
): SequenceShape {
  const perRow = batch * rowBytes({ ...config, vocabSize: 0 }, length);
  let chunks = 1;
  for (let count = 1; length / count >= minChunkRows; count++) {
    if (length % count !== 0) continue;
    chunks = count;
    if ((length / count) * perRow <= chunkBytes) break;
  }
  return { batch, length, chunks, chunkRows: length / chunks };
}

export class LayerStates {
  readonly #session: OnnxSession;
  readonly #hiddenSize: number;
  readonly #range: LayerRange;
  readonly #boundaries: readonly number[];
  readonly #positions: Tensor;

  private constructor(
    session: OnnxSession,
    hiddenSize: number,
    range: LayerRange,
    boundaries: readonly number[],
    settings: LayerStatesSettings,
  ) {
    this.#session = session;
    this.#hiddenSize = hiddenSize;
    this.#range = range;
    this.#boundaries = boundaries;
    this.#positions = rowPositions(session, settings);
  }

  static async open(model: ModelFolder, range: LayerRange, settings: LayerStatesSettings): Promise<LayerStates> {
    const { from, to } = range;
    const above = Array.from({ length: to - from }, (_, index) => from + 1 + index);
    const boundaries = from === to ? [from] : (settings.boundaries ?? above);
    const shape = rangeShape(model.config, settings);
    const weights = await model.weights();
    const { device, states = "float32" } = settings;
    const graph = buildRangeGraph(model.config, weights, range, boundaries, shape, providerOf(device), states);
    const session = await OnnxSession.create(encodeModel(graph), `layers ${range.from} to ${range.to - 1}`, {
      device: settings.device,
      threads: settings.threads,
      folder: model.places.folder,
      solo: true,
    });
    return new LayerStates(session, model.config.hiddenSize, range, boundaries, settings);
  }

  /**
   * @param input token ids `[batch * length]` of a range without layers, else states `[batch * length, hidden_size]`: numbers,
   *   or bits of bfloat16, as the session was opened for
   * @returns by layer, the states at each boundary that is asked for: those that enter the layer, float32
   *   `[batch * length, hidden_size]`. Of a range without layers: those that enter its layer.
   */
  async run(input: BigInt64Array | Float32Array | Uint16Array): Promise<Map<number, Float32Array>> {
    const { from, to } = this.#range;
    const { Tensor } = this.#session;
    const [rows = 0] = this.#positions.dims;
    const feeds: Feeds =
      from === to
        ? { input_ids: new Tensor("int64", input as BigInt64Array, [rows]) }
        : {
            hidden_states: statesTensor(this.#session, input as Float32Array | Uint16Array, [rows, this.#hiddenSize]),
            position_ids: this.#positions,
          };
    const outputs = await this.#session.run(feeds);
    return new Map(
      this.#boundaries.map((layer) => {
        const name = boundaryOutput(layer);
        return [layer, floats(outputs[name], name)] as const;
      }),
    );
  }

  async release(): Promise<void> {
    await this.#session.release();
  }
}

/** Numbers, or bits of bfloat16, as a session takes them. */
export function statesTensor(
  { Tensor }: OnnxSession,
  states: Float32Array | Uint16Array,
  shape: readonly number[],
): Tensor {
  return states instanceof Float32Array ? new Tensor("float32", states, shape) : new Tensor("uint16", states, shape);
}

/** Positions of a batch's rows, sequence after sequence, as the training graphs take them: int64 `[batch * length]`. */
export function rowPositions(session: OnnxSession, { batch, length }: { batch: number; length: number }): Tensor {
  const positions = BigInt64Array.from({ length: batch * length }, (_, row) => BigInt(row % length));
  return new session.Tensor("int64", positions, [positions.length]);
}
