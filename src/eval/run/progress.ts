/** Where an evaluation stands: items, running scores and the time that is left. */
import { sum } from "../../base/sum.ts";
import type { AnsweredItem } from "./evaluation.ts";

export interface EvalProgress {
  arms: readonly string[];
  /** Mean score over the items so far, of each arm; undefined before the first. */
  scores: readonly (number | undefined)[];
  items: { done: number; total: number | undefined; replayed: number };
  /** Of the last item. */
  task: string | undefined;
  length: number | undefined;
  elapsedSeconds: number;
  /** Undefined where the number of items is not known, and until more were run than are side by side: the first ones also open and warm up. */
  etaSeconds: number | undefined;
}

export class EvalProgressTracker {
  readonly #arms: readonly string[];
  readonly #total: number | undefined;
  readonly #sideBySide: number;
  readonly #started: number;
  readonly #scores: number[][];
  #done = 0;
  #replayed = 0;
  /** When as many had been run as are side by side. */
  #warmAt = 0;
  #last: AnsweredItem["item"] | undefined;

  /** @param started seconds of any clock, the same in `advance` and `at` */
  constructor(arms: readonly string[], total: number | undefined, sideBySide: number, started: number) {
    this.#arms = arms;
    this.#total = total;
    this.#sideBySide = sideBySide;
    this.#started = started;
    this.#scores = arms.map(() => []);
  }

  advance({ item, samples, fresh }: AnsweredItem, now: number): void {
    this.#done++;
    if (fresh.length === 0) this.#replayed++;
    else if (this.#done - this.#replayed === this.#sideBySide) this.#warmAt = now;
    this.#last = item;
    for (const [arm, { score, finish }] of samples.entries()) {
      if (finish !== "too-long") this.#scores[arm]?.push(score);
    }
  }

  at(now: number): EvalProgress {
    const elapsedSeconds = now - this.#started;
    const warm = this.#done - this.#replayed - this.#sideBySide;
    const left = this.#total === undefined ? undefined : this.#total - this.#done;
    const known = left !== undefined && warm > 0;
    return {
      arms: this.#arms,
      scores: this.#scores.map((scores) => (scores.length === 0 ? undefined : sum(scores) / scores.length)),
      items: { done: this.#done, total: this.#total, replayed: this.#replayed },
      task: this.#last?.task,
      length: this.#last?.length,
      elapsedSeconds,
      etaSeconds: known ? ((now - this.#warmAt) / warm) * left : undefined,
    };
  }
}
