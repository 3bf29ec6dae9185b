/**
 * LM loss of patterns on a fixed set of windows, with exact reuse: flipping layer i leaves everything below i as it
 * was, so the hidden states at every layer boundary of a base pattern are kept and a candidate runs only from its first
 * difference up. Losses are bit for bit those of full forward passes.
 */
import { freemem } from "node:os";
import { setImmediate as nextTurn } from "node:timers/promises";
import { InterruptedError, RuntimeFailure } from "../base/errors.ts";
import { CompensatedSum, sum } from "../base/sum.ts";
import { latentWidth } from "../graph/contract.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import { firstDifference, fullLayers, isFull, type Pattern, sourceLayer } from "../pattern/pattern.ts";
import { chunkBytes } from "./chunks.ts";
import type { LayerExecutions, Measurement, PatternEvaluator, SequenceLoss } from "./measurement.ts";
import { defaultThreads, type SessionSettings } from "./onnx-session.ts";
import { type SelectedKeys, type SequenceRows, StageModel } from "./stage-model.ts";

export interface LossSettings {
  device: SessionSettings["device"];
  threads?: number;
  /** Bytes that boundary states may take; sequences beyond it are run from the first layer each time. */
  stateBytes?: number;
}

/** Share of the free memory that boundary states may take where `stateBytes` does not say. */
const stateShare = 0.4;

interface Sequence {
  ids: Int32Array;
  rows: SequenceRows;
  embedded: Float32Array;
  /** States of the base pattern, where they are kept: `boundaries[i]` enters layer i. */
  boundaries: Float32Array[];
  selected: Map<number, SelectedKeys[]>;
  /** Per-token losses of the base pattern. */
  loss: SequenceLoss | undefined;
  keepsStates: boolean;
}

/** Opens an evaluator over windows of token ids; each window starts at position 0. */
export async function openLossEvaluator(
  model: ModelFolder,
  windows: readonly Int32Array[],
  settings: LossSettings,
): Promise<PatternEvaluator> {
  const threads = settings.threads ?? defaultThreads();
  const stages = await StageModel.open(model, { device: settings.device, threads });
  try {
    const budget = settings.stateBytes ?? Math.floor(freemem() * stateShare);
    let kept = 0;
    const sequences: Sequence[] = [];
    for (const ids of windows) {
      const { hidden, rows } = await stages.embed(ids);
      kept += stateBytes(model, ids.length);
      const keepsStates = kept <= budget;
      sequences.push({
        ids,
        rows,
        embedded: hidden,
        boundaries: [],
        selected: new Map(),
        loss: undefined,
        keepsStates,
      });
    }
    return new StagedEvaluator(stages, sequences, memoryPlan(model, sequences));
  } catch (error) {
    await stages.release();
    throw error;
  }
}

class StagedEvaluator implements PatternEvaluator {
  readonly plan: string[];
  readonly #stages: StageModel;
  readonly #sequences: Sequence[];
  readonly #layers: number;
  #base: Pattern | undefined;
  #executions: LayerExecutions = { body: 0, indexer: 0, naiveBody: 0, naiveIndexer: 0 };

  constructor(stages: StageModel, sequences: Sequence[], plan: string[]) {
    this.#stages = stages;
    this.#sequences = sequences;
    this.#layers = stages.config.numHiddenLayers;
    this.plan = plan;
  }

