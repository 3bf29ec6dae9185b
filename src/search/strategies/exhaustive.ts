/** Every pattern of the wanted sizes: the optimum beyond doubt, if the model is small enough. */
import { UsageError } from "../../base/errors.ts";
import { firstDifference, type Pattern } from "../../pattern/pattern.ts";
import type { Found, SearchEvent } from "../events.ts";
import { follow } from "../step.ts";
import type { Strategy } from "../strategy.ts";
import { chooseBest } from "../ties.ts";
import type { Trials } from "../trials.ts";

/** Evaluations that are made without a question. */
const LIMIT = 5000;

export const exhaustive: Strategy = {
  name: "exhaustive",
  summary: `every pattern, up to ${LIMIT} of them`,
  mayRace: false,
  isNested: false,
  isAdaptive: false,
  resampledBy: "measured patterns",
  requireFeasible(space, targets) {
    const evaluations = 1 + targets.reduce((total, retain) => total + space.count(retain), 0);
    if (evaluations <= LIMIT) return;
    throw new UsageError(
      `An exhaustive search for ${targets.join(", ")} Full layers takes ${words(evaluations)} evaluations, the limit is ${words(LIMIT)}`,
      { hint: "choose another --strategy, a --retain that leaves fewer patterns, or constraints" },
    );
  },
  async *run(trials, start) {
    for (const retain of trials.targets) {
      trials.step++;
      yield* tryEvery(trials, start, retain);
    }
    trials.isOptimum = true;
  },
};

/** Measures every pattern of a size, and commits the best one where it is not the best known already. */
export async function* tryEvery(trials: Trials, start: Found, retain: number): AsyncGenerator<SearchEvent, void> {
  const { space, frontier } = trials;
  // Neighbours in this order differ late. Each is its own base: what it shares with the one before is reused, and
  // it is run once, where a base and a pattern beside it would be two.
  const tried = yield* trials.tryAll([...space.patterns(retain)], space.start, (pattern) => pattern);
  const best = chooseBest(follow(trials, start, tried), trials.tie);
  if (frontier.at(retain)?.pattern !== best.pattern) yield* trials.commit(best);
}

/** Whether `tryEvery` runs no more layers than these for all wanted sizes together, however many they are. */
export function isEveryWithin({ space, targets, losses }: Trials, layers: number): boolean {
  const sequences = losses.sequences.length;
  const left = layers / sequences;
  if (targets.reduce((total, retain) => total + space.count(retain), 0) > Math.min(LIMIT, left)) return false;
  let before: Pattern | undefined;
  let ran = 0;
  for (const retain of targets) {
    for (const pattern of space.patterns(retain)) {
      if (losses.missing(pattern, losses.sequences).length === 0) continue;
      ran += pattern.length - (before === undefined ? 0 : firstDifference(pattern, before));
      before = pattern;
    }
  }
  return ran <= left;
}

function words(count: number): string {
  return Number.isSafeInteger(count) ? count.toLocaleString("en-US") : `about ${count.toExponential(1)}`;
}
