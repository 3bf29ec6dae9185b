/**
 * Neumaier's compensated sum: a loss is a mean over up to 10^8 terms, and greedy decisions hang on differences of 1e-5.
 */
export class CompensatedSum {
  #sum = 0;
  #compensation = 0;

  add(term: number): void {
    const next = this.#sum + term;
    this.#compensation += Math.abs(this.#sum) >= Math.abs(term) ? this.#sum - next + term : term - next + this.#sum;
    this.#sum = next;
  }

  get value(): number {
    return this.#sum + this.#compensation;
  }
}

/** Compensated sum of a list. */
export function sum(terms: Iterable<number>): number {
  const total = new CompensatedSum();
  for (const term of terms) total.add(term);
  return total.value;
}
