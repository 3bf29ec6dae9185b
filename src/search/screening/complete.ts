/** Every candidate on every sequence: the paper's way. */
import type { Pattern } from "../../pattern/pattern.ts";
import type { Selection, Tried } from "./selection.ts";

export const complete: Selection = {
  name: "complete",
  callsEach: () => 1,
  async *run(trials, step, from, patterns) {
    const { sequences } = trials.losses;
    const requests = patterns.map((pattern) => ({ pattern, base: from, sequences }));
    const evaluations = yield* trials.evaluateAll(step, requests, from);
    return evaluations.map(
      (evaluation, place): Tried => ({
        pattern: patterns[place] as Pattern,
        evaluation,
        dropped: false,
      }),
    );
  },
};
