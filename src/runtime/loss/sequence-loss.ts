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
import { divergenceNames, ownWidth } from "../../graph/frames/head.ts";
import { runInput, selectInput, sequenceSpec } from "../../graph/frames/sequence-graph.ts";
import { type SequenceGraphSettings, selectsKeys } from "../../graph/frames/sequence-rows.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { firstDifference, isFull, type Pattern, sourceLayer } from "../../pattern/pattern.ts";
import type { SequenceLoss } from "../measurement.ts";
import { type Feeds, floats } from "../session/onnx-session.ts";
import { type BatchGroup, BatchGroups, type BatchStates } from "./batch-groups.ts";
import { noExecutions } from "./loss-backend.ts";
import { ReferenceDistributions } from "./reference-distributions.ts";
import type { SequenceBatch } from "./sequence-batch.ts";
import { openSequenceSession, type SequenceLossSettings, type SequenceSession } from "./sequence-session.ts";
import { type Arrival, type Walker, WindowLosses } from "./window-losses.ts";

type BatchWalker = Walker<BatchStates, BatchGroup>;
type BatchRun = Pick<BatchWalker, "pattern" | "departure" | "executions"> & { batch: SequenceBatch };

interface Opened extends SequenceSession {
  /** Of the windows, for messages. */
  numbers: readonly number[];
  /** The model's own next-token distributions, batch by batch, if divergences are asked for. */
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

  private constructor(config: DsaConfig, windows: number, batches: BatchGroups, opened: Opened) {
    super(config, windows);
    this.#opened = opened;
    this.#batches = batches;
    this.plan = opened.plan;
    this.isWarm = opened.hasRun;
  }

  /** @param earlier opened for sequences that were foreseen, and not used; its session is taken over if it fits */
  static async open(
    model: ModelFolder,
    windows: readonly Int32Array[],
    settings: SequenceLossSettings,
    earlier?: BatchedLosses,
  ): Promise<BatchedLosses> {
    const release = async () => await earlier?.release();
    const opened = await openSequenceSession(model, windows, settings, earlier && { ...earlier.#opened, release });
    if (opened.hasRun) await earlier?.releaseOwn();
    const { top, boundaries } = opened.settings;
    const reference = top === undefined ? undefined : new ReferenceDistributions(settings.stateBytes - opened.kept);
    const numbers = settings.numbers ?? [...windows.keys()];
    const groups = new BatchGroups(windows, opened.shape, settings.scoredFrom, boundaries);
    return new BatchedLosses(model.config, windows.length, groups, { ...opened, numbers, reference });
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
