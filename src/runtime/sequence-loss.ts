/**
 * Losses on a GPU: batches of whole sequences through one sequence graph. A candidate starts at the first layer in which
 * it differs from the base pattern, from the base's hidden states at that boundary; nothing else but token ids goes in and
 * nothing but losses comes out.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Tensor } from "onnxruntime-node";
import { InterruptedError, RuntimeFailure } from "../base/errors.ts";
import { sum } from "../base/sum.ts";
import { OnnxType } from "../checkpoint/dtype.ts";
import type { DsaConfig } from "../checkpoint/model-config.ts";
import { hiddenStates, topkIndices } from "../graph/contract.ts";
import { encodeModel } from "../graph/graph-builder.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import { buildSequenceGraph, runInput, selectInput, sequenceSpec } from "../graph/sequence-graph.ts";
import { type SequenceGraphSettings, type SequenceShape, selectsKeys } from "../graph/sequence-rows.ts";
import { firstDifference, fullLayers, isFull, type Pattern, sourceLayer } from "../pattern/pattern.ts";
import { providerOf } from "./execution-provider.ts";
import type { EvaluateOptions, SequenceLosses } from "./loss.ts";
import type { Dtype, LayerExecutions, SequenceLoss } from "./measurement.ts";
import { type Feeds, floats, loadRuntime, OnnxSession, type SessionSettings } from "./onnx-session.ts";
import type { Recording } from "./recording.ts";
import { SequenceBatch, sequenceShape } from "./sequence-batch.ts";
import { describeNeed, deviceMemory, deviceNeed, requireDeviceMemory, totalNeed } from "./sequence-memory.ts";

export interface SequenceLossSettings {
  device: SessionSettings["device"];
  threads: number;
  dtype: Dtype;
  /** Bytes of host memory for boundary states; 0 runs every candidate from the first layer. */
  stateBytes: number;
  /** Bytes of device memory that the working set of one chunk may take. */
  chunkBytes: number;
  profilePrefix?: string;
  recording?: Recording;
}

/** Share of the device's memory that the working set of one chunk may take. */
const chunkShare = 1 / 16;

/** States of the base pattern for one batch. */
interface BaseStates {
  /** By layer: what enters it. Layer 0 has the token ids. */
  boundaries: Map<number, Tensor>;
  /** By Full layer. */
  selected: Map<number, Tensor>;
  losses: SequenceLoss[];
}

export class BatchedLosses implements SequenceLosses {
  readonly plan: string[];
  readonly #config: DsaConfig;
  readonly #session: OnnxSession;
  readonly #tensor: typeof Tensor;
  readonly #shape: SequenceShape;
  readonly #settings: SequenceGraphSettings;
  readonly #batches: SequenceBatch[];
  #base: Pattern | undefined;
  #states = new Map<SequenceBatch, BaseStates>();

  private constructor(
    config: DsaConfig,
    session: OnnxSession,
    tensor: typeof Tensor,
    shape: SequenceShape,
    settings: SequenceGraphSettings,
    batches: SequenceBatch[],
    plan: string[],
  ) {
    this.#config = config;
    this.#session = session;
    this.#tensor = tensor;
    this.#shape = shape;
    this.#settings = settings;
    this.#batches = batches;
    this.plan = plan;
  }

