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
    let highest = Number.NEGATIVE_INFINITY;
    for (const logit of logits) if (logit > highest) highest = logit;
    let total = 0;
    for (const logit of logits) total += Math.exp(logit - highest);
    if (!Number.isFinite(total)) throw new RuntimeFailure("The model's logits are not finite");
    this.#logits = logits;
    this.#highest = highest;
    this.#logTotal = Math.log(total);
  }

  logprob(id: number): number {
    return (this.#logits[id] ?? Number.NaN) - this.#highest - this.#logTotal;
  }

  rank(id: number): number {
    const own = this.#logits[id] ?? Number.NaN;
    let rank = 1;
    for (const logit of this.#logits) if (logit > own) rank++;
    return rank;
  }

  top(count: number): ScoredToken[] {
    const best: number[] = [];
    if (count === 0) return [];
    let floor = Number.NEGATIVE_INFINITY;
    for (const [id, logit] of this.#logits.entries()) {
      if (best.length === count && logit <= floor) continue;
      let place = best.length;
      while (place > 0 && (this.#logits[best[place - 1] as number] as number) < logit) place--;
      best.splice(place, 0, id);
      if (best.length > count) best.pop();
      floor = this.#logits[best.at(-1) as number] as number;
    }
    return best.map((id) => ({ id, logprob: this.logprob(id) }));
  }

  score(id: number, top: number): RowScore {
    return { id, logprob: this.logprob(id), rank: this.rank(id), top: this.top(top) };
  }
}
