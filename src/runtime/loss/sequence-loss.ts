/**
 * Losses on a GPU: batches of whole sequences through one sequence graph. A candidate starts from the base's hidden states at
 * the first layer in which it differs (`window-losses.ts`); nothing else but token ids goes in and nothing but losses comes out.
 * States of candidates stay on the device: fetching them would take about as long as the run, and only one candidate of many is
 * the next base.
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
import { kernelsOf } from "../../graph/layer/kernels.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { firstDifference, fullLayers, isFull, type Pattern, sourceLayer } from "../../pattern/pattern.ts";
import { usesCudnn } from "../device/cudnn.ts";
import { gpuOf } from "../device/gpu.ts";
import { conversionLines, convertedAhead, weightConversion } from "../device/weight-conversion.ts";
import type { Dtype, SequenceLoss } from "../measurement.ts";
import { providerOf } from "../session/execution-provider.ts";
import { type Feeds, floats, OnnxSession } from "../session/onnx-session.ts";
import { type BatchGroup, BatchGroups, type BatchStates } from "./batch-groups.ts";
import { noExecutions } from "./layer-executions.ts";
import type { BackendSettings } from "./loss-backend.ts";
import { ReferenceDistributions } from "./reference-distributions.ts";
import { type SequenceBatch, sequenceShape, wantedTogether } from "./sequence-batch.ts";
import { describeNeed, deviceNeed, memoryOf, requireDeviceMemory, totalNeed } from "./sequence-memory.ts";
import { type Arrival, type Walker, WindowLosses } from "./window-losses.ts";

export interface SequenceLossSettings extends BackendSettings {
  /** Bytes of device memory that the working set of one chunk may take. */
  chunkBytes: number;
  /** Bytes of host memory for converting weights. Default: what is free. */
  hostBytes?: number;
  profilePrefix?: string;
}

/** Share of the device's memory that the working set of one chunk may take. */
const chunkShare = 1 / 16;

type BatchWalker = Walker<BatchStates, BatchGroup>;
type BatchRun = Pick<BatchWalker, "pattern" | "departure" | "executions"> & { batch: SequenceBatch };

/** What losses are computed with. */
interface Opened {
  session: OnnxSession;
  /** Says which graph the session is of, and how it was opened. */
  form: string;
  /** It has run on sequences that were foreseen. */
  hasRun: boolean;
  shape: SequenceShape;
  settings: SequenceGraphSettings;
  numbers: readonly number[];
  /** Batches whose states there is room for. */
  mostStates: number;
  /** The model's own next-token distributions, batch by batch, where divergences are asked for. */
  reference: ReferenceDistributions | undefined;
}

export class BatchedLosses extends WindowLosses<BatchStates, BatchGroup> {
  readonly plan: string[];
  override readonly isWarm: boolean;
  protected readonly inParts = false;
  readonly #opened: Opened;
  readonly #batches: BatchGroups;
  /** Batches with states of a base, the last one that was made at the end. */
  readonly #holding = new Set<BatchGroup>();

  private constructor(config: DsaConfig, windows: number, batches: BatchGroups, opened: Opened, plan: string[]) {
    super(config, windows);
    this.#opened = opened;
    this.#batches = batches;
    this.plan = plan;
    this.isWarm = opened.hasRun;
  }

