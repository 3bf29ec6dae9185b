/**
 * Losses with exact reuse, in one process. Two things never change between patterns and are computed once:
 * - flipping layer i leaves everything below i as it was, so the hidden states at every layer boundary of a base pattern
 *   are kept and a candidate runs only from its first difference up; those of the best candidate stay as well, because it
 *   is the next base;
 * - a row at a position below `index_topk` selects every key that it sees, whatever the pattern, so its states, cache rows
 *   and losses are the same for all patterns.
 * Losses are bit for bit those of full forward passes: chunks depend on nothing but positions.
 */
import { RuntimeFailure } from "../../base/errors.ts";
import { sum } from "../../base/sum.ts";
import { divergenceWidth, keptTokens } from "../../graph/frames/head.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { firstDifference, fullLayers, isFull, type Pattern } from "../../pattern/pattern.ts";
import type { EvaluateOptions, PatternRequest, SequenceLoss } from "../measurement.ts";
import type { SessionSettings } from "../session/onnx-session.ts";
import { type SelectedKeys, StageModel } from "../stages/stage-model.ts";
import type { LayerRoom } from "../stages/stage-sessions.ts";
import { KeptStates, type Wanted } from "./kept-states.ts";
import { type CountedExecutions, noExecutions } from "./layer-executions.ts";
import { type BackendSettings, chosen, type SequenceLosses, type SequenceResults } from "./loss-backend.ts";
import { OwnDistributions } from "./own-distributions.ts";
import { Passage, type StagedSequence } from "./passage.ts";
import { distributionBytes, flightBytes, layerBytes, memoryPlan, type StateRoom, stateRooms } from "./staged-memory.ts";
import { partsOf, type StagedStates, StateStorage } from "./staged-states.ts";
import { TemporaryFile } from "./temporary-file.ts";
import { passagesOf, type Walker } from "./walk.ts";

export interface StagedSettings extends BackendSettings {
  device: SessionSettings["device"];
  /** Bytes of a temporary file for the states of sequences that memory has no room for. */
  spillBytes?: number;
  /** Which layers stay in memory where not all of them have room. */
  room?: LayerRoom;
}

/** Share of the room for states that passages have between layers; the rest is for states that are kept. */
const flightShare = 0.5;

export class StagedLosses implements SequenceLosses {
  readonly sideBySide: number;
  readonly plan: string[];
  readonly #stages: StageModel;
  readonly #sequences: StagedSequence[];
  readonly #layers: number;
  /** The model's own next-token distributions behind the invariant rows, where divergences are asked for. */
  readonly #own: OwnDistributions | undefined;
  readonly #file: TemporaryFile;
  /** Bytes that passages may take between layers, in memory and in the file. */
  readonly #flight: { memory: number; file: number };
  #executions = noExecutions();

  private constructor(
    stages: StageModel,
    sequences: StagedSequence[],
    own: OwnDistributions | undefined,
    file: TemporaryFile,
    flight: { memory: number; file: number },
    plan: string[],
  ) {
    this.#stages = stages;
    this.#sequences = sequences;
    this.#layers = stages.config.numHiddenLayers;
    this.#own = own;
    this.#file = file;
    this.#flight = flight;
    // Where layers come and go, all windows pass through one before the next is loaded.
    this.sideBySide = stages.ranges.length === 1 ? 1 : sequences.length;
    this.plan = plan;
  }

  get walk(): SequenceLosses["walk"] {
    return this.#stages.ranges.length === 1 ? undefined : (requests, signal) => this.#walk(requests, signal);
  }

