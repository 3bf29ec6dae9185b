/**
 * Losses on a GPU: batches of whole sequences through one sequence graph. A candidate starts at the first layer in which
 * it differs from the base pattern, from the base's hidden states at that boundary; nothing else but token ids goes in and
 * nothing but losses comes out.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Tensor } from "onnxruntime-node";
import { InterruptedError, RuntimeFailure } from "../../base/errors.ts";
import { sum } from "../../base/sum.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import { hiddenStates, topkIndices } from "../../graph/exported/contract.ts";
import { divergenceNames, keptTokens, ownWidth } from "../../graph/frames/head.ts";
import { buildSequenceGraph, runInput, selectInput, sequenceSpec } from "../../graph/frames/sequence-graph.ts";
import { type SequenceGraphSettings, type SequenceShape, selectsKeys } from "../../graph/frames/sequence-rows.ts";
import { encodeModel } from "../../graph/graph-builder.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { firstDifference, fullLayers, isFull, type Pattern, sourceLayer } from "../../pattern/pattern.ts";
import { usesCudnn } from "../device/cudnn.ts";
import { conversionLines, weightConversion } from "../device/weight-conversion.ts";
import type { Dtype, EvaluateOptions, SequenceLoss } from "../measurement.ts";
import { providerOf } from "../session/execution-provider.ts";
import { type Feeds, floats, OnnxSession, type SessionSettings } from "../session/onnx-session.ts";
import { type CountedExecutions, noExecutions } from "./layer-executions.ts";
import type { BackendSettings, SequenceLosses } from "./loss-backend.ts";
import { OwnDistributions } from "./own-distributions.ts";
import { SequenceBatch, sequenceShape, wantedTogether } from "./sequence-batch.ts";
import { describeNeed, deviceMemory, deviceNeed, requireDeviceMemory, totalNeed } from "./sequence-memory.ts";

export interface SequenceLossSettings extends BackendSettings {
  device: SessionSettings["device"];
  dtype: Dtype;
  /** Bytes of device memory that the working set of one chunk may take. */
  chunkBytes: number;
  /** Bytes of host memory for converting weights. Default: what is free. */
  hostBytes?: number;
  profilePrefix?: string;
}

/** Batches that are known, as a multiple of those that hold all windows once. */
const batchesKept = 4;

/** Share of the device's memory that the working set of one chunk may take. */
const chunkShare = 1 / 16;

/**
 * States of the base pattern for one batch. Those of candidates stay on the device: fetching them would take about as long
 * as the run, and only one candidate of many is the next base.
 */
interface BaseStates {
  pattern: Pattern;
  /** By layer: what enters it. Layer 0 has the token ids. */
  boundaries: Map<number, Tensor>;
  /** By Full layer. */
  selected: Map<number, Tensor>;
  losses: SequenceLoss[];
}

/** What losses are computed with. */
interface Opened {
  config: DsaConfig;
  session: OnnxSession;
  shape: SequenceShape;
  settings: SequenceGraphSettings;
  windows: readonly Int32Array[];
  scoredFrom: readonly number[] | undefined;
  numbers: readonly number[];
  /** Batches whose states there is room for. */
  mostStates: number;
  /** The model's own next-token distributions, batch by batch, where divergences are asked for. */
  own: OwnDistributions | undefined;
}

export class BatchedLosses implements SequenceLosses {
  readonly plan: string[];
  readonly #opened: Opened;
  /** By name, the one that was asked for last at the end. */
  readonly #batches = new Map<string, SequenceBatch>();
  readonly #states = new Map<SequenceBatch, BaseStates>();
  /** Losses of the pattern at hand: its next sequences may be of the same batch. */
  readonly #latest = new Map<SequenceBatch, { pattern: Pattern; losses: SequenceLoss[] }>();

  private constructor(opened: Opened, plan: string[]) {
    this.#opened = opened;
    this.plan = plan;
  }

