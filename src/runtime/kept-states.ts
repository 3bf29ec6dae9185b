/** States of one sequence at layer boundaries, of a few patterns: the base, and candidates that may become the next one. */
import { firstDifference, type Pattern } from "../pattern/pattern.ts";

/** Whose states an evaluation wants to find again. */
export interface Wanted {
  base: Pattern | undefined;
  /** Candidates, the likeliest next base first. */
  keep: readonly Pattern[];
  /** The pattern at hand: whether it leads is known only after its last sequence. */
  newest: Pattern;
}

export class KeptStates<S extends { pattern: Pattern }> {
  /** Patterns whose states may be here at once; 0 keeps nothing. */
  readonly capacity: number;
  #entries: S[] = [];

  constructor(capacity: number) {
    this.capacity = capacity;
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

  /** Drops what nobody wants; beyond the capacity the base stays longest and the pattern at hand shortest. */
  retain(wanted: Wanted): void {
    const order = inOrder(wanted);
    this.#entries = this.#entries
      .map((states) => ({ states, place: order.indexOf(states.pattern) }))
      .filter(({ place }) => place >= 0)
      .sort((left, right) => left.place - right.place)
      .slice(0, this.capacity)
      .map(({ states }) => states);
  }

  /** Whether `retain` would leave the states of the pattern at hand: otherwise nobody need make them. */
  hasRoom(wanted: Wanted): boolean {
    const others = inOrder(wanted).filter((pattern) => pattern !== wanted.newest && this.get(pattern) !== undefined);
    return others.length < this.capacity;
  }

  add(states: S): void {
    this.#entries = [...this.#entries.filter(({ pattern }) => pattern !== states.pattern), states];
  }

  clear(): void {
    this.#entries = [];
  }
}

function inOrder({ base, keep, newest }: Wanted): Pattern[] {
  return [...new Set([...(base === undefined ? [] : [base]), ...keep, newest])];
}
