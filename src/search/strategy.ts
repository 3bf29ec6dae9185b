/** The strategies by name, with their settings: what `--strategy` and the options beside it stand for. */
import { fullLayers, type Pattern } from "../pattern/pattern.ts";
import { type BeamSettings, planBeam } from "./beam.ts";
import type { Evaluation, SearchEvent, SearchOptions } from "./events.ts";
import { planExhaustive } from "./exhaustive.ts";
import { planFloating } from "./floating.ts";
import { planForward } from "./forward.ts";
import { planGreedy } from "./greedy.ts";
import { planLookAgain } from "./look-again.ts";
import { type SwapSettings, withSwaps } from "./swap.ts";
import { runPlan, type SearchPlan } from "./trials.ts";

export const strategyNames = ["greedy", "forward", "beam", "floating", "exhaustive", "look-again"] as const;

export type StrategyName = (typeof strategyNames)[number];

export type Strategy = (
  | { name: Exclude<StrategyName, "beam" | "exhaustive"> }
  | ({ name: "beam" } & BeamSettings)
  | { name: "exhaustive"; limit?: number }
) & {
  /** Refine the result by exchanges of layers. */
  swaps?: SwapSettings;
};

/**
 * Runs a strategy. The consumer sees each evaluation before the next one begins, so that it can write it down.
 * @throws UsageError where the model has fewer Full layers than should remain, or an exhaustive search would be too long
 * @throws RuntimeFailure for a loss that is not a number
 */
export async function* search<E extends Evaluation>(
  strategy: Strategy,
  options: SearchOptions<E>,
): AsyncGenerator<SearchEvent<E>> {
  const { start, retain } = options;
  yield* runPlan(strategy.name, planOf(strategy, start, retain), options);
}

/**
 * Refuses what cannot be searched, before anything is opened for it.
 * @throws UsageError as `search` does
 */
export function requireFeasible(strategy: Strategy, start: Pattern, retain: number): void {
  planOf(strategy, start, retain);
}

function planOf(strategy: Strategy, start: Pattern, retain: number): SearchPlan {
  // There is only one pattern of this size, and greedy's plan of no steps measures it.
  if (fullLayers(start).length === retain) return planGreedy(start, retain);
  const plan = planOfName(strategy, start, retain);
  return strategy.swaps === undefined ? plan : withSwaps(plan, start, retain, strategy.swaps);
}

function planOfName(strategy: Strategy, start: Pattern, retain: number): SearchPlan {
  switch (strategy.name) {
    case "greedy":
      return planGreedy(start, retain);
    case "forward":
      return planForward(start, retain);
    case "beam":
      return planBeam(start, retain, strategy);
    case "floating":
      return planFloating(start, retain);
    case "exhaustive":
      return planExhaustive(start, retain, strategy.limit);
    case "look-again":
      return planLookAgain(start, retain);
  }
}
