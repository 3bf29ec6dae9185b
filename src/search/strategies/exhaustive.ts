/** Every pattern of the wanted sizes: the optimum beyond doubt, if the model is small enough. */
import { UsageError } from "../../base/errors.ts";
import { follow } from "../step.ts";
import type { Strategy } from "../strategy.ts";
import { chooseBest } from "../ties.ts";

/** Evaluations that are made without a question. */
const LIMIT = 5000;

export const exhaustive: Strategy = {
  name: "exhaustive",
  summary: `every pattern, up to ${LIMIT} of them`,
  mayRace: false,
  isNested: false,
  isAdaptive: false,
  resampledBy: "measured patterns",
  isExhaustive: true,
  requireFeasible(space, targets) {
    const evaluations = 1 + targets.reduce((total, retain) => total + space.count(retain), 0);
    if (evaluations <= LIMIT) return;
    throw new UsageError(
      `An exhaustive search for ${targets.join(", ")} Full layers takes ${words(evaluations)} evaluations, the limit is ${words(LIMIT)}`,
      { hint: "choose another --strategy, a --retain that leaves fewer patterns, or constraints" },
    );
  },
  async *run(trials, start) {
    const { space } = trials;
    for (const retain of trials.targets) {
      trials.step++;
      // Neighbours in this order differ late. Each is its own base: what it shares with the one before is reused, and
      // it is run once, where a base and a pattern beside it would be two.
      const tried = yield* trials.tryAll([...space.patterns(retain)], space.start, (pattern) => pattern);
      yield* trials.commit(chooseBest(follow(trials, start, tried), trials.tie));
    }
  },
};

function words(count: number): string {
  return Number.isSafeInteger(count) ? count.toLocaleString("en-US") : `about ${count.toExponential(1)}`;
}
