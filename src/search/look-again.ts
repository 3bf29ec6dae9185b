/**
 * Greedy, and a second look at its result: greedy is often optimal and sometimes far off, and only looking again tells
 * which. The second look is a forward beam of width 2 to the same size and single swaps of the better pattern, all of it
 * within twice the layers that greedy runs. Costs are counted from patterns and bases, not from clocks: a resumed search
 * and one on another machine look at the same patterns.
 */
import { fullLayers, type Pattern } from "../pattern/pattern.ts";
import { planBeam } from "./beam.ts";
import type { Evaluation, SecondLook } from "./events.ts";
import { planGreedy } from "./greedy.ts";
import { countSwaps, swap } from "./swap.ts";
import { type Found, improves, type SearchPlan, type Trials } from "./trials.ts";

/** Layers that greedy and the second look may run together, as a multiple of greedy's. */
const BUDGET = 2;
const WIDTH = 2;

/** @throws UsageError where the model has fewer Full layers than should remain */
export function planLookAgain(start: Pattern, retain: number): SearchPlan {
  const greedy = planGreedy(start, retain);
  const beam = planBeam(start, retain, { width: WIDTH, direction: "forward" });
  // The beam's plan counts the baseline, which greedy's has.
  const beamEvaluations = beam.evaluations - 1;
  const swaps = countSwaps(start, retain);
  return {
    steps: greedy.steps + beam.steps + 1,
    evaluations: greedy.evaluations + beamEvaluations + swaps,
    async *run<E extends Evaluation>(trials: Trials<E>, from: Found<E>) {
      trials.evaluationsAfter += beamEvaluations + swaps;
      const first: Found<E> = yield* greedy.run(trials, from);
      trials.evaluationsAfter -= beamEvaluations;
      const firstDone = trials.done;
      trials.budget = BUDGET * trials.cost;

      let best = first;
      trials.stepsBefore += greedy.steps;
      // Half a beam gives no pattern: it is begun only where it is sure to come to its end.
      const forward = trials.cost + highestBeamCost(start, retain) <= trials.budget;
      if (forward) {
        const other: Found<E> = yield* beam.run(trials, from);
        if (improves(other.evaluation, first.evaluation)) best = other;
      }
      trials.evaluationsAfter -= swaps;
      trials.stepsBefore += beam.steps;
      const swapped = yield* swap(trials, best);
      trials.stepsBefore -= greedy.steps + beam.steps;
      trials.budget = Number.POSITIVE_INFINITY;
      trials.foresee(0);

      const secondLook: SecondLook = {
        firstPattern: first.pattern,
        firstLoss: first.evaluation.loss,
        gain: first.evaluation.loss - swapped.best.evaluation.loss,
        evaluations: trials.done - firstDone,
        forward,
        finished: swapped.finished,
      };
      return { ...swapped.best, secondLook };
    },
  };
}

/** Body layers that the forward beam runs at most: each parent once from layer 1 up, and all of its children. */
function highestBeamCost(start: Pattern, retain: number): number {
  const layers = start.length;
  const owned = fullLayers(start).slice(1);
  // A child that flips layer i runs the layers from i up; the dearest ones are the lowest.
  const prices = owned.map((layer) => layers - layer);
  let cost = layers;
  for (let full = 1; full < retain; full++) {
    const children = prices.slice(0, owned.length - full + 1).reduce((sum, price) => sum + price, 0);
    // The first parent alone is the root, which is measured already.
    cost += full === 1 ? children : WIDTH * (layers + children);
  }
  return cost;
}
