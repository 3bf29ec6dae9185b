/**
 * Losses with exact reuse, in one process. Two things never change between patterns and are computed once:
 * - flipping layer i leaves everything below i as it was, so the hidden states at every layer boundary of a base pattern
 *   are kept and a candidate runs only from its first difference up;
 * - a row at a position below `index_topk` selects every key that it sees, whatever the pattern, so its states, cache rows
 *   and losses are the same for all patterns.
 * Losses are bit for bit those of full forward passes: chunks depend on nothing but positions.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { InterruptedError, RuntimeFailure } from "../base/errors.ts";
import { sum } from "../base/sum.ts";
import { latentWidth } from "../graph/contract.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import { firstDifference, fullLayers, isFull, type Pattern, sourceLayer } from "../pattern/pattern.ts";
import { chunkBytes } from "./chunks.ts";
import type { EvaluateOptions, SequenceLosses } from "./loss.ts";
import type { LayerExecutions, SequenceLoss } from "./measurement.ts";
import type { SessionSettings } from "./onnx-session.ts";
import type { Recording } from "./recording.ts";
import { type KnownRows, type SelectedKeys, type SequenceRows, StageModel } from "./stage-model.ts";

export interface StagedSettings {
  device: SessionSettings["device"];
  threads: number;
  stateBytes: number;
  recording?: Recording;
}

interface Sequence {
  ids: Int32Array;
  rows: SequenceRows;
  embedded: Float32Array;
  keepsStates: boolean;
  /** States of the base pattern, where they are kept: `boundaries[i]` enters layer i. */
  boundaries: Float32Array[];
  selected: Map<number, SelectedKeys[]>;
  /** What does not depend on the pattern: cache rows below `index_topk` of each layer, and the losses there. */
  latents: Map<number, Float32Array>;
  indexerKeys: Map<number, Float32Array>;
  firstLosses: Float32Array | undefined;
  /** Loss of the base pattern. */
  loss: SequenceLoss | undefined;
}

export class StagedLosses implements SequenceLosses {
  readonly plan: string[];
  readonly #stages: StageModel;
  readonly #sequences: Sequence[];
  readonly #layers: number;
  #base: Pattern | undefined;
  #executions: LayerExecutions = { body: 0, indexer: 0, naiveBody: 0, naiveIndexer: 0 };

  private constructor(stages: StageModel, sequences: Sequence[], plan: string[]) {
    this.#stages = stages;
    this.#sequences = sequences;
    this.#layers = stages.config.numHiddenLayers;
    this.plan = plan;
  }

  static async open(
    model: ModelFolder,
    windows: readonly Int32Array[],
    settings: StagedSettings,
  ): Promise<StagedLosses> {
    const { device, threads, recording } = settings;
    const stages = await StageModel.open(model, { device, threads, ...(recording === undefined ? {} : { recording }) });
    try {
      let kept = 0;
      const sequences: Sequence[] = [];
      for (const ids of windows) {
        const { hidden: embedded, rows } = await stages.embed(ids);
        kept += stateBytes(model, ids.length);
        sequences.push({
          ids,
          rows,
          embedded,
          keepsStates: kept <= settings.stateBytes,
          boundaries: [],
          selected: new Map(),
          latents: new Map(),
          indexerKeys: new Map(),
          firstLosses: undefined,
          loss: undefined,
        });
      }
      return new StagedLosses(stages, sequences, memoryPlan(model, sequences));
    } catch (error) {
      await stages.release();
      throw error;
    }
  }

