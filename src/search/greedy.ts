/**
 * The paper's training-free search (section 3.1): backward elimination over the loss. From the model's own pattern on,
 * each step tries every Full layer but the first as Shared and commits the one that costs least. Steps are nested, so
 * one run holds the pattern of every retention on its way.
 *
 * It knows no model: `evaluate` gives losses, a memo of earlier ones makes a resumed run a replay.
 */
import { fullLayers, type Pattern } from "../pattern/pattern.ts";
import type { Evaluation, SearchEvent, SearchOptions } from "./events.ts";
import { takeStep } from "./step.ts";
import { type Found, requireRetainable, runPlan, type SearchPlan, type Trials } from "./trials.ts";

/** Evaluations of a search: the baseline, and in each step one for every layer that is still free. */
export function countEvaluations(start: Pattern, retain: number): number {
  const full = fullLayers(start).length;
  let total = 1;
  for (let left = full; left > retain; left--) total += left - 1;
  return total;
}

/**
 * Runs the search. The consumer sees each evaluation before the next one begins, so that it can write it down.
 * @throws UsageError where the model has fewer Full layers than should remain
 * @throws RuntimeFailure for a loss that is not a number
 */
export async function* searchGreedily<E extends Evaluation>(options: SearchOptions<E>): AsyncGenerator<SearchEvent<E>> {
  yield* runPlan("greedy", planGreedy(options.start, options.retain), options);
}

export function planGreedy(start: Pattern, retain: number): SearchPlan {
  const steps = requireRetainable(start, retain);
  return {
    steps,
    evaluations: countEvaluations(start, retain),
    async *run<E extends Evaluation>(trials: Trials<E>, from: Found<E>) {
      let current = from;
      for (let step = 1; step <= steps; step++) current = yield* takeStep(trials, step, current, "backward");
      return current;
    },
  };
}