  static async open(
    model: ModelFolder,
    windows: readonly Int32Array[],
    settings: SequenceLossSettings,
  ): Promise<BatchedLosses> {
    const { config } = model;
    const { Tensor } = await loadRuntime();
    const precision = settings.dtype === "float16" ? OnnxType.float16 : OnnxType.float;
    const provider = providerOf(settings.device);
    const weights = await model.weights();
    // Sizes follow from all of the memory, not from what is free: a process that replaces a dead one takes the same.
    const memory = await deviceMemory(settings.device);
    const total = memory?.total ?? Number.POSITIVE_INFINITY;
    const chunkBytes = Math.min(settings.chunkBytes, total * chunkShare);
    const sized = (mostSequences?: number) => {
      const shape = sequenceShape(config, windows, chunkBytes, mostSequences);
      const states = stateBytes(config, shape, settings.dtype) * Math.ceil(windows.length / shape.batch);
      const boundaries = states <= settings.stateBytes;
      return {
        shape,
        states,
        boundaries,
        need: deviceNeed(config, weights, shape, settings.dtype, boundaries),
      };
    };
    let plan = sized();
    while (plan.shape.batch > 1 && totalNeed(plan.need) > total) {
      plan = sized(Math.floor(plan.shape.batch / 2));
    }
    requireDeviceMemory(plan.need, memory?.free, settings.device);
    const { shape, states, boundaries } = plan;
    const graphSettings: SequenceGraphSettings = { precision, provider, boundaries };
    const graph = encodeModel(buildSequenceGraph(config, weights, shape, graphSettings));
    const session = await OnnxSession.create(graph, config.name, {
      device: settings.device,
      threads: settings.threads,
      folder: model.path,
      solo: true,
      // Index scores multiply float16 values then: TF32 holds them exactly.
      tf32: settings.dtype === "float16",
      ...(settings.profilePrefix === undefined ? {} : { profilePrefix: settings.profilePrefix }),
      ...(settings.recording === undefined ? {} : { recording: settings.recording }),
    });
    const batches: SequenceBatch[] = [];
    for (let first = 0; first < windows.length; first += shape.batch) {
      batches.push(new SequenceBatch(windows.slice(first, first + shape.batch), shape));
    }
    const lines = [
      `device memory: ${describeNeed(plan.need)}`,
      `${batches.length} batches of ${shape.batch} sequences of ${shape.length} tokens in ${shape.chunks} chunks, ${settings.dtype}`,
      graphSettings.boundaries
        ? `boundary states: ${(states / 2 ** 20).toFixed(1)} MiB of host memory`
        : `boundary states would take ${(states / 2 ** 20).toFixed(1)} MiB of host memory: every candidate runs all layers`,
    ];
    return new BatchedLosses(config, session, Tensor, shape, graphSettings, batches, lines);
  }

