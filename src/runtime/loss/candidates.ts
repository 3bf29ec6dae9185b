/**
 * Which candidates' states are worth keeping: those that lead come first, because one of them is the next base; the search
 * says which these are. Then all others of the base and of the one before it, because a flip that is tried on the next base
 * goes the same way up to the layer in which the bases differ. How many there is room for, `kept-states.ts` finds out.
 */
import { firstDifference, type Pattern } from "../../pattern/pattern.ts";

export class Candidates {
  #base: Pattern | undefined;
  /** Of the base. */
  #current = new Set<Pattern>();
  /** Of the base before it. */
  #earlier: Pattern[] = [];

  /**
   * Takes note of a candidate that departs from a base, or of the base itself.
   * @param leaders those that may become the next base
   * @returns the patterns before it in the order in which their states are worth keeping while it runs
   */
  worthKeeping(pattern: Pattern, base: Pattern, leaders: readonly Pattern[]): Pattern[] {
    if (base !== this.#base) {
      this.#earlier = [...this.#current];
      this.#base = base;
      this.#current = new Set();
    }
    // The lower the flip, the more layers it may spare.
    const depth = (candidate: Pattern): number => firstDifference(candidate, base);
    const others = [...this.#current, ...this.#earlier].sort((left, right) => depth(left) - depth(right));
    if (pattern !== base) this.#current.add(pattern);
    return [...leaders, ...others];
  }
}
