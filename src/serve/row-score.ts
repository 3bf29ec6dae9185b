/** What a row of logits says about the next token: log-probabilities, ranks, and the most likely tokens. */
import { RuntimeFailure } from "../base/errors.ts";

export interface ScoredToken {
  id: number;
  /** Natural logarithm of its probability. */
  logprob: number;
}

export interface RowScore extends ScoredToken {
  /** 1 for the most likely token; tokens that are equally likely have the same rank. */
  rank: number;
  /** The most likely tokens, the first one first; the lowest id first among equals. */
  top: readonly ScoredToken[];
}

/** One row of logits, normalized once, so that every number taken from it is the same to the last bit. */
export class RowDistribution {
  readonly #logits: Float32Array;
  readonly #highest: number;
  readonly #logTotal: number;

  /** @throws RuntimeFailure for a logit that is not a number */
  constructor(logits: Float32Array) {
    // Loops by index: a row is a whole vocabulary, and iterators take several times as long.
    let highest = Number.NEGATIVE_INFINITY;
    for (let id = 0; id < logits.length; id++) highest = Math.max(highest, logits[id] as number);
    let total = 0;
    for (let id = 0; id < logits.length; id++) total += Math.exp((logits[id] as number) - highest);
    if (!Number.isFinite(total)) throw new RuntimeFailure("The model's logits are not finite");
    this.#logits = logits;
    this.#highest = highest;
    this.#logTotal = Math.log(total);
  }

  logprob(id: number): number {
    return (this.#logits[id] ?? Number.NaN) - this.#highest - this.#logTotal;
  }

  rank(id: number): number {
    const logits = this.#logits;
    const own = logits[id] ?? Number.NaN;
    let rank = 1;
    for (let other = 0; other < logits.length; other++) if ((logits[other] as number) > own) rank++;
    return rank;
  }

  top(count: number): ScoredToken[] {
    if (count === 0) return [];
    const logits = this.#logits;
    const best: number[] = [];
    let floor = Number.NEGATIVE_INFINITY;
    for (let id = 0; id < logits.length; id++) {
      const logit = logits[id] as number;
      if (best.length === count && logit <= floor) continue;
      let place = best.length;
      while (place > 0 && (logits[best[place - 1] as number] as number) < logit) place--;
      best.splice(place, 0, id);
      if (best.length > count) best.pop();
      floor = logits[best.at(-1) as number] as number;
    }
    return best.map((id) => ({ id, logprob: this.logprob(id) }));
  }

  score(id: number, top: number): RowScore {
    return { id, logprob: this.logprob(id), rank: this.rank(id), top: this.top(top) };
  }
}