  static async open(
    model: ModelFolder,
    windows: readonly Int32Array[],
    settings: SequenceLossSettings,
  ): Promise<BatchedLosses> {
    const { config } = model;
    const precision = settings.dtype === "float16" ? OnnxType.float16 : OnnxType.float;
    const provider = providerOf(settings.device);
    const weights = await model.weights();
    const cudnn = await usesCudnn(settings.device);
    // Sizes follow from all of the memory, not from what is free: a process that replaces a dead one takes the same.
    const memory = await deviceMemory(settings.device);
    const total = memory?.total ?? Number.POSITIVE_INFINITY;
    const chunkBytes = Math.min(settings.chunkBytes, total * chunkShare);
    const conversion = weightConversion(config, weights, settings.dtype, settings.hostBytes);
    const { inRuns } = conversion;
    const sized = (mostSequences?: number) => {
      const shape = sequenceShape(config, windows, chunkBytes, mostSequences);
      const states = stateBytes(config, shape, settings.dtype) * Math.ceil(windows.length / shape.batch);
      const boundaries = states <= settings.stateBytes;
      return {
        shape,
        states,
        boundaries,
        need: deviceNeed(config, shape, { dtype: settings.dtype, boundaries, conversion }),
      };
    };
    const together = settings.together ?? windows.length;
    let plan = sized(wantedTogether(windows, together));
    while (plan.shape.batch > 1 && totalNeed(plan.need) > total) {
      plan = sized(Math.floor(plan.shape.batch / 2));
    }
    requireDeviceMemory(plan.need, memory?.free, settings.device);
    const { shape, states, boundaries } = plan;
    const kept = boundaries ? states : 0;
    const top = settings.top === undefined ? {} : { top: keptTokens(config, settings.top) };
    const deviceBytes = memory?.total ?? 0;
    const graphSettings: SequenceGraphSettings = {
      precision,
      provider,
      boundaries,
      ...top,
      cudnn,
      ...(inRuns === undefined ? {} : { inRuns }),
      deviceBytes,
    };
    const graph = encodeModel(buildSequenceGraph(config, weights, shape, graphSettings));
    const session = await OnnxSession.create(graph, config.name, {
      device: settings.device,
      threads: settings.threads,
      folder: model.places.folder,
      solo: true,
      // Index scores multiply float16 values then: TF32 holds them exactly.
      tf32: settings.dtype === "float16",
      convertsInRuns: inRuns === "all",
      ...(settings.profilePrefix === undefined ? {} : { profilePrefix: settings.profilePrefix }),
      ...(settings.recording === undefined ? {} : { recording: settings.recording }),
    });
    const batches = Math.ceil(windows.length / shape.batch);
    const lines = [
      `device memory: ${describeNeed(plan.need)}`,
      `${batches} batches of ${shape.batch} sequences of ${shape.length} tokens in ${shape.chunks} chunks, ${settings.dtype}`,
      graphSettings.boundaries
        ? `boundary states: ${(states / 2 ** 20).toFixed(1)} MiB of host memory`
        : `boundary states would take ${(states / 2 ** 20).toFixed(1)} MiB of host memory: every candidate runs all layers`,
      ...conversionLines(conversion),
    ];
    const numbers = settings.numbers ?? [...windows.keys()];
    const own = graphSettings.top === undefined ? undefined : new OwnDistributions(settings.stateBytes - kept);
    const mostStates = Math.floor(settings.stateBytes / stateBytes(config, shape, settings.dtype));
    const { scoredFrom } = settings;
    return new BatchedLosses(
      { config, session, shape, settings: graphSettings, windows, scoredFrom, numbers, mostStates, own },
      lines,
    );
  }

  get sideBySide(): number {
    return this.#opened.shape.batch;
  }

