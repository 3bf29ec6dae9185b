/**
 * Forward selection: from the pattern in which only pinned layers have their indexer, each step gives the one layer its
 * indexer back that lowers the loss most. It looks at few patterns where few layers stay Full.
 */
import type { Found, SearchEvent } from "../events.ts";
import type { Selection } from "../screening/selection.ts";
import type { PatternSpace } from "../space.ts";
import { sparsest, takeStep } from "../step.ts";
import type { SearchPlan, Trials } from "../trials.ts";

export function planForward(
  space: PatternSpace,
  targets: readonly number[],
  selection: Selection,
  sequences: number,
): SearchPlan {
  const { pinned, size } = space;
  const most = Math.max(...targets);
  let candidates = 0;
  for (let full = pinned; full < most; full++) candidates += size - full;
  return {
    // Where only pinned layers stay, there is one pattern to measure and nothing to add.
    steps: Math.max(1, most - pinned),
    evaluations: 2 + candidates * selection.callsEach(sequences),
    async *run(trials) {
      yield* reachTargets(trials, targets, async function* (retain) {
        let current: Found = yield* sparsest(trials);
        for (let step = 1; step <= retain - pinned; step++) {
          current = yield* takeStep(trials, step, current, "forward", retain);
        }
      });
    },
  };
}

/**
 * Walks to the largest target, and again to each smaller one that this did not meet: with a limit on runs of Shared
 * layers, what lies on the way to many Full layers need not be allowed itself.
 */
export async function* reachTargets(
  { frontier }: Trials,
  targets: readonly number[],
  walk: (retain: number) => AsyncGenerator<SearchEvent, unknown>,
): AsyncGenerator<SearchEvent, void> {
  for (const retain of targets.toSorted((left, right) => right - left)) {
    if (frontier.at(retain) === undefined) yield* walk(retain);
  }
}