  static async open(
    model: ModelFolder,
    windows: readonly Int32Array[],
    settings: SequenceLossSettings,
    earlier?: BatchedLosses,
  ): Promise<BatchedLosses> {
    const { config } = model;
    const precision = settings.dtype === "float16" ? OnnxType.float16 : OnnxType.float;
    const provider = providerOf(settings.device);
    const weights = await model.weights();
    const gpu = await gpuOf(settings.device);
    const cudnn = await usesCudnn(settings.device, gpu);
    // Sizes follow from all of the memory, not from what is free: a process that replaces a dead one takes the same.
    const memory = memoryOf(gpu);
    const total = memory?.total ?? Number.POSITIVE_INFINITY;
    const chunkBytes = Math.min(settings.chunkBytes, total * chunkShare);
    const conversion = weightConversion(config, weights, settings.dtype, convertedAhead.losses, settings.hostBytes);
    const chosen = { cudnn, storedExperts: conversion.inRuns };
    const kernels = kernelsOf(provider, precision, chosen);
    const sized = (mostSequences?: number) => {
      const shape = sequenceShape(config, windows, chunkBytes, mostSequences);
      const states = stateBytes(config, shape, settings.dtype) * Math.ceil(windows.length / shape.batch);
      const boundaries = states <= settings.stateBytes;
      return {
        shape,
        states,
        boundaries,
        need: deviceNeed(config, shape, { dtype: settings.dtype, boundaries, conversion, kernels }),
      };
    };
    const together = settings.together ?? windows.length;
    let plan = sized(wantedTogether(windows, together));
    while (plan.shape.batch > 1 && totalNeed(plan.need) > total) {
      plan = sized(Math.floor(plan.shape.batch / 2));
    }
    const { shape, states, boundaries } = plan;
    const kept = boundaries ? states : 0;
    const top = settings.top === undefined ? {} : { top: keptTokens(config, settings.top) };
    const graphSettings: SequenceGraphSettings = {
      precision,
      provider,
      boundaries,
      ...top,
      ...chosen,
    };
    const { device, dtype, threads } = settings;
    const form = JSON.stringify({ shape, graphSettings, device, threads, inRuns: conversion.inRuns });
    const foreseen = earlier !== undefined && earlier.#opened.form === form ? earlier.#opened.session : undefined;
    if (foreseen === undefined) {
      await earlier?.release();
      const left = earlier === undefined ? memory : memoryOf(await gpuOf(device));
      requireDeviceMemory(plan.need, left?.free, device);
    }
    const create = () =>
      OnnxSession.create(encodeModel(buildSequenceGraph(config, weights, shape, graphSettings)), config.name, {
        device,
        threads,
        folder: model.places.folder,
        solo: true,
        // Index scores multiply float16 values then: TF32 holds them exactly.
        tf32: dtype === "float16",
        convertsInRuns: conversion.inRuns,
        profilePrefix: settings.profilePrefix,
        recording: settings.recording,
      });
    if (foreseen !== undefined) await earlier?.releaseOwn();
    const session = foreseen ?? (await create());
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
    const reference =
      graphSettings.top === undefined ? undefined : new ReferenceDistributions(settings.stateBytes - kept);
    const mostStates = Math.floor(settings.stateBytes / stateBytes(config, shape, settings.dtype));
    const groups = new BatchGroups(windows, shape, settings.scoredFrom, boundaries);
    const opened = {
      session,
      form,
      hasRun: foreseen !== undefined,
      shape,
      settings: graphSettings,
      numbers,
      mostStates,
      reference,
    };
    return new BatchedLosses(config, windows.length, groups, opened, lines);
  }

  get sideBySide(): number {
    return this.#opened.shape.batch;
  }

  protected withRoom(): number {
    return 1;
  }

  protected lacksReference({ batch }: BatchGroup): boolean {
    return this.#opened.reference?.has(batch.name) === false;
  }

  protected bytesOf(): number {
    return Number.POSITIVE_INFINITY;
  }

  protected async forget({ batch, states }: BatchGroup): Promise<void> {
    states.clear();
    this.#opened.reference?.delete(batch.name);
  }

  protected groupsOf(indices: readonly number[]): BatchGroup[] {
    return this.#batches.of(indices, ({ batch }) => this.#opened.reference?.delete(batch.name));
  }

  async releaseOwn(): Promise<void> {
    await this.#opened.reference?.release();
  }

  async release(): Promise<void> {
    await this.releaseOwn();
    await this.#opened.session.release();
  }

