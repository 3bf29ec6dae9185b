/**
 * Sequential floating backward selection (Pudil et al. 1994): greedy steps backward, and after each one layers may get
 * their indexer back as long as that beats the best pattern known at the larger size. It ends because every way back up
 * improves what is known of a size by more than a tie.
 */
import type { Found, SearchEvent } from "../events.ts";
import { isBetter } from "../screening/repeated.ts";
import type { Selection } from "../screening/selection.ts";
import type { PatternSpace } from "../space.ts";
import { tryFrom } from "../step.ts";
import { chooseBest } from "../ties.ts";
import type { SearchPlan, Trials } from "../trials.ts";
import { countCandidates, eliminate } from "./greedy.ts";

export function planFloating(space: PatternSpace, retain: number, selection: Selection, sequences: number): SearchPlan {
  const owned = space.size;
  const calls = selection.callsEach(sequences);
  return {
    steps: owned - retain,
    evaluations: 1 + foreseen(space, owned, retain, owned) * calls,
    async *run(trials, from) {
      const { frontier } = trials;
      let current: Found = from;
      let size = owned;
      /** Where greedy would have gone on from, once the search has left its way. */
      let left: { found: Found; size: number } | undefined;
      for (;;) {
        if (size > retain) {
          size--;
          const greedys = left === undefined ? 0 : countCandidates(space, left.size, retain) * calls;
          trials.foresee(foreseen(space, owned, retain, size + 1) * calls + greedys);
          const shared = space.flips(current.pattern, "backward", retain);
          const next: Found = chooseBest(yield* tryFrom(trials, owned - size, current, shared), trials.tie);
          yield* trials.commit(owned - size, next);
          current = frontier.at(size) ?? next;
        }
        const up: Found | undefined = size < owned - 1 ? yield* wayUp(trials, current, size) : undefined;
        if (up !== undefined) {
          left ??= { found: current, size };
          size++;
          current = up;
        } else if (size === retain) break;
      }
      if (left === undefined) return current;
      // A better pattern of a larger size may lead to a worse one of the final size: greedy's own way is walked as well.
      trials.foresee(countCandidates(space, left.size, retain) * calls);
      trials.stepsBefore += owned - left.size;
      yield* eliminate(trials, left.found, retain);
      trials.stepsBefore -= owned - left.size;
      return frontier.at(retain) ?? current;
    },
  };

  /** The best pattern with one more Full layer, where it beats the one that is known. */
  async function* wayUp(trials: Trials, current: Found, size: number): AsyncGenerator<SearchEvent, Found | undefined> {
    const known = trials.frontier.at(size + 1);
    const patterns = space.flips(current.pattern, "forward", size + 1).filter((pattern) => space.allows(pattern));
    if (known === undefined || patterns.length === 0) return undefined;
    const step = owned - size - 1;
    const up = chooseBest(yield* tryFrom(trials, step, current, patterns), trials.tie);
    if (!(yield* isBetter(trials, step, current.pattern, up.pattern, known.pattern))) return undefined;
    yield* trials.commit(step, up);
    return up;
  }
}

/** Candidates of steps backward from a size, with one look back up behind each, where no look succeeds. */
function foreseen(space: PatternSpace, owned: number, retain: number, from: number): number {
  let candidates = 0;
  for (let size = from - 1; size >= retain; size--) {
    candidates += size + 1 - space.pinned + (size < owned - 1 ? owned - size : 0);
  }
  return candidates;
}