  async evaluate(pattern: Pattern, { base, afresh, signal }: EvaluateOptions) {
    this.#executions = { body: 0, indexer: 0, naiveBody: 0, naiveIndexer: 0 };
    if (afresh === true) await this.#forget();
    if (base !== undefined) await this.#rebase(base, signal);
    const sequences: SequenceLoss[] = [];
    for (const [index, sequence] of this.#sequences.entries()) {
      this.#executions.naiveBody += this.#layers;
      this.#executions.naiveIndexer += fullLayers(pattern).length;
      sequences.push(await this.#evaluateSequence(sequence, index, pattern, signal));
    }
    return { sequences, executions: this.#executions };
  }

  async release(): Promise<void> {
    await this.#stages.release();
  }

  /** Back to what opening leaves, embeddings made anew. */
  async #forget(): Promise<void> {
    this.#base = undefined;
    for (const sequence of this.#sequences) {
      sequence.embedded = (await this.#stages.embed(sequence.ids)).hidden;
      sequence.boundaries = [];
      for (const kept of [sequence.selected, sequence.latents, sequence.indexerKeys]) kept.clear();
      sequence.firstLosses = undefined;
      sequence.loss = undefined;
    }
  }

  /** Makes `base` the pattern whose boundary states are kept; only layers from the first change up are run. */
  async #rebase(base: Pattern, signal: AbortSignal | undefined): Promise<void> {
    if (base === this.#base) return;
    const from = this.#base === undefined ? 0 : firstDifference(base, this.#base);
    // Until every sequence has followed, the states belong to no pattern: an interruption must not mix two.
    this.#base = undefined;
    for (const [index, sequence] of this.#sequences.entries()) {
      if (!sequence.keepsStates) continue;
      sequence.loss = undefined;
      for (const layer of [...sequence.selected.keys()]) if (layer >= from) sequence.selected.delete(layer);
      const boundaries = from === 0 ? [sequence.embedded] : sequence.boundaries.slice(0, from + 1);
      const hidden = await this.#runLayers(sequence, base, from, sequence.selected, signal, boundaries);
      sequence.boundaries = boundaries;
      sequence.loss = await this.#lossOf(sequence, index, hidden);
    }
    this.#base = base;
  }

  async #evaluateSequence(
    sequence: Sequence,
    index: number,
    pattern: Pattern,
    signal: AbortSignal | undefined,
  ): Promise<SequenceLoss> {
    const reusable = sequence.keepsStates && this.#base !== undefined;
    const from = reusable ? firstDifference(pattern, this.#base as Pattern) : 0;
    if (reusable && from === this.#layers && sequence.loss !== undefined) return sequence.loss;
    const selected = reusable ? new Map(sequence.selected) : new Map<number, SelectedKeys[]>();
    return this.#lossOf(sequence, index, await this.#runLayers(sequence, pattern, from, selected, signal));
  }

  /**
   * Runs layers `from` and up; `selected` holds the keys of Full layers below and gets those of the layers that run.
   * @param boundaries gets the hidden states behind every layer, where given
   */
  async #runLayers(
    sequence: Sequence,
    pattern: Pattern,
    from: number,
    selected: Map<number, SelectedKeys[]>,
    signal: AbortSignal | undefined,
    boundaries?: Float32Array[],
  ): Promise<Float32Array> {
    const { rows } = sequence;
    let hidden = (from === 0 ? sequence.embedded : sequence.boundaries[from]) as Float32Array;
    for (let layer = from; layer < this.#layers; layer++) {
      // A run blocks the event loop; between layers a signal can arrive.
      await nextTurn();
      if (signal?.aborted) throw new InterruptedError("Interrupted");
      if (isFull(pattern, layer)) {
        const known = sequence.indexerKeys.get(layer);
        const result = await this.#stages.selectKeys(layer, hidden, rows, known);
        selected.set(layer, result.selected);
        if (sequence.keepsStates) sequence.indexerKeys.set(layer, known ?? result.firstKeys);
        this.#executions.indexer++;
      }
      const keys = selected.get(sourceLayer(pattern, layer)) as SelectedKeys[];
      const known = this.#knownRows(sequence, layer);
      const result = await this.#stages.runBody(layer, hidden, rows, keys, known);
      if (sequence.keepsStates) sequence.latents.set(layer, known?.latent ?? result.firstLatent);
      hidden = result.hidden;
      this.#executions.body++;
      boundaries?.push(hidden);
    }
    return hidden;
  }

  /** The first rows behind a layer, where a pass of any pattern has left them. */
  #knownRows(sequence: Sequence, layer: number): KnownRows | undefined {
    const latent = sequence.latents.get(layer);
    const hidden = sequence.boundaries[layer + 1];
    return latent === undefined || hidden === undefined ? undefined : { latent, hidden };
  }

  async #lossOf(sequence: Sequence, index: number, hidden: Float32Array): Promise<SequenceLoss> {
    const { ids, rows, firstLosses } = sequence;
    const losses = await this.#stages.negativeLogLikelihood(hidden, ids, rows, firstLosses);
    const loss = sum(losses) / losses.length;
    if (!Number.isFinite(loss)) await this.#blameLayer(sequence, index);
    sequence.firstLosses ??= losses.slice(0, rows.invariant);
    return { loss, tokens: losses.length };
  }

  /** Finds the layer where a non-finite value first appears: slow, and only on the way to an error. */
  async #blameLayer(sequence: Sequence, index: number): Promise<never> {
    let hidden = sequence.embedded;
    let keys: SelectedKeys[] = [];
    for (let layer = 0; layer < this.#layers; layer++) {
      if (isFull(this.#stages.config.indexerLayers, layer)) {
        keys = (await this.#stages.selectKeys(layer, hidden, sequence.rows)).selected;
      }
      hidden = (await this.#stages.runBody(layer, hidden, sequence.rows, keys)).hidden;
      if (!hidden.every(Number.isFinite)) {
        throw new RuntimeFailure(`Sequence ${index}: layer ${layer} gives values that are not finite`, {
          hint: "check the checkpoint with indexcache export, which looks at every weight",
        });
      }
    }
    throw new RuntimeFailure(`Sequence ${index}: the loss is not finite, though every layer's output is`);
  }
}

/** Bytes kept of one sequence: hidden states at every boundary, selected keys of every Full layer, first cache rows. */
function stateBytes({ config }: ModelFolder, length: number): number {
  const selectable = Math.min(config.indexTopk, length);
  const hidden = (config.numHiddenLayers + 1) * config.hiddenSize;
  const indexers = fullLayers(config.indexerLayers).length;
  const firstRows = config.numHiddenLayers * latentWidth(config) + indexers * config.indexHeadDim;
  return 4 * (length * (hidden + indexers * selectable) + selectable * firstRows);
}

function memoryPlan(model: ModelFolder, sequences: readonly Sequence[]): string[] {
  const { config } = model;
  const longest = Math.max(...sequences.map((sequence) => sequence.rows.length));
  const kept = sequences.filter((sequence) => sequence.keepsStates);
  const megabytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  const caches = 4 * longest * (latentWidth(config) + config.indexHeadDim);
  const states = sum(kept.map((sequence) => stateBytes(model, sequence.rows.length)));
  return [
    `caches of one layer: ${longest} tokens x (${latentWidth(config)} latent + ${config.indexHeadDim} indexer key) x 4 bytes = ${megabytes(caches)}`,
    `one chunk: at most ${megabytes(chunkBytes(config, longest))}`,
    `boundary states: ${kept.length} of ${sequences.length} sequences = ${megabytes(states)}`,
  ];
}
