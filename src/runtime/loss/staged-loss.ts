/**
 * Losses by stages, window by window. Beside the layers below a first difference (`window-losses.ts`) rows are spared: one at a
 * position below `index_topk` selects every key that it sees, whatever the pattern, so that its states, cache rows and losses
 * are the same for all patterns. Losses are bit for bit those of full forward passes: chunks depend on nothing but positions.
 */
import { RuntimeFailure } from "../../base/errors.ts";
import { sum } from "../../base/sum.ts";
import { keptTokens } from "../../graph/frames/head.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { isFull, type Pattern } from "../../pattern/pattern.ts";
import type { PatternRequest, SequenceLoss } from "../measurement.ts";
import { type SelectedKeys, StageModel } from "../stages/stage-model.ts";
import { KeptStates } from "./kept-states.ts";
import { type BackendSettings, chosen, type TogetherOptions } from "./loss-backend.ts";
import { type Passage, passagesOf, type StagedWalker, type StagedWindow } from "./passage.ts";
import { ReferenceDistributions } from "./reference-distributions.ts";
import { distributionBytes, flightBytes, layerBytes, memoryPlan, type StateRoom, stateRooms } from "./staged-memory.ts";
import { partsOf, type StagedStates, StateStorage } from "./staged-states.ts";
import { TemporaryFile } from "./temporary-file.ts";
import { type Arrival, WindowLosses } from "./window-losses.ts";

export type StagedSettings = Omit<BackendSettings, "dtype">;

/** Share of the room for states that passages have between layers; the rest is for states that are kept. */
const flightShare = 0.5;

export class StagedLosses extends WindowLosses<StagedStates, StagedWindow> {
  readonly plan: string[];
  readonly #stages: StageModel;
  readonly #all: StagedWindow[];
  /** The model's own next-token distributions after the invariant rows, where divergences are asked for. */
  readonly #reference: ReferenceDistributions | undefined;
  readonly #file: TemporaryFile;
  /** Bytes that passages may take between layers, in memory and in the file. */
  readonly #flight: { memory: number; file: number };

  private constructor(
    stages: StageModel,
    windows: StagedWindow[],
    reference: ReferenceDistributions | undefined,
    file: TemporaryFile,
    flight: { memory: number; file: number },
    plan: string[],
  ) {
    super(stages.config, windows.length);
    this.#stages = stages;
    this.#all = windows;
    this.#reference = reference;
    this.#file = file;
    this.#flight = flight;
    this.plan = plan;
  }

