/**
 * A sequence on its way through the layers under one pattern. It begins at the first layer in which the pattern differs from
 * one whose hidden states are there: kept from an earlier evaluation, or of another passage on the same walk. A passage may
 * wait at a layer boundary while others catch up, so that a layer is needed once for all of them.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { InterruptedError } from "../../base/errors.ts";
import { firstDifference, isFull, type Pattern, sourceLayer } from "../../pattern/pattern.ts";
import type { KnownRows, SequenceRows, StageModel } from "../stages/stage-model.ts";
import { closest, type Sized } from "./kept-states.ts";
import type { KeptKeys, StagedStates, StateStorage } from "./staged-states.ts";
import type { Region } from "./temporary-file.ts";
import type { Walker, WindowGroup } from "./window-losses.ts";

/** A window, and what is kept of it. */
export interface StagedWindow extends WindowGroup<StagedStates> {
  place: number;
  number: number;
  ids: Int32Array;
  /** The first row that predicts a token that counts. */
  firstScored: number;
  rows: SequenceRows;
  embedded: Float32Array;
  storage: StateStorage;
  /** What does not depend on the pattern: cache rows below `index_topk` of each layer, and the losses there. */
  latents: Map<number, Float32Array>;
  indexerKeys: Map<number, Float32Array>;
  firstLosses: Float32Array | undefined;
}

/** The states that a passage continues from. */
export type Departure = Pick<StagedStates, "pattern" | "boundaries" | "selected">;

export type StagedWalker = Walker<StagedStates, StagedWindow>;

export class Passage implements Departure {
  readonly pattern: Pattern;
  readonly window: StagedWindow;
  readonly walker: StagedWalker;
  /** The first layer that runs. */
  readonly from: number;
  /** Hidden states that enter each layer, if they are kept: what the next passages continue from. */
  readonly boundaries: (Float32Array | Region)[] = [];
  readonly selected = new Map<number, readonly KeptKeys[]>();
  readonly #stages: StageModel;
  readonly #departure: Departure | undefined;
  /** Passages that begin where this one comes by. */
  readonly #followers: Passage[] = [];
  #layer: number;
  #hidden: Float32Array | Region | undefined;
  #keys: readonly KeptKeys[] = [];

  /**
   * @param walker if its states are kept, those below the departure have to be there
   * @param departure kept states, or a passage of the same window that is walked before this one; from the embedding where
   *   absent
   */
  constructor(stages: StageModel, walker: StagedWalker, departure: Departure | undefined) {
    this.pattern = walker.pattern;
    this.window = walker.group;
    this.walker = walker;
    this.from = departure === undefined ? 0 : firstDifference(walker.pattern, departure.pattern);
    this.#stages = stages;
    this.#departure = departure;
    this.#layer = this.from;
    if (departure instanceof Passage) departure.#followers.push(this);
  }

