/**
 * Sequential floating backward selection (Pudil et al. 1994): greedy steps backward, and after each one layers may get
 * their indexer back as long as that beats the best pattern known at the larger size. A table holds the best of each
 * size. It ends because every way back up improves an entry of the table by more than a tie.
 */
import { fullLayers, type Pattern } from "../pattern/pattern.ts";
import type { Evaluation } from "./events.ts";
import { countEvaluations, planGreedy } from "./greedy.ts";
import { commit, neighbours, tryFrom } from "./step.ts";
import { chooseBest, type Found, improves, requireRetainable, type SearchPlan, type Trials } from "./trials.ts";

/** @throws UsageError where the model has fewer Full layers than should remain */
export function planFloating(start: Pattern, retain: number): SearchPlan {
  const steps = requireRetainable(start, retain);
  const owned = fullLayers(start).length;
  return {
    steps,
    evaluations: 1 + foreseen(owned, retain, owned),
    async *run<E extends Evaluation>(trials: Trials<E>, from: Found<E>) {
      const table = new Map<number, Found<E>>([[owned, from]]);
      let current = from;
      let size = owned;
      /** Where greedy would have gone on from, once the search has left its way. */
      let left: Found<E> | undefined;
      for (;;) {
        if (size > retain) {
          size--;
          const greedys = left === undefined ? 0 : countEvaluations(left.pattern, retain) - 1;
          trials.foresee(foreseen(owned, retain, size + 1) + greedys);
          const shared = neighbours(start, current.pattern, "backward");
          const next: Found<E> = chooseBest(yield* tryFrom(trials, owned - size, current, shared));
          const known = table.get(size);
          current = known === undefined || improves(next.evaluation, known.evaluation) ? next : known;
          table.set(size, current);
          yield* commit(trials, owned - size, current);
        }
        const up: Found<E> | undefined = yield* wayUp(trials, current, size, table.get(size + 1));
        if (up !== undefined) {
          left ??= current;
          size++;
          table.set(size, up);
          current = up;
        } else if (size === retain) break;
      }
      return left === undefined ? current : yield* noWorseThanGreedy(trials, current, left);
    },
  };

  /** The best pattern with one more Full layer, where it beats the one that is known. */
  async function* wayUp<E extends Evaluation>(
    trials: Trials<E>,
    current: Found<E>,
    size: number,
    known: Found<E> | undefined,
  ) {
    if (size >= owned - 1 || known === undefined) return undefined;
    const step = owned - size - 1;
    const up = chooseBest(yield* tryFrom(trials, step, current, neighbours(start, current.pattern, "forward")));
    if (!improves(up.evaluation, known.evaluation)) return undefined;
    yield* commit(trials, step, up);
    return up;
  }

  /** A better pattern of a larger size may lead to a worse one of the final size: greedy's own way is walked as well. */
  async function* noWorseThanGreedy<E extends Evaluation>(trials: Trials<E>, found: Found<E>, left: Found<E>) {
    const at = fullLayers(left.pattern).length;
    trials.foresee(countEvaluations(left.pattern, retain) - 1);
    trials.stepsBefore += owned - at;
    const greedy = yield* planGreedy(left.pattern, retain).run(trials, left);
    trials.stepsBefore -= owned - at;
    return improves(found.evaluation, greedy.evaluation) ? found : greedy;
  }
}

/** Evaluations of steps backward from a size, with one look back up behind each, where no look succeeds. */
function foreseen(owned: number, retain: number, from: number): number {
  let evaluations = 0;
  for (let size = from - 1; size >= retain; size--) evaluations += size + (size < owned - 1 ? owned - size : 0);
  return evaluations;
}