  protected async walk(walkers: readonly BatchWalker[], signal: AbortSignal | undefined) {
    const arrivals: Arrival<BatchStates, BatchGroup>[] = [];
    for (const walker of walkers) {
      const from = walker.departure === undefined ? 0 : firstDifference(walker.pattern, walker.departure.pattern);
      arrivals.push({ walker, from, states: await this.#states(walker, from, signal) });
      if (!walker.keeps) continue;
      // States that were made first are those of earlier bases, or of batches that are not asked for any more.
      this.#holding.delete(walker.group);
      this.#holding.add(walker.group);
      for (const other of this.#holding) {
        if (this.#holding.size <= this.#opened.mostStates) break;
        this.#holding.delete(other);
        other.states.clear();
      }
    }
    return arrivals;
  }

  /** Runs a pattern over a batch from its departure up, and fetches losses, and boundaries if they are kept. */
  async #states(walker: BatchWalker, from: number, signal: AbortSignal | undefined): Promise<BatchStates> {
    const { group, pattern, departure, keeps } = walker;
    const layers = keeps ? [...this.config.indexerLayers].map((_, layer) => layer).slice(from) : [];
    const fetches = layers.flatMap((layer) => [
      ...(layer > from ? [hiddenStates(layer)] : []),
      ...(isFull(pattern, layer) && selectsKeys(this.config, this.#opened.shape) ? [topkIndices(layer)] : []),
    ]);
    const outputs = await this.#run({ ...walker, batch: group.batch }, from, fetches, signal);
    const below = (known: ReadonlyMap<number, Tensor> = new Map(), end: number) =>
      [...known].filter(([layer]) => keeps && layer < end);
    const fetched = (name: (layer: number) => string) =>
      layers.flatMap((layer): [number, Tensor][] => {
        const tensor = outputs[name(layer)];
        return tensor === undefined ? [] : [[layer, tensor]];
      });
    return {
      pattern,
      losses: await this.#losses(group.batch, pattern, outputs),
      boundaries: new Map([...below(departure?.boundaries, from + 1), ...fetched(hiddenStates)]),
      selected: new Map([...below(departure?.selected, from), ...fetched(topkIndices)]),
    };
  }

  /**
   * Runs layers `from` and up of one batch.
   * @param fetches outputs that are wanted beside the losses
   */
  async #run(
    { batch, pattern, departure, executions }: BatchRun,
    from: number,
    fetches: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<Feeds> {
    // A run blocks the event loop; between runs a signal can arrive.
    await nextTurn();
    if (signal?.aborted) throw new InterruptedError("Interrupted");
    const layers = this.config.numHiddenLayers;
    const { precision } = this.#opened.settings;
    const values: Record<string, Tensor | boolean> = {
      input_ids: this.#int64(batch.ids),
      target_ids: this.#int64(batch.targets),
      position_ids: this.#int64(batch.positions),
      hidden_states: departure?.boundaries.get(from) ?? this.#noRows(precision, this.config.hiddenSize),
      topk_indices:
        from === 0
          ? this.#noRows(OnnxType.int32, this.config.indexTopk)
          : (departure?.selected.get(sourceLayer(pattern, from - 1)) ??
            this.#noRows(OnnxType.int32, this.config.indexTopk)),
    };
    const { top } = this.#opened.settings;
    if (top !== undefined) {
      const own = pattern === this.config.indexerLayers;
      const rows = own ? undefined : await this.#opened.reference?.get(batch.name);
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
    for (const { name } of sequenceSpec(this.config, this.#opened.shape, this.#opened.settings).inputs) {
      const value = values[name] as Tensor | boolean;
      feeds[name] =
        typeof value === "boolean" ? new this.#opened.session.Tensor("bool", Uint8Array.of(value ? 1 : 0), []) : value;
    }
    return await this.#opened.session.run(feeds, [lossOutput(this.#opened.settings), ...fetches]);
  }

  /** Losses, with divergences where the graph has them; what the model's own pattern returns is kept for those of others. */
  async #losses(batch: SequenceBatch, pattern: Pattern, outputs: Feeds): Promise<SequenceLoss[]> {
    const output = lossOutput(this.#opened.settings);
    const rows = floats(outputs[output], output);
    const width = rows.length / (this.#opened.shape.batch * this.#opened.shape.length);
    const own = pattern === this.config.indexerLayers;
    if (own) await this.#opened.reference?.set(batch.name, rows);
    const losses = batch.lossRows.map((indices) => {
      const mean = (column: number) => sum(indices.map((row) => rows[row * width + column] as number)) / indices.length;
      const loss = mean(0);
      const kl = this.#opened.reference === undefined ? {} : { kl: own ? 0 : mean(1) };
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
      const layers = [...Array(this.config.numHiddenLayers).keys()];
      const fetches = layers.map((layer) => hiddenStates(layer + 1));
      const run = { batch, pattern, departure: undefined, executions: noExecutions() };
      const outputs = await this.#run(run, 0, fetches, undefined);
      const layer = layers.find((layer) => !allFinite(outputs[hiddenStates(layer + 1)]));
      if (layer !== undefined) {
        throw new RuntimeFailure(
          `Sequence ${number}: layer ${layer} returns values that are not finite, with pattern ${pattern}`,
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
