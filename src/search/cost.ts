/**
 * Counts layer executions (one layer x one sequence), assuming that the evaluator keeps the hidden states of the current base
 * pattern at every layer boundary, and those of the best candidate tried from it. Counted from patterns, not measured: a
 * resumed search and one on another machine decide by the same numbers.
 */
import { firstDifference, type Pattern } from "../pattern/pattern.ts";
import type { MeasureRequest } from "./events.ts";

export class LayerCost {
  /** Spent so far. */
  total = 0;
  /** The pattern whose states are there, by sequence. */
  readonly #held = new Map<number, Pattern>();
  #base: Pattern | undefined;
  #best: { pattern: Pattern; loss: number; sequences: Set<number> } | undefined;

  price(pattern: Pattern, base: Pattern, sequences: readonly number[]): number {
    const layers = pattern.length;
    let price = 0;
    for (const index of sequences) {
      price += this.#moving(base, index);
      price += layers - firstDifference(pattern, base);
    }
    return price;
  }

  /** How many of these evaluations, in their order, keep the total within a budget. */
  affordable(requests: readonly MeasureRequest[], budget: number): number {
    let total = this.total;
    const moved = new Set<string>();
    for (const [place, { pattern, base, sequences }] of requests.entries()) {
      for (const index of sequences) {
        // The first evaluation of a base brings its states; those after it find them.
        if (!moved.has(`${index} ${base}`)) total += this.#moving(base, index);
        moved.add(`${index} ${base}`);
        total += pattern.length - firstDifference(pattern, base);
      }
      if (total > budget) return place;
    }
    return requests.length;
  }

  /** What may become the next base after this one: its states are worth keeping. */
  leaders(base: Pattern): Pattern[] {
    return base === this.#base && this.#best !== undefined ? [this.#best.pattern] : [];
  }

  /** @param loss of the pattern as far as it is known, to find the best candidate */
  spend(pattern: Pattern, base: Pattern, sequences: readonly number[], loss: number): void {
    this.total += this.price(pattern, base, sequences);
    const kept = this.#best?.pattern === base ? this.#best : undefined;
    if (kept !== undefined) for (const index of kept.sequences) this.#held.set(index, base);
    if (base !== this.#base) this.#best = undefined;
    this.#base = base;
    for (const index of sequences) this.#held.set(index, base);
    if (pattern === base) return;
    if (pattern === this.#best?.pattern) {
      this.#best.loss = loss;
      for (const index of sequences) this.#best.sequences.add(index);
    } else if (this.#best === undefined || loss < this.#best.loss) {
      this.#best = { pattern, loss, sequences: new Set(sequences) };
    }
  }

  /** Running the base from the first layer whose states are not there. */
  #moving(base: Pattern, index: number): number {
    if (this.#best?.pattern === base && this.#best.sequences.has(index)) return 0;
    const held = this.#held.get(index);
    return base.length - (held === undefined ? 0 : firstDifference(base, held));
  }
}
