/** Which windows share a run of a sequence graph, and what is kept of each batch of them. */
import type { Tensor } from "onnxruntime-node";
import type { SequenceShape } from "../../graph/frames/sequence-rows.ts";
import { KeptStates } from "./kept-states.ts";
import { SequenceBatch } from "./sequence-batch.ts";
import type { PatternStates, WindowGroup } from "./window-losses.ts";

export interface BatchStates extends PatternStates {
  /** By layer: what enters it. Layer 0 has the token ids. */
  boundaries: ReadonlyMap<number, Tensor>;
  /** By Full layer. */
  selected: ReadonlyMap<number, Tensor>;
}

export interface BatchGroup extends WindowGroup<BatchStates> {
  batch: SequenceBatch;
}

/** Batches that are known, as a multiple of those that hold all windows once. */
const batchesKept = 4;

export class BatchGroups {
  readonly #windows: readonly Int32Array[];
  readonly #shape: SequenceShape;
  readonly #scoredFrom: readonly number[] | undefined;
  readonly #keepsBase: boolean;
  /** By name, the one that was asked for last at the end. */
  readonly #known = new Map<string, BatchGroup>();

  constructor(
    windows: readonly Int32Array[],
    shape: SequenceShape,
    scoredFrom: readonly number[] | undefined,
    keepsBase: boolean,
  ) {
    this.#windows = windows;
    this.#shape = shape;
    this.#scoredFrom = scoredFrom;
    this.#keepsBase = keepsBase;
  }

  /**
   * Windows in the batches that they run in: those that have run together before, because the states of a base are kept for
   * a whole batch, then so many as a run holds.
   * @param onForgotten hears of batches that were not asked for lately
   */
  of(indices: readonly number[], onForgotten: (group: BatchGroup) => void): BatchGroup[] {
    const { batch: size, length } = this.#shape;
    const open = new Set(indices);
    const wanted: BatchGroup[] = [];
    const take = (group: BatchGroup): void => {
      wanted.push(group);
      for (const index of group.places) open.delete(index);
    };
    for (const group of this.#known.values()) {
      if (group.places.length === size && group.places.every((index) => open.has(index))) take(group);
    }
    const rest = [...open].sort((left, right) => left - right);
    for (let first = 0; first < rest.length; first += size) {
      const places = rest.slice(first, first + size);
      const batch = new SequenceBatch(this.#windows, this.#shape, { indices: places, scoredFrom: this.#scoredFrom });
      // One base alone is kept, whatever it takes: nobody asks for room for a candidate.
      const states = new KeptStates<BatchStates>(this.#keepsBase ? Number.MAX_SAFE_INTEGER : 0, () => []);
      take(this.#known.get(batch.name) ?? { batch, places, length, states, base: undefined });
    }
    for (const group of wanted) {
      this.#known.delete(group.batch.name);
      this.#known.set(group.batch.name, group);
    }
    const most = Math.max(wanted.length, batchesKept * Math.ceil(this.#windows.length / size));
    for (const [name, group] of this.#known) {
      if (this.#known.size <= most) break;
      this.#known.delete(name);
      group.states.clear();
      onForgotten(group);
    }
    return wanted;
  }
}
