/** The strategies by name, with their settings: what `--strategy` and the options beside it stand for. */
import { UsageError } from "../base/errors.ts";
import type { SearchEvent, SearchOptions } from "./events.ts";
import { bounded } from "./screening/bounded.ts";
import { complete } from "./screening/complete.ts";
import { type RaceSettings, raced } from "./screening/raced.ts";
import { repeated } from "./screening/repeated.ts";
import type { Selection } from "./screening/selection.ts";
import type { PatternSpace } from "./space.ts";
import { type BeamSettings, planBeam } from "./strategies/beam.ts";
import { planBlockwise } from "./strategies/blockwise.ts";
import { planExhaustive } from "./strategies/exhaustive.ts";
import { planFloating } from "./strategies/floating.ts";
import { planForward } from "./strategies/forward.ts";
import { planGreedy } from "./strategies/greedy.ts";
import { planLookAgain } from "./strategies/look-again.ts";
import { type SwapSettings, withSwaps } from "./strategies/swap.ts";
import { runPlan, type SearchPlan } from "./trials.ts";

export const strategyNames = [
  "look-again",
  "greedy",
  "forward",
  "blockwise",
  "beam",
  "floating",
  "exhaustive",
] as const;

export type StrategyName = (typeof strategyNames)[number];

/** Those whose steps may race: the others compare patterns of different steps, which takes whole measurements. */
export const racingStrategies: readonly StrategyName[] = ["greedy", "forward", "blockwise", "beam"];

export type Strategy = (
  | { name: Exclude<StrategyName, "beam" | "blockwise" | "exhaustive"> }
  | ({ name: "beam" } & BeamSettings)
  | { name: "blockwise"; blocks: number }
  | { name: "exhaustive"; limit?: number }
) & {
  /** Refine the results by exchanges of layers. */
  swaps?: SwapSettings;
  /** Judge candidates by as few sequences as a test asks for. */
  race?: RaceSettings;
  /** Losses are never negative and add up (KL): candidates may be dropped by what they have lost so far. */
  bounded?: boolean;
};

/**
 * Runs a strategy. The consumer sees each evaluation before the next one begins, so that it can write it down.
 * @throws UsageError where a target is out of reach, or an exhaustive search would be too long
 * @throws RuntimeFailure for a loss that is not a number
 */
export async function* search(strategy: Strategy, options: SearchOptions): AsyncGenerator<SearchEvent> {
  const { space, targets, sequences } = options;
  const selection = selectionOf(strategy);
  yield* runPlan(
    strategy.name,
    planOf(strategy, space, targets, sequences.length),
    options,
    options.repeats === undefined ? selection : repeated(selection),
  );
}

/**
 * What there is to do, before anything is opened for it.
 * @throws UsageError as `search` does
 */
export function planOf(
  strategy: Strategy,
  space: PatternSpace,
  targets: readonly number[],
  sequences: number,
): SearchPlan {
  for (const retain of targets) space.requireReachable(retain);
  if (strategy.race !== undefined && !racingStrategies.includes(strategy.name)) {
    throw new UsageError(`--race goes with ${racingStrategies.join(", ")}, not with --strategy ${strategy.name}`);
  }
  // With every indexer there is one pattern, and it is measured before the first step.
  const open = targets.filter((retain) => retain < space.size);
  if (open.length === 0) return { steps: 0, evaluations: 1, async *run() {} };
  const plan = planOfName(strategy, space, open, sequences);
  return strategy.swaps === undefined ? plan : withSwaps(plan, space, open, strategy.swaps);
}

function planOfName(
  strategy: Strategy,
  space: PatternSpace,
  targets: readonly number[],
  sequences: number,
): SearchPlan {
  const selection = selectionOf(strategy);
  const fewest = Math.min(...targets);
  switch (strategy.name) {
    case "look-again":
      return planLookAgain(space, targets, selection, sequences);
    case "greedy":
      return planGreedy(space, fewest, selection, sequences);
    case "forward":
      return planForward(space, targets, selection, sequences);
    case "blockwise":
      return planBlockwise(space, fewest, strategy.blocks, selection, sequences);
    case "beam":
      return planBeam(space, targets, strategy, selection, sequences);
    case "floating":
      return planFloating(space, fewest, selection, sequences);
    case "exhaustive":
      return planExhaustive(space, targets, strategy.limit);
  }
}

function selectionOf({ race, bounded: isBounded }: Strategy): Selection {
  if (race !== undefined) return raced(race);
  return isBounded === true ? bounded : complete;
}
