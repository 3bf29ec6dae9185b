/** Every pattern of the wanted sizes: the optimum beyond doubt, where the model is small enough. */
import { UsageError } from "../../base/errors.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import type { PatternSpace } from "../space.ts";
import { follow } from "../step.ts";
import { chooseBest } from "../ties.ts";
import type { SearchPlan } from "../trials.ts";

/** Evaluations that are made without a question. */
export const EXHAUSTIVE_LIMIT = 5000;

/** @throws UsageError where there are more patterns than the limit */
export function planExhaustive(space: PatternSpace, targets: readonly number[], limit = EXHAUSTIVE_LIMIT): SearchPlan {
  const evaluations = 1 + targets.reduce((total, retain) => total + space.count(retain), 0);
  if (evaluations > limit) {
    throw new UsageError(
      `An exhaustive search for ${targets.join(", ")} Full layers takes ${words(evaluations)} evaluations, the limit is ${words(limit)}`,
      { hint: "choose another --strategy, a --retain that leaves fewer patterns, or constraints" },
    );
  }
  return {
    steps: targets.length,
    evaluations,
    async *run(trials, start) {
      for (const [index, retain] of targets.entries()) {
        const patterns: Pattern[] = [...space.patterns(retain)];
        const { sequences } = trials.losses;
        // Neighbours in this order differ late. Each is its own base: what it shares with the one before is reused, and
        // it is run once, where a base and a pattern beside it would be two.
        const requests = patterns.map((pattern) => ({ pattern, base: pattern, sequences }));
        const evaluations = yield* trials.evaluateAll(index + 1, requests, space.start);
        const tried = evaluations.map((evaluation, place) => ({
          pattern: patterns[place] as Pattern,
          evaluation,
          dropped: false,
        }));
        yield* trials.commit(index + 1, chooseBest(follow(trials, start, tried), trials.tie));
      }
    },
  };
}

function words(count: number): string {
  return Number.isSafeInteger(count) ? count.toLocaleString("en-US") : `about ${count.toExponential(1)}`;
}