  async evaluate(pattern: Pattern, { base, signal }: EvaluateOptions) {
    const layers = this.#config.numHiddenLayers;
    const executions: LayerExecutions = { body: 0, indexer: 0, naiveBody: 0, naiveIndexer: 0 };
    const sequences: SequenceLoss[] = [];
    if (base !== undefined && this.#settings.boundaries) await this.#rebase(base, executions, signal);
    for (const batch of this.#batches) {
      const states = this.#base === undefined ? undefined : this.#states.get(batch);
      const from = states === undefined ? 0 : firstDifference(pattern, this.#base as Pattern);
      executions.naiveBody += layers * batch.size;
      executions.naiveIndexer += fullLayers(pattern).length * batch.size;
      if (states !== undefined && from === layers) {
        sequences.push(...states.losses);
        continue;
      }
      const outputs = await this.#run(batch, pattern, from, states, ["negative_log_likelihood"], executions, signal);
      sequences.push(...this.#losses(batch, outputs));
    }
    return { sequences, executions };
  }

  async release(): Promise<void> {
    this.#states.clear();
    await this.#session.release();
  }

  /** Makes `base` the pattern whose boundary states are kept; only layers from the first change up are run. */
  async #rebase(base: Pattern, executions: LayerExecutions, signal: AbortSignal | undefined): Promise<void> {
    if (base === this.#base) return;
    const from = this.#base === undefined ? 0 : firstDifference(base, this.#base);
    // Until every batch has followed, the states belong to no pattern: an interruption must not mix two.
    this.#base = undefined;
    const layers = this.#config.numHiddenLayers;
    const fetches = ["negative_log_likelihood"];
    for (let layer = from; layer < layers; layer++) {
      if (layer > from) fetches.push(hiddenStates(layer));
      if (isFull(base, layer) && selectsKeys(this.#config, this.#shape)) fetches.push(topkIndices(layer));
    }
    for (const batch of this.#batches) {
      const old = from === 0 ? undefined : this.#states.get(batch);
      const outputs = await this.#run(batch, base, from, old, fetches, executions, signal);
      const states: BaseStates = {
        boundaries: new Map([...(old?.boundaries ?? [])].filter(([layer]) => layer <= from)),
        selected: new Map([...(old?.selected ?? [])].filter(([layer]) => layer < from)),
        losses: this.#losses(batch, outputs),
      };
      for (let layer = from; layer < layers; layer++) {
        const entering = outputs[hiddenStates(layer)];
        const chosen = outputs[topkIndices(layer)];
        if (entering !== undefined) states.boundaries.set(layer, entering);
        if (chosen !== undefined) states.selected.set(layer, chosen);
      }
      this.#states.set(batch, states);
    }
    this.#base = base;
  }

  /** Runs layers `from` and up of one batch. */
  async #run(
    batch: SequenceBatch,
    pattern: Pattern,
    from: number,
    states: BaseStates | undefined,
    fetches: string[],
    executions: LayerExecutions,
    signal: AbortSignal | undefined,
  ): Promise<Feeds> {
    // A run blocks the event loop; between runs a signal can arrive.
    await nextTurn();
    if (signal?.aborted) throw new InterruptedError("Interrupted");
    const layers = this.#config.numHiddenLayers;
    const { precision } = this.#settings;
    const values: Record<string, Tensor | boolean> = {
      input_ids: this.#int64(batch.ids),
      target_ids: this.#int64(batch.targets),
      position_ids: this.#int64(batch.positions),
      hidden_states: states?.boundaries.get(from) ?? this.#noRows(precision, this.#config.hiddenSize),
      topk_indices:
        from === 0
          ? this.#noRows(OnnxType.int32, this.#config.indexTopk)
          : (states?.selected.get(sourceLayer(pattern, from - 1)) ??
            this.#noRows(OnnxType.int32, this.#config.indexTopk)),
    };
    for (let layer = 0; layer < layers; layer++) {
      values[runInput(layer)] = layer >= from;
      values[selectInput(layer)] = layer >= from && isFull(pattern, layer);
      if (layer >= from) executions.body += batch.size;
      if (values[selectInput(layer)] === true) executions.indexer += batch.size;
    }
    const feeds: Feeds = {};
    for (const { name } of sequenceSpec(this.#config, this.#shape, this.#settings).inputs) {
      const value = values[name] as Tensor | boolean;
      feeds[name] = typeof value === "boolean" ? new this.#tensor("bool", Uint8Array.of(value ? 1 : 0), []) : value;
    }
    return await this.#session.run(feeds, fetches);
  }

  #losses(batch: SequenceBatch, outputs: Feeds): SequenceLoss[] {
    const rows = floats(outputs.negative_log_likelihood, "negative_log_likelihood");
    return batch.lossRows.map((indices, index) => {
      const loss = sum(indices.map((row) => rows[row] as number)) / indices.length;
      if (!Number.isFinite(loss)) {
        throw new RuntimeFailure(`The loss of a sequence is not finite (number ${index} of its batch)`, {
          hint: "float16 overflows beyond 65504: try --dtype float32",
        });
      }
      return { loss, tokens: indices.length };
    });
  }

  #int64(values: BigInt64Array): Tensor {
    return new this.#tensor("int64", values, [values.length]);
  }

  #noRows(type: OnnxType, width: number): Tensor {
    if (type === OnnxType.int32) return new this.#tensor("int32", new Int32Array(), [0, width]);
    return type === OnnxType.float
      ? new this.#tensor("float32", new Float32Array(), [0, width])
      : new this.#tensor("float16", new Uint16Array(), [0, width]);
  }
}

/** Bytes of host memory for the boundary states of one batch. */
function stateBytes(config: DsaConfig, shape: SequenceShape, dtype: Dtype): number {
  const rows = shape.batch * shape.length;
  const indexers = selectsKeys(config, shape) ? fullLayers(config.indexerLayers).length : 0;
  const width = (config.numHiddenLayers - 1) * config.hiddenSize * (dtype === "float16" ? 2 : 4);
  return rows * (width + 4 * indexers * config.indexTopk);
}
