/**
 * Losses with exact reuse, in one process. Two things never change between patterns and are computed once:
 * - flipping layer i leaves everything below i as it was, so the hidden states at every layer boundary of a base pattern
 *   are kept and a candidate runs only from its first difference up; those of the best candidate stay as well, because it
 *   is the next base;
 * - a row at a position below `index_topk` selects every key that it sees, whatever the pattern, so its states, cache rows
 *   and losses are the same for all patterns.
 * Losses are bit for bit those of full forward passes: chunks depend on nothing but positions.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { InterruptedError, RuntimeFailure } from "../../base/errors.ts";
import { sum } from "../../base/sum.ts";
import { divergenceWidth, keptTokens } from "../../graph/frames/head.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { firstDifference, fullLayers, isFull, type Pattern, sourceLayer } from "../../pattern/pattern.ts";
import type { EvaluateOptions, SequenceLoss } from "../measurement.ts";
import type { SessionSettings } from "../session/onnx-session.ts";
import type { Recording } from "../session/recording.ts";
import { type KnownRows, type SelectedKeys, type SequenceRows, StageModel } from "../stages/stage-model.ts";
import { KeptStates, type Wanted } from "./kept-states.ts";
import { noExecutions } from "./layer-executions.ts";
import { chosen, type SequenceLosses } from "./loss-backend.ts";
import { OwnDistributions } from "./own-distributions.ts";
import { distributionBytes, layerBytes, memoryPlan, type StateRoom, stateRooms } from "./staged-memory.ts";
import { partsOf, type StagedStates, StateStorage } from "./staged-states.ts";
import { TemporaryFile } from "./temporary-file.ts";

export interface StagedSettings {
  device: SessionSettings["device"];
  threads: number;
  stateBytes: number;
  /** Bytes of a temporary file for the states of sequences that memory has no room for. */
  spillBytes?: number;
  /** Tokens of the model's own distribution that are kept, where divergences from it are asked for beside losses. */
  top?: number;
  /** What messages call the windows; 0 and up where absent. */
  numbers?: readonly number[];
  recording?: Recording;
}

interface Sequence {
  place: number;
  number: number;
  ids: Int32Array;
  rows: SequenceRows;
  embedded: Float32Array;
  states: KeptStates<StagedStates>;
  storage: StateStorage;
  /** The base of the last evaluation. */
  base: Pattern | undefined;
  /** What does not depend on the pattern: cache rows below `index_topk` of each layer, and the losses there. */
  latents: Map<number, Float32Array>;
  indexerKeys: Map<number, Float32Array>;
  firstLosses: Float32Array | undefined;
}

export class StagedLosses implements SequenceLosses {
  readonly sideBySide = 1;
  readonly plan: string[];
  readonly #stages: StageModel;
  readonly #sequences: Sequence[];
  readonly #layers: number;
  /** The model's own next-token distributions behind the invariant rows, where divergences are asked for. */
  readonly #own: OwnDistributions | undefined;
  readonly #file: TemporaryFile;
  #executions = noExecutions();

  private constructor(
    stages: StageModel,
    sequences: Sequence[],
    own: OwnDistributions | undefined,
    file: TemporaryFile,
    plan: string[],
  ) {
    this.#stages = stages;
    this.#sequences = sequences;
    this.#layers = stages.config.numHiddenLayers;
    this.#own = own;
    this.#file = file;
    this.plan = plan;
  }

  static async open(
    model: ModelFolder,
    windows: readonly Int32Array[],
    settings: StagedSettings,
  ): Promise<StagedLosses> {
    const { device, threads, numbers, recording } = settings;
    const top = settings.top === undefined ? undefined : keptTokens(model.config, settings.top);
    const session = { device, threads, ...(recording === undefined ? {} : { recording }) };
    const stages = await StageModel.open(model, session, top);
    try {
      const lengths = windows.map(({ length }) => length);
      const { config } = model;
      const ownBytes = top === undefined ? 0 : sum(lengths.map((length) => distributionBytes(config, length, top)));
      const ownLimit = Math.min(ownBytes, settings.stateBytes / 2);
      const own = top === undefined ? undefined : new OwnDistributions(ownLimit);
      const rooms = stateRooms(config, lengths, settings.stateBytes - ownLimit, settings.spillBytes ?? 0);
      const file = new TemporaryFile();
      const sequences: Sequence[] = [];
      for (const [index, ids] of windows.entries()) {
        const room = rooms[index] as StateRoom;
        const { hidden: embedded, rows } = await stages.embed(ids);
        sequences.push({
          place: index,
          number: numbers?.[index] ?? index,
          ids,
          rows,
          embedded,
          states: new KeptStates(room.limit, partsOf),
          storage: new StateStorage(room.inFile ? file : undefined),
          base: undefined,
          latents: new Map(),
          indexerKeys: new Map(),
          firstLosses: undefined,
        });
      }
      const plan = memoryPlan(
        config,
        rooms.map((room, index) => ({ ...room, length: lengths[index] as number })),
      );
      return new StagedLosses(stages, sequences, own, file, plan);
    } catch (error) {
      await stages.release();
      throw error;
    }
  }

