/**
 * Refinement of finished patterns by exchange: one Full layer becomes Shared and one Shared layer gets its indexer back,
 * until no exchange helps by more than a tie. With `pairs`, two for two is tried where one for one helps no more.
 */
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import type { Found, SearchEvent } from "../events.ts";
import { isBetter } from "../screening/repeated.ts";
import type { Tried } from "../screening/selection.ts";
import type { PatternSpace } from "../space.ts";
import { follow } from "../step.ts";
import { chooseBest } from "../ties.ts";
import type { SearchPlan, Trials } from "../trials.ts";
import { rankedExchanges } from "./ranked-exchanges.ts";

export interface SwapSettings {
  pairs?: boolean;
}

/** A plan with swaps of every target behind it: one step more a target, however many swaps there will be. */
export function withSwaps(
  plan: SearchPlan,
  space: PatternSpace,
  targets: readonly number[],
  settings: SwapSettings,
): SearchPlan {
  const rounds = targets.reduce((total, retain) => total + countSwaps(space, retain, settings), 0);
  return {
    steps: plan.steps + targets.length,
    evaluations: plan.evaluations + rounds,
    async *run(trials, from) {
      trials.evaluationsAfter += rounds;
      yield* plan.run(trials, from);
      trials.stepsBefore += plan.steps;
      for (const retain of targets) {
        trials.evaluationsAfter -= countSwaps(space, retain, settings);
        const found = trials.frontier.at(retain);
        if (found !== undefined) yield* swap(trials, found, settings);
        trials.stepsBefore++;
      }
      trials.stepsBefore -= plan.steps + targets.length;
    },
  };
}

/** Evaluations of the round of swaps that finds nothing; each swap that helps brings another round. */
export function countSwaps(space: PatternSpace, retain: number, { pairs = false }: SwapSettings = {}): number {
  return space.countExchanges(retain, 1) + (pairs ? space.countExchanges(retain, 2) : 0);
}

/** Swaps until nothing helps; every one that does is committed. */
export async function* swap(
  trials: Trials,
  from: Found,
  { pairs = false }: SwapSettings = {},
): AsyncGenerator<SearchEvent, Found> {
  const { space } = trials;
  let best = from;
  let size = 1;
  trials.foresee(countSwaps(space, fullLayers(from.pattern).length, { pairs }));
  while (size <= (pairs ? 2 : 1)) {
    const better = yield* bestExchange(trials, best, size);
    if (better === undefined) {
      size++;
      continue;
    }
    best = better;
    yield* trials.commit(1, best);
    size = 1;
    trials.foresee(countSwaps(space, fullLayers(from.pattern).length, { pairs }));
  }
  return best;
}

/** What helps most, where something does. All of it departs from one base. */
async function* bestExchange(
  trials: Trials,
  from: Found,
  size: number,
): AsyncGenerator<SearchEvent, Found | undefined> {
  const patterns = [...rankedExchanges(trials.space, from.pattern, size, () => 0)].map(({ pattern }) => pattern);
  if (patterns.length === 0) return undefined;
  const { sequences } = trials.losses;
  const requests = patterns.map((pattern) => ({ pattern, base: from.pattern, sequences }));
  const evaluations = yield* trials.evaluateAll(1, requests, from.pattern);
  const tried = evaluations.map(
    (evaluation, place): Tried => ({
      pattern: patterns[place] as Pattern,
      evaluation,
      dropped: false,
    }),
  );
  const found = chooseBest(follow(trials, from, tried), trials.tie);
  return (yield* isBetter(trials, 1, from.pattern, found.pattern, from.pattern)) ? found : undefined;
}
