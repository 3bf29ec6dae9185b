/**
 * States of a group of windows at layer boundaries, of the base and of candidates: the only place that decides which are kept. A
 * candidate's states serve twice: it may be the next base, and a candidate of the next base that flips the same layer goes the
 * same way up to where the bases part. The search says which candidates lead (`search/cost.ts`).
 */
import { firstDifference, type Pattern } from "../../pattern/pattern.ts";

/** Whose states an evaluation wants to find again. */
export interface Wanted {
  base: Pattern;
  /** Candidates that may be the next base, the likeliest first. */
  keep: readonly Pattern[];
  /** The pattern at hand: whether it leads is known only after its last sequence. */
  newest: Pattern;
}

/** An array, or where it lies in a file. */
export interface Sized {
  readonly byteLength: number;
}

export class KeptStates<S extends { pattern: Pattern }> {
  /** Bytes; 0 keeps nothing. */
  readonly limit: number;
  readonly #partsOf: (states: S) => Sized[];
  #entries: S[] = [];
  /** The base, and the one before it. */
  #bases: Pattern[] = [];
  /** The base that each pattern was a candidate of. */
  readonly #baseOf = new WeakMap<S, Pattern | undefined>();

  /** @param partsOf everything that is kept; states of patterns that begin alike may share parts */
  constructor(limit: number, partsOf: (states: S) => Sized[]) {
    this.limit = limit;
    this.#partsOf = partsOf;
  }

  get parts(): Set<Sized> {
    return new Set(this.#entries.flatMap((states) => this.#partsOf(states)));
  }

  get(pattern: Pattern): S | undefined {
    return this.#entries.find((states) => states.pattern === pattern);
  }

  /** The states that spare a pattern the most layers. */
  closest(pattern: Pattern): S | undefined {
    return closest(pattern, this.#entries);
  }

  /**
   * Drops what there is no room for: the base, the likeliest next one and the pattern at hand stay before the states that it
   * leaves; other candidates give way to those. Of them candidates of this base and of the one before it stay first, then
   * those with the lowest flips, which may spare the most.
   * @param coming bytes that the states of the pattern at hand will take
   * @returns whether there is room for them
   */
  retain({ base, keep, newest }: Wanted, coming: number): boolean {
    if (base !== this.#bases[0]) this.#bases = [base, ...this.#bases.slice(0, 1)];
    const parts = new Set<Sized>();
    let bytes = 0;
    const kept: S[] = [];
    const consider = (states: S | undefined, limit: number): void => {
      if (states === undefined || kept.includes(states)) return;
      const more = this.#partsOf(states).filter((part) => !parts.has(part));
      const total = bytes + more.reduce((sum, { byteLength }) => sum + byteLength, 0);
      if (total > limit) return;
      bytes = total;
      for (const part of more) parts.add(part);
      kept.push(states);
    };
    for (const pattern of [base, keep[0] ?? base, newest]) consider(this.get(pattern), this.limit);
    const rank = (states: S): number =>
      firstDifference(states.pattern, base) +
      (this.#bases.includes(this.#baseOf.get(states) ?? base) ? 0 : base.length);
    const others = this.#entries.toSorted((left, right) => rank(left) - rank(right));
    for (const states of others) consider(states, this.limit - coming);
    this.#entries = kept;
    return bytes + coming <= this.limit;
  }

  /** @param instead states that have done their service */
  add(states: S, instead?: S): void {
    this.#entries = [...this.#entries.filter((entry) => entry !== instead && entry.pattern !== states.pattern), states];
    this.#baseOf.set(states, this.#bases[0]);
  }

  clear(): void {
    this.#entries = [];
  }
}

/** The first of those that share the most layers with a pattern. */
export function closest<T extends { pattern: Pattern }>(pattern: Pattern, all: Iterable<T>): T | undefined {
  let best: T | undefined;
  let most = -1;
  for (const one of all) {
    const shared = firstDifference(pattern, one.pattern);
    if (shared > most) [best, most] = [one, shared];
  }
  return best;
}
