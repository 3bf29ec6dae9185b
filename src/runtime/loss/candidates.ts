/**
 * Which candidates' states are worth keeping, as seen from the evaluations that were asked for: those that lead, because
 * one of them is the next base, then all others of the base and of the one before it, because a flip that is tried on the
 * next base goes the same way up to the layer in which the bases differ.
 */
import { TIE_NATS } from "../../base/near-tie.ts";
import { firstDifference, type Pattern } from "../../pattern/pattern.ts";

export class Candidates {
  #base: Pattern | undefined;
  /** Of the base, with what the search minimises where that is known over all windows. */
  #current = new Map<Pattern, number | undefined>();
  /** Of the base before it. */
  #earlier: Pattern[] = [];

  /** Patterns in the order in which their states are worth keeping while a candidate of `base` runs. */
  worthKeeping(base: Pattern): Pattern[] {
    if (base !== this.#base) {
      this.#earlier = [...this.#current.keys()];
      this.#base = base;
      this.#current = new Map();
    }
    const lowest = Math.min(...[...this.#current.values()].map((value) => value ?? Number.POSITIVE_INFINITY));
    const leaders: Pattern[] = [];
    const others: Pattern[] = [];
    for (const [pattern, value] of this.#current) {
      const leads = value !== undefined && value <= lowest + TIE_NATS;
      (leads ? leaders : others).push(pattern);
    }
    others.push(...this.#earlier);
    // The lower the flip, the more layers it may spare.
    const depth = (pattern: Pattern): number => firstDifference(pattern, base);
    return [...leaders, ...others.sort((left, right) => depth(left) - depth(right))];
  }

  /** Takes note of an evaluation of a candidate of the last base. */
  add(pattern: Pattern, value: number | undefined): void {
    if (pattern !== this.#base) this.#current.set(pattern, value ?? this.#current.get(pattern));
  }
}
