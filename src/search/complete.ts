/** Every candidate on every sequence: the paper's way. */
import type { Selection, Tried } from "./selection.ts";

export const complete: Selection = {
  name: "complete",
  callsEach: () => 1,
  async *run(trials, step, from, patterns) {
    const tried: Tried[] = [];
    for (const pattern of patterns) {
      tried.push({ pattern, evaluation: yield* trials.evaluate(step, pattern, from), dropped: false });
    }
    return tried;
  },
};