  async evaluate(pattern: Pattern, options: { base?: Pattern; signal?: AbortSignal } = {}): Promise<Measurement> {
    const started = performance.now();
    this.#executions = { body: 0, indexer: 0, naiveBody: 0, naiveIndexer: 0 };
    if (options.base !== undefined) await this.#rebase(options.base, options.signal);
    const losses: SequenceLoss[] = [];
    for (const [index, sequence] of this.#sequences.entries()) {
      this.#executions.naiveBody += this.#layers;
      this.#executions.naiveIndexer += fullLayers(pattern).length;
      losses.push(await this.#evaluateSequence(sequence, index, pattern, options.signal));
    }
    const seconds = (performance.now() - started) / 1000;
    return { pattern, ...meanLoss(losses), sequences: losses, seconds, executions: this.#executions };
  }

  async release(): Promise<void> {
    await this.#stages.release();
  }

  /** Makes `base` the pattern whose boundary states are kept; only layers from the first change up are run. */
  async #rebase(base: Pattern, signal: AbortSignal | undefined): Promise<void> {
    if (base === this.#base) return;
    const from = this.#base === undefined ? 0 : firstDifference(base, this.#base);
    // Until every sequence has followed, the states belong to no pattern: an interruption must not mix two.
    this.#base = undefined;
    for (const [index, sequence] of this.#sequences.entries()) {
      if (!sequence.keepsStates) continue;
      const start = Math.min(from, Math.max(sequence.boundaries.length - 1, 0));
      sequence.loss = undefined;
      sequence.boundaries = sequence.boundaries.slice(0, start + 1);
      if (sequence.boundaries.length === 0) sequence.boundaries.push(sequence.embedded);
      for (const layer of [...sequence.selected.keys()]) if (layer >= start) sequence.selected.delete(layer);
      const hidden = await this.#runLayers(sequence, base, start, sequence.selected, signal, (boundary) =>
        sequence.boundaries.push(boundary),
      );
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

  /** Runs layers `from` and up; `selected` holds the keys of Full layers below and gets those of the layers that run. */
  async #runLayers(
    sequence: Sequence,
    pattern: Pattern,
    from: number,
    selected: Map<number, SelectedKeys[]>,
    signal: AbortSignal | undefined,
    onBoundary?: (hidden: Float32Array) => void,
  ): Promise<Float32Array> {
    let hidden = (from === 0 ? sequence.embedded : sequence.boundaries[from]) as Float32Array;
    for (let layer = from; layer < this.#layers; layer++) {
      // A run blocks the event loop; between layers a signal can arrive.
      await nextTurn();
      if (signal?.aborted) throw new InterruptedError("Interrupted");
      if (isFull(pattern, layer)) {
        selected.set(layer, await this.#stages.selectKeys(layer, hidden, sequence.rows));
        this.#executions.indexer++;
      }
      const keys = selected.get(sourceLayer(pattern, layer)) as SelectedKeys[];
      hidden = await this.#stages.runBody(layer, hidden, sequence.rows, keys);
      this.#executions.body++;
      onBoundary?.(hidden);
    }
    return hidden;
  }

  async #lossOf(sequence: Sequence, index: number, hidden: Float32Array): Promise<SequenceLoss> {
    const losses = await this.#stages.negativeLogLikelihood(hidden, sequence.ids, sequence.rows);
    const loss = sum(losses) / losses.length;
    if (!Number.isFinite(loss)) await this.#blameLayer(sequence, index);
    return { loss, tokens: losses.length };
  }

  /** Finds the layer where a non-finite value first appears: slow, and only on the way to an error. */
  async #blameLayer(sequence: Sequence, index: number): Promise<never> {
    let hidden = sequence.embedded;
    let keys: SelectedKeys[] = [];
    for (let layer = 0; layer < this.#layers; layer++) {
      if (isFull(this.#stages.config.indexerLayers, layer)) {
        keys = await this.#stages.selectKeys(layer, hidden, sequence.rows);
      }
      hidden = await this.#stages.runBody(layer, hidden, sequence.rows, keys);
      if (!hidden.every(Number.isFinite)) {
        throw new RuntimeFailure(`Sequence ${index}: layer ${layer} gives values that are not finite`, {
          hint: "check the checkpoint with indexcache export, which looks at every weight",
        });
      }
    }
    throw new RuntimeFailure(`Sequence ${index}: the loss is not finite, though every layer's output is`);
  }
}

/** Token-weighted mean over sequences and its standard error (ratio estimator; s / sqrt(n) for equal lengths). */
export function meanLoss(losses: readonly SequenceLoss[]): { loss: number; standardError: number; tokens: number } {
  const tokens = sum(losses.map((sequence) => sequence.tokens));
  const loss = sum(losses.map((sequence) => sequence.loss * sequence.tokens)) / tokens;
  const squares = new CompensatedSum();
  for (const sequence of losses) squares.add((sequence.tokens * (sequence.loss - loss)) ** 2);
  const n = losses.length;
  const standardError = n < 2 ? 0 : Math.sqrt((n / (n - 1)) * squares.value) / tokens;
  return { loss, standardError, tokens };
}

/** Bytes of the boundary states of one sequence: hidden states at every boundary, selected keys of every Full layer. */
function stateBytes({ config }: ModelFolder, length: number): number {
  const hidden = (config.numHiddenLayers + 1) * config.hiddenSize;
  const selected = fullLayers(config.indexerLayers).length * Math.min(config.indexTopk, length);
  return 4 * length * (hidden + selected);
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
