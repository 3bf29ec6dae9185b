/**
 * Forward selection: from the pattern in which only layer 0 has its indexer, each step gives the one layer its indexer
 * back that lowers the loss most. It looks at few patterns where few layers stay Full.
 */
import { fullLayers, type Pattern } from "../pattern/pattern.ts";
import type { Evaluation } from "./events.ts";
import { sparsest, takeStep } from "./step.ts";
import { type Found, requireRetainable, type SearchPlan, type Trials } from "./trials.ts";

/** @throws UsageError where the model has fewer Full layers than should remain */
export function planForward(start: Pattern, retain: number): SearchPlan {
  requireRetainable(start, retain);
  const owned = fullLayers(start).length;
  let evaluations = 2;
  for (let full = 1; full < retain; full++) evaluations += owned - full;
  return {
    // Where layer 0 is all that stays, there is one pattern to measure and nothing to add.
    steps: Math.max(1, retain - 1),
    evaluations,
    async *run<E extends Evaluation>(trials: Trials<E>) {
      let current: Found<E> = yield* sparsest(trials);
      for (let step = 1; step < retain; step++) current = yield* takeStep(trials, step, current, "forward");
      return current;
    },
  };
}