  static async open(
    model: ModelFolder,
    windows: readonly Int32Array[],
    settings: StagedSettings,
  ): Promise<StagedLosses> {
    const { device, threads, numbers, recording } = settings;
    const top = settings.top === undefined ? undefined : keptTokens(model.config, settings.top);
    const session = { device, threads, ...(recording === undefined ? {} : { recording }) };
    const { room } = settings;
    const stages = await StageModel.open(model, session, { top, room });
    try {
      const lengths = windows.map(({ length }) => length);
      const { config } = model;
      const ownBytes = top === undefined ? 0 : sum(lengths.map((length) => distributionBytes(config, length, top)));
      const ownLimit = Math.min(ownBytes, settings.stateBytes / 2);
      const own = top === undefined ? undefined : new OwnDistributions(ownLimit);
      const share = room === undefined ? 0 : flightShare;
      const [memory, spill] = [settings.stateBytes - ownLimit, settings.spillBytes ?? 0];
      const flight = { memory: share * memory, file: share * spill };
      const rooms = stateRooms(config, lengths, memory - flight.memory, spill - flight.file);
      const file = new TemporaryFile();
      const sequences: StagedSequence[] = [];
      for (const [index, ids] of windows.entries()) {
        const states = rooms[index] as StateRoom;
        const { hidden: embedded, rows } = await stages.embed(ids);
        sequences.push({
          place: index,
          number: numbers?.[index] ?? index,
          ids,
          firstScored: (settings.scoredFrom?.[index] ?? 1) - 1,
          rows,
          embedded,
          states: new KeptStates(states.limit, partsOf),
          storage: new StateStorage(file, states.inFile),
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
      return new StagedLosses(stages, sequences, own, file, flight, plan);
    } catch (error) {
      await stages.release();
      throw error;
    }
  }

  async evaluate(pattern: Pattern, { base, keep = [], afresh, sequences: asked, signal }: EvaluateOptions) {
    this.#executions = noExecutions();
    if (this.walk !== undefined) {
      for (const sequence of afresh === true ? chosen(this.#sequences, asked) : []) await this.#forget(sequence);
      const request = {
        pattern,
        ...(base === undefined ? {} : { base }),
        ...(asked === undefined ? {} : { sequences: asked }),
      };
      return (await this.#walk([request], signal))[0] as SequenceResults;
    }
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

  async #walk(requests: readonly PatternRequest[], signal: AbortSignal | undefined): Promise<SequenceResults[]> {
    const asked = requests.slice(0, this.#withRoom(requests));
    const before = { ...this.#stages.loads };
    const counts = asked.map(noExecutions);
    const aside = new StateStorage(this.#file, true);
    const passages: Passage[] = [];
    const found = new Map<string, SequenceLoss>();
    const nameOf = (pattern: Pattern, place: number): string => `${pattern} ${place}`;
    for (const sequence of this.#sequences) {
      const here = asked.flatMap(({ pattern, sequences }, at) => {
        if (sequences?.includes(sequence.place) === false) return [];
        const executions = counts[at] as CountedExecutions;
        executions.naiveBody += this.#layers;
        executions.naiveIndexer += fullLayers(pattern).length;
        executions.rows.prefix += this.#layers * sequence.rows.length;
        const known = sequence.states.get(pattern);
        if (known !== undefined) found.set(nameOf(pattern, sequence.place), known.loss);
        return known === undefined ? [{ pattern, keeps: false, executions }] : [];
      });
      const base = commonBase(asked);
      if (sequence.states.get(base as Pattern) !== undefined) sequence.base = base;
      const executions = here[0]?.executions;
      if (executions === undefined) continue;
      passages.push(...passagesOf(this.#stages, sequence, this.#leaders(sequence, base, executions), here));
    }
    try {
      await this.#advanceAll(passages, aside, signal);
      for (const passage of passages) {
        const { sequence, pattern, executions, keeps } = passage;
        const states = await this.#finish(passage, executions);
        found.set(nameOf(pattern, sequence.place), states.loss);
        if (!keeps) continue;
        sequence.states.add(states);
        sequence.base = pattern;
        sequence.states.retain({ base: pattern, keep: [], newest: pattern }, 0);
      }
    } finally {
      aside.sweep(new Set());
      for (const { storage, states } of this.#sequences) storage.sweep(states.parts);
    }
    const { layers, bytes, seconds } = this.#stages.loads;
    const loads = { layers: layers - before.layers, bytes: bytes - before.bytes, seconds: seconds - before.seconds };
    return asked.map(({ pattern, sequences }, at) => ({
      sequences: chosen(this.#sequences, sequences).map(
        ({ place }) => found.get(nameOf(pattern, place)) as SequenceLoss,
      ),
      executions: { ...(counts[at] as CountedExecutions), ...(at === 0 ? { loads: { passes: 1, ...loads } } : {}) },
    }));
  }

  /** Patterns that run before those that were asked for: the model's own for divergences, and a base that is kept. */
  #leaders({ place, states }: StagedSequence, base: Pattern | undefined, executions: CountedExecutions): Walker[] {
    const own = this.#stages.config.indexerLayers;
    const keepsBase = base !== undefined && states.limit > 0 && states.get(base) === undefined;
    const wantsOwn = this.#own !== undefined && !this.#own.has(place) && !(keepsBase && base === own);
    return [
      ...(wantsOwn ? [{ pattern: own, keeps: false, executions }] : []),
      ...(keepsBase ? [{ pattern: base, keeps: true, executions }] : []),
    ];
  }

  /** Takes passages through the layers, each range of layers in turn. */
  async #advanceAll(passages: readonly Passage[], aside: StateStorage, signal: AbortSignal | undefined): Promise<void> {
    let inMemory = 0;
    const leavesMemory = new Set(
      passages.filter(({ sequence: { rows } }) => {
        inMemory += flightBytes(this.#stages.config, rows.length);
        return inMemory > this.#flight.memory;
      }),
    );
    for (const { to } of this.#stages.ranges) {
      for (const passage of passages) {
        if (passage.from >= to) continue;
        await passage.advance(to, signal);
        if (leavesMemory.has(passage)) await passage.setAside(aside);
      }
      if (leavesMemory.size > 0) aside.sweep(new Set(passages.flatMap(({ parts }) => parts)));
    }
  }

  /** How many of the requests fit into one walk: at least one. */
  #withRoom(requests: readonly PatternRequest[]): number {
    const { config } = this.#stages;
    const room = this.#flight.memory + this.#flight.file;
    let taken = 0;
    const beyond = requests.findIndex(({ sequences }) => {
      taken += sum(chosen(this.#sequences, sequences).map(({ rows }) => flightBytes(config, rows.length)));
      return taken > room;
    });
    return beyond === -1 ? requests.length : Math.max(1, beyond);
  }

  async release(): Promise<void> {
    await this.#own?.release();
    await this.#file.release();
    await this.#stages.release();
  }

  /** Back to what opening leaves, embeddings made anew. */
  async #forget(sequence: StagedSequence): Promise<void> {
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
    sequence: StagedSequence,
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
  async #rebase(sequence: StagedSequence, base: Pattern, signal: AbortSignal | undefined): Promise<void> {
    const { states } = sequence;
    if (states.limit === 0 || sequence.base === base) return;
    if (states.get(base) === undefined) states.add(await this.#run(sequence, base, signal));
    else countKept(sequence, base, this.#layers, this.#executions);
    sequence.base = base;
  }

  async #lossOf(
    sequence: StagedSequence,
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
    sequence: StagedSequence,
    pattern: Pattern,
    signal: AbortSignal | undefined,
    keeps = true,
    closest = sequence.states.closest(pattern),
  ): Promise<StagedStates> {
    const executions = this.#executions;
    const passage = new Passage(this.#stages, sequence, pattern, { departure: closest, keeps, executions });
    await passage.advance(this.#layers, signal);
    return await this.#finish(passage, executions);
  }

  /** The loss at the end of a passage, and what it leaves. */
  async #finish(passage: Passage, executions: CountedExecutions): Promise<StagedStates> {
    const { sequence, pattern, from, boundaries, selected } = passage;
    countKept(sequence, pattern, from, executions);
    const loss = await this.#headLoss(sequence, pattern, await passage.leave());
    return { pattern, boundaries, selected, loss };
  }

  async #headLoss(sequence: StagedSequence, pattern: Pattern, hidden: Float32Array): Promise<SequenceLoss> {
    const { ids, rows, firstLosses, firstScored } = sequence;
    const { losses, divergences } =
      this.#own === undefined
        ? { losses: await this.#stages.negativeLogLikelihood(hidden, ids, rows, firstLosses), divergences: undefined }
        : await this.#divergences(sequence, pattern, hidden, this.#own);
    const tokens = losses.length - firstScored;
    const loss = sum(losses.subarray(firstScored)) / tokens;
    // Divergences begin after the invariant rows, which have none.
    const firstDivergence = Math.max(0, firstScored - rows.invariant);
    const kl = divergences === undefined ? undefined : sum(divergences.subarray(firstDivergence)) / tokens;
    sequence.firstLosses ??= losses.slice(0, rows.invariant);
    if (!Number.isFinite(loss) || !Number.isFinite(kl ?? 0)) await this.#blameLayer(sequence, pattern);
    return { loss, tokens, ...(kl === undefined ? {} : { kl }) };
  }

  /** Losses of all rows and the divergences that are not 0 by nature: the invariant rows diverge in no pattern. */
  async #divergences(
    { place, ids, rows, firstLosses }: StagedSequence,
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
  async #blameLayer(sequence: StagedSequence, pattern: Pattern): Promise<never> {
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

/** The base of all requests; undefined where they have several. */
function commonBase(requests: readonly PatternRequest[]): Pattern | undefined {
  const base = requests[0]?.base;
  return requests.every((request) => request.base === base) ? base : undefined;
}

/** Counts the layers below `from` that a candidate's states have spared: the base's own would not have. */
function countKept(
  { base, rows }: StagedSequence,
  pattern: Pattern,
  from: number,
  executions: CountedExecutions,
): void {
  const spared = (from - (base === undefined ? 0 : firstDifference(pattern, base))) * rows.length;
  if (spared <= 0) return;
  executions.rows.kept += spared;
  executions.rows.prefix -= spared;
}

/** One column of rows `[n, width]`. */
function column(rows: Float32Array, index: number, width: number): Float32Array {
  return Float32Array.from({ length: rows.length / width }, (_, row) => rows[row * width + index] as number);
}
