/**
 * States of one sequence at layer boundaries, of the base and of candidates. A candidate's states serve twice: it may be
 * the next base, and a candidate of the next base that flips the same layer goes the same way up to where the bases part.
 */
import { firstDifference, type Pattern } from "../../pattern/pattern.ts";

/** Whose states an evaluation wants to find again. */
export interface Wanted {
  base: Pattern | undefined;
  /** Candidates, the likeliest next base first. */
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
    let best: S | undefined;
    let most = -1;
    for (const states of this.#entries) {
      const shared = firstDifference(pattern, states.pattern);
      if (shared > most) [best, most] = [states, shared];
    }
    return best;
  }

  /**
   * Drops what nobody wants, and beyond the limit what is wanted least: the base and the likeliest next one stay before
   * the pattern at hand, other candidates give way to it.
   * @param coming bytes that the states of the pattern at hand will take
   * @returns whether there is room for them
   */
  retain({ base, keep: [likeliest, ...others], newest }: Wanted, coming: number): boolean {
    const parts = new Set<Sized>();
    let bytes = 0;
    const kept: S[] = [];
    const consider = (pattern: Pattern | undefined, limit: number): void => {
      const states = this.#entries.find((entry) => entry.pattern === pattern);
      if (states === undefined || kept.includes(states)) return;
      const more = this.#partsOf(states).filter((part) => !parts.has(part));
      const total = bytes + more.reduce((sum, { byteLength }) => sum + byteLength, 0);
      if (total > limit) return;
      bytes = total;
      for (const part of more) parts.add(part);
      kept.push(states);
    };
    for (const pattern of [base, likeliest, newest]) consider(pattern, this.limit);
    for (const pattern of others) consider(pattern, this.limit - coming);
    this.#entries = kept;
    return bytes + coming <= this.limit;
  }

  /** @param instead states that have done their service */
  add(states: S, instead?: S): void {
    this.#entries = [...this.#entries.filter((entry) => entry !== instead && entry.pattern !== states.pattern), states];
  }

  clear(): void {
    this.#entries = [];
  }
}
