/** Every candidate on every sequence: the paper's way. */
import type { Screening } from "./screening.ts";

export const complete: Screening = {
  name: "complete",
  callsEach: () => 1,
  async *run(trials, from, patterns) {
    return yield* trials.tryAll(patterns, from);
  },
};