  async evaluate(pattern: Pattern, { base, keep = [], afresh, sequences: asked, signal }: EvaluateOptions) {
    this.#executions = noExecutions();
    const sequences: SequenceLoss[] = [];
    for (const sequence of chosen(this.#sequences, asked)) {
      if (afresh === true) await this.#forget(sequence);
      this.#executions.naiveBody += this.#layers;
      this.#executions.naiveIndexer += fullLayers(pattern).length;
      this.#executions.rows.prefix += this.#layers * sequence.rows.length;
      await this.#requireOwn(sequence, pattern, base, signal);
      if (base !== undefined) await this.#rebase(sequence, base, signal);
      sequences.push(await this.#lossOf(sequence, pattern, { base, keep, newest: pattern }, signal));
      sequence.storage.sweep(sequence.states.parts);
    }
    return { sequences, executions: this.#executions };
  }

  async release(): Promise<void> {
    await this.#own?.release();
    await this.#file.release();
    await this.#stages.release();
  }

  /** Back to what opening leaves, embeddings made anew. */
  async #forget(sequence: Sequence): Promise<void> {
    sequence.embedded = (await this.#stages.embed(sequence.ids)).hidden;
    sequence.states.clear();
    sequence.base = undefined;
    sequence.latents.clear();
    sequence.indexerKeys.clear();
    sequence.firstLosses = undefined;
    this.#own?.delete(sequence.place);
  }

  /** Divergences are from the model's own pattern: it runs first, and a base that it is need not run again. */
  async #requireOwn(
    sequence: Sequence,
    pattern: Pattern,
    base: Pattern | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const own = this.#stages.config.indexerLayers;
    const keeps = base !== undefined && sequence.states.limit > 0;
    if (this.#own === undefined || this.#own.has(sequence.place) || pattern === own || (keeps && base === own)) return;
    const states = await this.#run(sequence, own, signal, keeps);
    if (keeps) sequence.states.add(states);
  }

  /** Sees to it that the states of `base` are kept: those that it left as a candidate, or a run from where they differ. */
  async #rebase(sequence: Sequence, base: Pattern, signal: AbortSignal | undefined): Promise<void> {
    const { states } = sequence;
    if (states.limit === 0 || sequence.base === base) return;
    if (states.get(base) === undefined) states.add(await this.#run(sequence, base, signal));
    else this.#countKept(sequence, base, this.#layers);
    sequence.base = base;
  }

  async #lossOf(
    sequence: Sequence,
    pattern: Pattern,
    wanted: Wanted,
    signal: AbortSignal | undefined,
  ): Promise<SequenceLoss> {
    const { states, rows } = sequence;
    const known = states.get(pattern);
    if (known !== undefined) return known.loss;
    // Without a base nobody departs from anywhere: a single evaluation need not hold what it passes.
    if (wanted.base === undefined) return (await this.#run(sequence, pattern, signal, false)).loss;
    const closest = states.closest(pattern);
    const from = closest === undefined ? 0 : firstDifference(pattern, closest.pattern);
    const keeps = states.retain(wanted, layerBytes(this.#stages.config, rows.length, pattern, from));
    const result = await this.#run(sequence, pattern, signal, keeps, closest);
    // The same flip on the base before this one has served its only purpose, unless it may become a base itself.
    const served = closest?.pattern === wanted.base || closest?.pattern === wanted.keep[0] ? undefined : closest;
    if (keeps) states.add(result, served);
    return result.loss;
  }

  /**
   * Runs a pattern from the first layer in which it differs from the states that it goes on from.
   * @param keeps whether what comes back holds the boundaries
   */
  async #run(
    sequence: Sequence,
    pattern: Pattern,
    signal: AbortSignal | undefined,
    keeps = true,
    closest = sequence.states.closest(pattern),
  ): Promise<StagedStates> {
    const { rows, states, storage } = sequence;
    const from = closest === undefined ? 0 : firstDifference(pattern, closest.pattern);
    const entering = closest?.boundaries[from] ?? sequence.embedded;
    const boundaries = keeps ? [...(closest?.boundaries.slice(0, from) ?? []), entering] : [];
    const selected = new Map([...(closest?.selected ?? [])].filter(([layer]) => layer < from));
    let hidden = await storage.hidden(entering);
    let keys = await storage.keys(selected.get(sourceLayer(pattern, from)) ?? []);
    for (let layer = from; layer < this.#layers; layer++) {
      // A run blocks the event loop; between layers a signal can arrive.
      await nextTurn();
      if (signal?.aborted) throw new InterruptedError("Interrupted");
      if (isFull(pattern, layer)) {
        const known = sequence.indexerKeys.get(layer);
        const result = await this.#stages.selectKeys(layer, hidden, rows, known);
        keys = result.selected;
        if (keeps) selected.set(layer, await storage.keepKeys(keys));
        if (states.limit > 0) sequence.indexerKeys.set(layer, known ?? result.firstKeys);
        this.#executions.indexer++;
      }
      const known = await this.#knownRows(sequence, layer, closest);
      const result = await this.#stages.runBody(layer, hidden, rows, keys, known);
      if (states.limit > 0) sequence.latents.set(layer, known?.latent ?? result.firstLatent);
      hidden = result.hidden;
      this.#count(rows, known !== undefined);
      if (keeps) boundaries.push(await storage.keep(hidden));
    }
    this.#countKept(sequence, pattern, from);
    const loss = await this.#headLoss(sequence, pattern, hidden);
    return { pattern, boundaries, selected, loss };
  }

  /** The first rows behind a layer, where a pass of any pattern has left them. */
  async #knownRows(
    { latents, rows, storage }: Sequence,
    layer: number,
    states: StagedStates | undefined,
  ): Promise<KnownRows | undefined> {
    const latent = latents.get(layer);
    const behind = states?.boundaries[layer + 1];
    if (latent === undefined || behind === undefined) return undefined;
    return { latent, hidden: await storage.hidden(behind, rows.invariant * this.#stages.config.hiddenSize) };
  }

  /** Counts a layer body that ran over a sequence, over all its rows or only over those that a pattern decides. */
  #count({ length, invariant }: SequenceRows, skipsInvariant: boolean): void {
    const skipped = skipsInvariant ? invariant : 0;
    const { rows } = this.#executions;
    this.#executions.body++;
    rows.run += length - skipped;
    rows.invariant += skipped;
    rows.prefix -= length;
  }

  /** Counts the layers below `from` that a candidate's states have spared: the base's own would not have. */
  #countKept({ base, rows }: Sequence, pattern: Pattern, from: number): void {
    const spared = (from - (base === undefined ? 0 : firstDifference(pattern, base))) * rows.length;
    if (spared <= 0) return;
    this.#executions.rows.kept += spared;
    this.#executions.rows.prefix -= spared;
  }

  async #headLoss(sequence: Sequence, pattern: Pattern, hidden: Float32Array): Promise<SequenceLoss> {
    const { ids, rows, firstLosses } = sequence;
    const { losses, divergences } =
      this.#own === undefined
        ? { losses: await this.#stages.negativeLogLikelihood(hidden, ids, rows, firstLosses), divergences: undefined }
        : await this.#divergences(sequence, pattern, hidden, this.#own);
    const loss = sum(losses) / losses.length;
    const kl = divergences === undefined ? undefined : sum(divergences) / losses.length;
    sequence.firstLosses ??= losses.slice(0, rows.invariant);
    if (!Number.isFinite(loss) || !Number.isFinite(kl ?? 0)) await this.#blameLayer(sequence, pattern);
    return { loss, tokens: losses.length, ...(kl === undefined ? {} : { kl }) };
  }

  /** Losses of all rows and the divergences that are not 0 by nature: the invariant rows diverge in no pattern. */
  async #divergences(
    { place, ids, rows, firstLosses }: Sequence,
    pattern: Pattern,
    hidden: Float32Array,
    kept: OwnDistributions,
  ): Promise<{ losses: Float32Array; divergences: Float32Array }> {
    if (pattern === this.#stages.config.indexerLayers) {
      const found = await this.#stages.ownDistribution(hidden, ids, rows);
      const width = found.length / (rows.length - 1);
      if (!kept.has(place)) await kept.set(place, found.slice(rows.invariant * width));
      return { losses: column(found, 0, width), divergences: new Float32Array() };
    }
    const own = await kept.get(place);
    if (own === undefined || firstLosses === undefined) throw new Error("the model's own pattern has not run");
    const found = await this.#stages.divergence(hidden, ids, rows, own);
    const losses = new Float32Array(rows.length - 1);
    losses.set(firstLosses);
    losses.set(column(found, 0, divergenceWidth), firstLosses.length);
    return { losses, divergences: column(found, 1, divergenceWidth) };
  }

  /** Finds the layer where a non-finite value first appears: slow, and only on the way to an error. */
  async #blameLayer(sequence: Sequence, pattern: Pattern): Promise<never> {
    let hidden = sequence.embedded;
    let keys: SelectedKeys[] = [];
    for (let layer = 0; layer < this.#layers; layer++) {
      if (isFull(pattern, layer)) {
        keys = (await this.#stages.selectKeys(layer, hidden, sequence.rows)).selected;
      }
      hidden = (await this.#stages.runBody(layer, hidden, sequence.rows, keys)).hidden;
      if (!hidden.every(Number.isFinite)) {
        throw new RuntimeFailure(
          `Sequence ${sequence.number}: layer ${layer} gives values that are not finite, with pattern ${pattern}`,
          {
            hint: "check the checkpoint with indexcache export, which looks at every weight",
          },
        );
      }
    }
    throw new RuntimeFailure(
      `Sequence ${sequence.number}: the loss is not finite, though every layer's output is, with pattern ${pattern}`,
    );
  }
}

/** One column of rows `[n, width]`. */
function column(rows: Float32Array, index: number, width: number): Float32Array {
  return Float32Array.from({ length: rows.length / width }, (_, row) => rows[row * width + index] as number);
}