  static async open(
    model: ModelFolder,
    windows: readonly Int32Array[],
    settings: StagedSettings,
  ): Promise<StagedLosses> {
    const { device, threads, numbers, recording } = settings;
    const top = settings.top === undefined ? undefined : keptTokens(model.config, settings.top);
    const { room } = settings;
    const stages = await StageModel.open(model, { device, threads, recording }, { top, room });
    try {
      const lengths = windows.map(({ length }) => length);
      const { config } = model;
      const referenceBytes =
        top === undefined ? 0 : sum(lengths.map((length) => distributionBytes(config, length, top)));
      const referenceLimit = Math.min(referenceBytes, settings.stateBytes / 2);
      const reference = top === undefined ? undefined : new ReferenceDistributions(referenceLimit);
      const share = room === undefined ? 0 : flightShare;
      const [memory, spill] = [settings.stateBytes - referenceLimit, settings.spillBytes ?? 0];
      const flight = { memory: share * memory, file: share * spill };
      const rooms = stateRooms(config, lengths, memory - flight.memory, spill - flight.file);
      const file = new TemporaryFile();
      const staged: StagedWindow[] = [];
      for (const [index, ids] of windows.entries()) {
        const states = rooms[index] as StateRoom;
        const { hidden: embedded, rows } = await stages.embed(ids);
        staged.push({
          place: index,
          places: [index],
          length: rows.length,
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
      return new StagedLosses(stages, staged, reference, file, flight, plan);
    } catch (error) {
      await stages.release();
      throw error;
    }
  }

  get sideBySide(): number {
    // Where layers come and go, all windows pass through one before the next is loaded.
    return this.inParts ? this.#all.length : 1;
  }

  protected get inParts(): boolean {
    return this.#stages.ranges.length > 1;
  }

  protected groupsOf(places: readonly number[]): StagedWindow[] {
    return chosen(this.#all, places);
  }

  protected lacksReference({ place }: StagedWindow): boolean {
    return this.#reference?.has(place) === false;
  }

  protected bytesOf({ length }: StagedWindow, pattern: Pattern, from: number): number {
    return layerBytes(this.config, length, pattern, from);
  }

  protected withRoom(requests: readonly PatternRequest[]): number {
    const room = this.#flight.memory + this.#flight.file;
    let taken = 0;
    const beyond = requests.findIndex(({ sequences }) => {
      taken += sum(chosen(this.#all, sequences).map(({ length }) => flightBytes(this.config, length)));
      return taken > room;
    });
    return beyond === -1 ? requests.length : Math.max(1, beyond);
  }

  override async evaluateAll(requests: readonly PatternRequest[], options?: TogetherOptions) {
    const before = { ...this.#stages.loads };
    const results = await super.evaluateAll(requests, options);
    const { layers, bytes, seconds } = this.#stages.loads;
    const loads = { layers: layers - before.layers, bytes: bytes - before.bytes, seconds: seconds - before.seconds };
    const [first] = results;
    if (this.inParts && first !== undefined) first.executions.loads = { passes: 1, ...loads };
    return results;
  }

  protected async walk(walkers: readonly StagedWalker[], signal: AbortSignal | undefined) {
    const passages = this.#all.flatMap((window) => {
      const here = walkers.filter(({ group }) => group === window);
      return passagesOf(this.#stages, here);
    });
    const aside = new StateStorage(this.#file, true);
    const arrivals: Arrival<StagedStates, StagedWindow>[] = [];
    try {
      await this.#advanceAll(passages, aside, signal);
      for (const passage of passages) {
        const { walker, window, pattern, from, boundaries, selected } = passage;
        const loss = await this.#headLoss(window, pattern, await passage.leave());
        arrivals.push({ walker, from, states: { pattern, boundaries, selected, losses: [loss] } });
      }
    } finally {
      aside.sweep(new Set());
    }
    return arrivals;
  }

  protected override sweep({ storage, states }: StagedWindow): void {
    storage.sweep(states.parts);
  }

  /** Takes passages through the layers, each range of layers in turn. */
  async #advanceAll(passages: readonly Passage[], aside: StateStorage, signal: AbortSignal | undefined): Promise<void> {
    let inMemory = 0;
    const leavesMemory = new Set(
      passages.filter(({ window: { length } }) => {
        inMemory += flightBytes(this.config, length);
        return this.inParts && inMemory > this.#flight.memory;
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

  async release(): Promise<void> {
    await this.#reference?.release();
    await this.#file.release();
    await this.#stages.release();
  }

  /** Back to what opening leaves, embeddings made anew. */
  protected async forget(window: StagedWindow): Promise<void> {
    window.embedded = (await this.#stages.embed(window.ids)).hidden;
    window.states.clear();
    window.base = undefined;
    window.latents.clear();
    window.indexerKeys.clear();
    window.firstLosses = undefined;
    this.#reference?.delete(window.place);
  }

  /** The loss at the end of a passage, and the divergence: the invariant rows have the same losses and none in every pattern. */
  async #headLoss(window: StagedWindow, pattern: Pattern, hidden: Float32Array): Promise<SequenceLoss> {
    const { place, ids, rows, firstLosses, firstScored } = window;
    const baseline = pattern === this.config.indexerLayers ? undefined : await this.#reference?.get(place);
    const from = firstLosses === undefined ? 0 : rows.invariant;
    const { values, width } = await this.#stages.lossRows(hidden, ids, rows, from, baseline);
    const losses = new Float32Array(rows.length - 1);
    losses.set(firstLosses ?? []);
    losses.set(column(values, 0, width), Math.min(from, losses.length));
    window.firstLosses ??= losses.slice(0, rows.invariant);
    if (baseline === undefined && this.#reference?.has(place) === false) {
      await this.#reference.set(place, values.slice((rows.invariant - from) * width));
    }
    const tokens = losses.length - firstScored;
    const loss = sum(losses.subarray(firstScored)) / tokens;
    const divergences =
      baseline === undefined ? [] : column(values, 1, width).subarray(Math.max(0, firstScored - from));
    const kl = this.#reference === undefined ? undefined : sum(divergences) / tokens;
    if (!Number.isFinite(loss) || !Number.isFinite(kl ?? 0)) await this.#blameLayer(window, pattern);
    return { loss, tokens, ...(kl === undefined ? {} : { kl }) };
  }

  /** Finds the layer where a non-finite value first appears: slow, and only on the way to an error. */
  async #blameLayer(window: StagedWindow, pattern: Pattern): Promise<never> {
    let hidden = window.embedded;
    let keys: SelectedKeys[] = [];
    for (let layer = 0; layer < this.config.numHiddenLayers; layer++) {
      if (isFull(pattern, layer)) {
        keys = (await this.#stages.selectKeys(layer, hidden, window.rows)).selected;
      }
      hidden = (await this.#stages.runBody(layer, hidden, window.rows, keys)).hidden;
      if (!hidden.every(Number.isFinite)) {
        throw new RuntimeFailure(
          `Sequence ${window.number}: layer ${layer} returns values that are not finite, with pattern ${pattern}`,
          {
            hint: "check the checkpoint with indexcache export, which looks at every weight",
          },
        );
      }
    }
    throw new RuntimeFailure(
      `Sequence ${window.number}: the loss is not finite, though every layer's output is, with pattern ${pattern}`,
    );
  }
}

/** One column of rows `[n, width]`. */
function column(rows: Float32Array, index: number, width: number): Float32Array {
  return Float32Array.from({ length: rows.length / width }, (_, row) => rows[row * width + index] as number);
}