  /** Runs the layers below `to` that it has not run. */
  async advance(to: number, signal: AbortSignal | undefined): Promise<void> {
    if (to <= this.#layer) return;
    const { rows, states, storage, indexerKeys, latents } = this.window;
    if (this.#hidden === undefined) this.#begin();
    let hidden = await storage.hidden(this.#hidden as Float32Array | Region);
    let keys = await storage.keys(this.#keys);
    for (; this.#layer < to; this.#layer++) {
      // A run blocks the event loop; between layers a signal can arrive.
      await nextTurn();
      if (signal?.aborted) throw new InterruptedError("Interrupted");
      const layer = this.#layer;
      this.#letGo(layer, hidden, keys);
      if (isFull(this.pattern, layer)) {
        const known = indexerKeys.get(layer);
        const result = await this.#stages.selectKeys(layer, hidden, rows, known);
        keys = result.selected;
        if (this.walker.keeps) this.selected.set(layer, await storage.keepKeys(keys));
        if (states.limit > 0) indexerKeys.set(layer, known ?? result.firstKeys);
        this.walker.executions.indexer++;
      }
      const known = await this.#knownRows(layer);
      const result = await this.#stages.runBody(layer, hidden, rows, keys, known);
      if (states.limit > 0) latents.set(layer, known?.latent ?? result.firstLatent);
      hidden = result.hidden;
      this.#count(known !== undefined);
      if (this.walker.keeps) this.boundaries.push(await storage.keep(hidden));
    }
    // What is kept need not be held twice.
    this.#hidden = this.walker.keeps ? this.boundaries.at(-1) : hidden;
    this.#keys = (this.walker.keeps ? this.selected.get(sourceLayer(this.pattern, to - 1)) : undefined) ?? keys;
  }

  /** Moves what is at hand between layers out of memory. */
  async setAside(storage: StateStorage): Promise<void> {
    if (this.#hidden instanceof Float32Array) this.#hidden = await storage.keep(this.#hidden);
    this.#keys = await storage.keepKeys(this.#keys);
  }

  /** What is at hand: hidden states and selected keys. */
  get parts(): Sized[] {
    return [...(this.#hidden === undefined ? [] : [this.#hidden]), ...this.#keys.map(({ indices }) => indices)];
  }

  /** Hidden states after the last layer; the passage lets go of them. */
  async leave(): Promise<Float32Array> {
    const hidden = await this.window.storage.hidden(this.#hidden as Float32Array | Region);
    this.#hidden = undefined;
    this.#keys = [];
    return hidden;
  }

  #begin(): void {
    const { embedded } = this.window;
    if (this.#departure instanceof Passage) throw new Error("a passage set out before the one that it departs from");
    const entering = this.#departure?.boundaries[this.from] ?? embedded;
    this.#setOut(entering, this.#departure?.selected.get(sourceLayer(this.pattern, this.from)) ?? []);
  }

  /** Hands over what passages that depart from this one begin with. */
  #letGo(layer: number, hidden: Float32Array, keys: readonly KeptKeys[]): void {
    for (const follower of this.#followers) {
      if (follower.from !== layer) continue;
      const kept = this.walker.keeps ? this.boundaries[layer] : undefined;
      follower.#setOut(kept ?? hidden, keys);
    }
  }

  #setOut(hidden: Float32Array | Region, keys: readonly KeptKeys[]): void {
    this.#hidden = hidden;
    this.#keys = keys;
    if (!this.walker.keeps) return;
    const below = this.#departure?.boundaries.slice(0, this.from) ?? [];
    if (below.length < this.from) throw new Error("states to be kept depart from states that are not");
    this.boundaries.push(...below, hidden);
    for (const [at, chunks] of this.#departure?.selected ?? []) if (at < this.from) this.selected.set(at, chunks);
  }

  /** The first rows after a layer, where a pass of any pattern has left them. */
  async #knownRows(layer: number): Promise<KnownRows | undefined> {
    const { latents, rows, storage } = this.window;
    const latent = latents.get(layer);
    const after = this.#departure?.boundaries[layer + 1];
    if (latent === undefined || after === undefined) return undefined;
    return { latent, hidden: await storage.hidden(after, rows.invariant * this.#stages.config.hiddenSize) };
  }

  /** Counts a layer body that ran over the sequence, over all its rows or only over those that a pattern decides. */
  #count(skipsInvariant: boolean): void {
    const { length, invariant } = this.window.rows;
    const skipped = skipsInvariant ? invariant : 0;
    const { rows } = this.walker.executions;
    this.walker.executions.body++;
    rows.run += length - skipped;
    rows.invariant += skipped;
    rows.prefix -= length;
  }
}

/** A passage for each walker of one window, many side by side, in an order in which each departs from kept states or from one before it. */
export function passagesOf(stages: StageModel, walkers: readonly StagedWalker[]): Passage[] {
  const passages: Passage[] = [];
  const leaders = walkers.filter(({ leads }) => leads);
  const leader = leaders.at(-1) ?? walkers[0];
  // What differs last goes first: the next ones share all that they can with it, base or no base.
  const depth = ({ pattern }: { pattern: Pattern }): number =>
    leader === undefined ? 0 : firstDifference(pattern, leader.pattern);
  const others = walkers.filter(({ leads }) => !leads).toSorted((a, b) => depth(b) - depth(a));
  for (const walker of [...leaders, ...others]) {
    if (passages.some(({ pattern }) => pattern === walker.pattern)) continue;
    const near: Departure[] = passages.filter((passage) => !walker.keeps || passage.walker.keeps);
    const kept = walker.departure === undefined ? near : [walker.departure, ...near];
    passages.push(new Passage(stages, walker, closest(walker.pattern, kept)));
  }
  return passages;
}
