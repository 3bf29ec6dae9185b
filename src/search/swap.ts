/**
 * Refinement of a finished pattern by exchange: one Full layer becomes Shared and one Shared layer gets its indexer back,
 * until no exchange helps by more than a tie. With `pairs`, two for two is tried where one for one helps no more.
 */
import { fullLayers, type Pattern, withFull, withShared } from "../pattern/pattern.ts";
import type { Evaluation, SearchEvent } from "./events.ts";
import { commit, follow } from "./step.ts";
import {
  chooseBest,
  differences,
  type Flip,
  type Found,
  flip,
  improves,
  type SearchPlan,
  type Trials,
} from "./trials.ts";

export interface SwapSettings {
  /** Take the first exchange that helps, or try all and take the best (default). */
  improvement?: "first" | "best";
  pairs?: boolean;
}

/** A plan with swaps behind it: one step more, however many swaps there will be. */
export function withSwaps(plan: SearchPlan, start: Pattern, retain: number, settings: SwapSettings = {}): SearchPlan {
  const round = countSwaps(start, retain, settings);
  return {
    steps: plan.steps + 1,
    evaluations: plan.evaluations + round,
    async *run<E extends Evaluation>(trials: Trials<E>, from: Found<E>) {
      trials.evaluationsAfter += round;
      const found = yield* plan.run(trials, from);
      trials.evaluationsAfter -= round;
      trials.stepsBefore += plan.steps;
      const { best } = yield* swap(trials, found, settings);
      trials.stepsBefore -= plan.steps;
      return best;
    },
  };
}

/** Evaluations of the round of swaps that finds nothing; each swap that helps brings another round. */
export function countSwaps(start: Pattern, retain: number, { pairs = false }: SwapSettings = {}): number {
  const full = retain - 1;
  const shared = fullLayers(start).length - retain;
  const singles = full * shared;
  return pairs ? singles + (singles * (full - 1) * (shared - 1)) / 4 : singles;
}

/**
 * Swaps until nothing helps, or until the budget of `trials` does not allow the next evaluation.
 * @returns the pattern, never worse than `from`, and whether the swaps came to their end
 */
export async function* swap<E extends Evaluation>(
  trials: Trials<E>,
  from: Found<E>,
  { improvement = "best", pairs = false }: SwapSettings = {},
): AsyncGenerator<SearchEvent<E>, { best: Found<E>; finished: boolean }> {
  let best = from;
  for (;;) {
    trials.foresee(countSwaps(trials.start, trials.retain, { pairs }));
    let improved = false;
    for (const size of pairs ? [1, 2] : [1]) {
      const round = yield* look(trials, best, exchanges(trials.start, best.pattern, size), improvement);
      if (round.found !== undefined) {
        best = { ...best, ...round.found };
        improved = true;
        yield* commit(trials, 1, best);
      }
      if (!round.finished) return { best, finished: false };
      if (improved) break;
    }
    if (!improved) return { best, finished: true };
  }
}

/** One round: what helps most, or first, and whether the budget held. All of it departs from one base. */
async function* look<E extends Evaluation>(
  trials: Trials<E>,
  from: Found<E>,
  patterns: readonly Pattern[],
  improvement: "first" | "best",
): AsyncGenerator<SearchEvent<E>, { found: Found<E> | undefined; finished: boolean }> {
  const tried: Flip<E>[] = [];
  let finished = true;
  for (const pattern of patterns) {
    finished = trials.affords(pattern, from.pattern);
    if (!finished) break;
    const evaluation = yield* trials.evaluate(1, pattern, from.pattern);
    tried.push(flip(from.pattern, pattern, evaluation));
    if (improvement === "first" && improves(evaluation, from.evaluation)) break;
  }
  if (tried.length === 0) return { found: undefined, finished };
  const all = follow(from, tried);
  const found = chooseBest(improvement === "first" ? all.slice(-1) : all);
  return { found: improves(found.evaluation, from.evaluation) ? found : undefined, finished };
}

/** Patterns with `size` layers of each kind exchanged, by their lowest changed layers, the one that ties go to first. */
function exchanges(start: Pattern, pattern: Pattern, size: number): Pattern[] {
  const full = fullLayers(pattern).slice(1);
  const shared = fullLayers(start).filter((layer) => pattern[layer] === "S");
  const patterns = choose(full, size).flatMap((out) =>
    choose(shared, size).map((back) => back.reduce(withFull, out.reduce(withShared, pattern))),
  );
  const changed = new Map(patterns.map((one) => [one, differences(pattern, one)]));
  return patterns.sort((left, right) => compare(changed.get(left) ?? [], changed.get(right) ?? []));
}

/** Every choice of `size` layers, ascending. */
function choose(layers: readonly number[], size: number): number[][] {
  if (size === 0) return [[]];
  return layers.flatMap((layer, index) => choose(layers.slice(index + 1), size - 1).map((rest) => [layer, ...rest]));
}

function compare(left: readonly number[], right: readonly number[]): number {
  const index = left.findIndex((layer, at) => layer !== right[at]);
  return index < 0 ? 0 : (left[index] ?? 0) - (right[index] ?? 0);
}