  async evaluate(pattern: Pattern, { base, afresh, sequences: asked, signal }: EvaluateOptions) {
    if (afresh === true) for (const left of [this.#states, this.#latest, this.#opened.own]) left?.clear();
    const executions = noExecutions();
    const indices = asked ?? [...this.#opened.numbers.keys()];
    const layers = this.#opened.config.numHiddenLayers;
    const found = new Map<number, SequenceLoss>();
    for (const batch of this.#batchesOf(indices)) {
      await this.#requireOwn(batch, pattern, base, executions, signal);
      if (base !== undefined && this.#opened.settings.boundaries) await this.#rebase(batch, base, executions, signal);
      const losses = await this.#evaluateBatch(batch, pattern, executions, signal);
      for (const [place, index] of batch.indices.entries()) found.set(index, losses[place] as SequenceLoss);
    }
    executions.naiveBody += layers * indices.length;
    executions.naiveIndexer += fullLayers(pattern).length * indices.length;
    executions.rows.prefix += layers * this.#opened.shape.length * indices.length;
    return { sequences: indices.map((index) => found.get(index) as SequenceLoss), executions };
  }

  /**
   * Windows in the batches that they run in: those that have run together before, because the states of a base are kept for
   * a whole batch, then so many as a run holds.
   */
  #batchesOf(indices: readonly number[]): SequenceBatch[] {
    const { windows, shape, scoredFrom } = this.#opened;
    const open = new Set(indices);
    const wanted: SequenceBatch[] = [];
    const take = (batch: SequenceBatch): void => {
      wanted.push(batch);
      for (const index of batch.indices) open.delete(index);
    };
    for (const batch of this.#batches.values()) {
      if (batch.indices.length === shape.batch && batch.indices.every((index) => open.has(index))) take(batch);
    }
    const rest = [...open].sort((left, right) => left - right);
    for (let first = 0; first < rest.length; first += shape.batch) {
      const own = rest.slice(first, first + shape.batch);
      const batch = new SequenceBatch(windows, shape, { indices: own, scoredFrom });
      take(this.#batches.get(batch.name) ?? batch);
    }
    for (const batch of wanted) {
      this.#batches.delete(batch.name);
      this.#batches.set(batch.name, batch);
    }
    this.#forget(Math.max(wanted.length, batchesKept * Math.ceil(windows.length / shape.batch)));
    return wanted;
  }

  /** Lets go of batches that were not asked for lately. */
  #forget(most: number): void {
    for (const [name, batch] of this.#batches) {
      if (this.#batches.size <= most) break;
      this.#batches.delete(name);
      this.#latest.delete(batch);
      this.#states.delete(batch);
      this.#opened.own?.delete(name);
    }
  }

  async release(): Promise<void> {
    this.#batches.clear();
    this.#states.clear();
    await this.#opened.own?.release();
    await this.#opened.session.release();
  }

  async #evaluateBatch(
    batch: SequenceBatch,
    pattern: Pattern,
    executions: CountedExecutions,
    signal: AbortSignal | undefined,
  ): Promise<SequenceLoss[]> {
    const states = this.#states.get(batch);
    if (states?.pattern === pattern) return states.losses;
    const latest = this.#latest.get(batch);
    if (latest?.pattern === pattern) return latest.losses;
    const from = states === undefined ? 0 : firstDifference(pattern, states.pattern);
    const outputs = await this.#run(batch, pattern, from, states, [], executions, signal);
    const losses = await this.#losses(batch, pattern, outputs);
    this.#latest.set(batch, { pattern, losses });
    return losses;
  }

  /** Divergences are from the model's own pattern: it runs first. */
  async #requireOwn(
    batch: SequenceBatch,
    pattern: Pattern,
    base: Pattern | undefined,
    executions: CountedExecutions,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const own = this.#opened.config.indexerLayers;
    if (this.#opened.own === undefined || this.#opened.own.has(batch.name)) return;
    const runs = pattern === own || (base === own && this.#opened.settings.boundaries);
    if (!runs) await this.#evaluateBatch(batch, own, executions, signal);
  }

  /** Makes `base` the pattern whose boundary states are kept; only layers from the first change up are run. */
  async #rebase(
    batch: SequenceBatch,
    base: Pattern,
    executions: CountedExecutions,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const old = this.#states.get(batch);
    if (old?.pattern === base) return;
    const from = old === undefined ? 0 : firstDifference(base, old.pattern);
    const layers = this.#opened.config.numHiddenLayers;
    const fetches: string[] = [];
    for (let layer = from; layer < layers; layer++) {
      if (layer > from) fetches.push(hiddenStates(layer));
      if (isFull(base, layer) && selectsKeys(this.#opened.config, this.#opened.shape)) fetches.push(topkIndices(layer));
    }
    const outputs = await this.#run(batch, base, from, old, fetches, executions, signal);
    const states: BaseStates = {
      pattern: base,
      boundaries: new Map([...(old?.boundaries ?? [])].filter(([layer]) => layer <= from)),
      selected: new Map([...(old?.selected ?? [])].filter(([layer]) => layer < from)),
      losses: await this.#losses(batch, base, outputs),
    };
    for (let layer = from; layer < layers; layer++) {
      const entering = outputs[hiddenStates(layer)];
      const chosen = outputs[topkIndices(layer)];
      if (entering !== undefined) states.boundaries.set(layer, entering);
      if (chosen !== undefined) states.selected.set(layer, chosen);
    }
    this.#states.delete(batch);
    this.#states.set(batch, states);
    // States that were made first are those of earlier bases, or of batches that are not asked for any more.
    for (const other of this.#states.keys()) {
      if (this.#states.size <= this.#opened.mostStates) break;
      this.#states.delete(other);
    }
  }

  /**
   * Runs layers `from` and up of one batch.
   * @param fetches outputs that are wanted beside the losses
   */
  async #run(
    batch: SequenceBatch,
    pattern: Pattern,
    from: number,
    states: BaseStates | undefined,
    fetches: string[],
    executions: CountedExecutions,
    signal: AbortSignal | undefined,
  ): Promise<Feeds> {
    // A run blocks the event loop; between runs a signal can arrive.
    await nextTurn();
    if (signal?.aborted) throw new InterruptedError("Interrupted");
    const layers = this.#opened.config.numHiddenLayers;
    const { precision } = this.#opened.settings;
    const values: Record<string, Tensor | boolean> = {
      input_ids: this.#int64(batch.ids),
      target_ids: this.#int64(batch.targets),
      position_ids: this.#int64(batch.positions),
      hidden_states: states?.boundaries.get(from) ?? this.#noRows(precision, this.#opened.config.hiddenSize),
      topk_indices:
        from === 0
          ? this.#noRows(OnnxType.int32, this.#opened.config.indexTopk)
          : (states?.selected.get(sourceLayer(pattern, from - 1)) ??
            this.#noRows(OnnxType.int32, this.#opened.config.indexTopk)),
    };
    const { top } = this.#opened.settings;
    if (top !== undefined) {
      const own = pattern === this.#opened.config.indexerLayers;
      const rows = own ? undefined : await this.#opened.own?.get(batch.name);
      values[divergenceNames.own] = own;
      values[divergenceNames.baseline] = this.#ownRows(rows ?? new Float32Array(), ownWidth(top));
    }
    for (let layer = 0; layer < layers; layer++) {
      values[runInput(layer)] = layer >= from;
      values[selectInput(layer)] = layer >= from && isFull(pattern, layer);
      if (values[selectInput(layer)] === true) executions.indexer += batch.indices.length;
    }
    const rows = (layers - from) * batch.indices.length * this.#opened.shape.length;
    executions.body += (layers - from) * batch.indices.length;
    executions.rows.run += rows;
    executions.rows.prefix -= rows;
    const feeds: Feeds = {};
    for (const { name } of sequenceSpec(this.#opened.config, this.#opened.shape, this.#opened.settings).inputs) {
      const value = values[name] as Tensor | boolean;
      feeds[name] =
        typeof value === "boolean" ? new this.#opened.session.Tensor("bool", Uint8Array.of(value ? 1 : 0), []) : value;
    }
    return await this.#opened.session.run(feeds, [lossOutput(this.#opened.settings), ...fetches]);
  }

  /** Losses, with divergences where the graph has them; what the model's own pattern gives is kept for those of others. */
  async #losses(batch: SequenceBatch, pattern: Pattern, outputs: Feeds): Promise<SequenceLoss[]> {
    const output = lossOutput(this.#opened.settings);
    const rows = floats(outputs[output], output);
    const width = rows.length / (this.#opened.shape.batch * this.#opened.shape.length);
    const own = pattern === this.#opened.config.indexerLayers;
    if (own) await this.#opened.own?.set(batch.name, rows);
    const losses = batch.lossRows.map((indices) => {
      const mean = (column: number) => sum(indices.map((row) => rows[row * width + column] as number)) / indices.length;
      const loss = mean(0);
      const kl = this.#opened.own === undefined ? {} : { kl: own ? 0 : mean(1) };
      return { loss, tokens: indices.length, ...kl };
    });
    const bad = losses.findIndex(({ loss, kl = 0 }) => !Number.isFinite(loss) || !Number.isFinite(kl));
    if (bad >= 0) await this.#blameLayer(batch, pattern, bad);
    return losses;
  }

  /** Finds the layer where a non-finite value first appears, if layers can be looked at: only on the way to an error. */
  async #blameLayer(batch: SequenceBatch, pattern: Pattern, index: number): Promise<never> {
    const number = this.#opened.numbers[batch.indices[index] ?? -1];
    const hint = "float16 overflows beyond 65504: try --dtype float32";
    if (this.#opened.settings.boundaries) {
      const layers = [...Array(this.#opened.config.numHiddenLayers).keys()];
      const fetches = layers.map((layer) => hiddenStates(layer + 1));
      const outputs = await this.#run(batch, pattern, 0, undefined, fetches, noExecutions(), undefined);
      const layer = layers.find((layer) => !allFinite(outputs[hiddenStates(layer + 1)]));
      if (layer !== undefined) {
        throw new RuntimeFailure(
          `Sequence ${number}: layer ${layer} gives values that are not finite, with pattern ${pattern}`,
          { hint },
        );
      }
    }
    throw new RuntimeFailure(`Sequence ${number}: the loss is not finite, with pattern ${pattern}`, { hint });
  }

  #ownRows(rows: Float32Array, width: number): Tensor {
    return new this.#opened.session.Tensor("float32", rows, [rows.length / width, width]);
  }

  #int64(values: BigInt64Array): Tensor {
    return new this.#opened.session.Tensor("int64", values, [values.length]);
  }

  #noRows(type: OnnxType, width: number): Tensor {
    if (type === OnnxType.int32) return new this.#opened.session.Tensor("int32", new Int32Array(), [0, width]);
    return type === OnnxType.float
      ? new this.#opened.session.Tensor("float32", new Float32Array(), [0, width])
      : new this.#opened.session.Tensor("float16", new Uint16Array(), [0, width]);
  }
}

/** Whether every element is finite; float16 comes as bits, whose exponent is all ones otherwise. */
function allFinite(tensor: Tensor | undefined): boolean {
  const data = tensor?.data;
  if (data instanceof Uint16Array) return data.every((bits) => (bits & 0x7c00) !== 0x7c00);
  return data instanceof Float32Array && data.every(Number.isFinite);
}

/** What every run fetches: a loss for each row, or a loss and what belongs to the divergence. */
function lossOutput({ top }: SequenceGraphSettings): string {
  return top === undefined ? "negative_log_likelihood" : divergenceNames.output;
}

/** Bytes of host memory for the boundary states of one batch. */
function stateBytes(config: DsaConfig, shape: SequenceShape, dtype: Dtype): number {
  const rows = shape.batch * shape.length;
  const indexers = selectsKeys(config, shape) ? fullLayers(config.indexerLayers).length : 0;
  const width = (config.numHiddenLayers - 1) * config.hiddenSize * (dtype === "float16" ? 2 : 4);
  return rows * (width + 4 * indexers * config.indexTopk);
}
