/** Every pattern of the wanted size: the optimum beyond doubt, where the model is small enough. */
import { UsageError } from "../base/errors.ts";
import { fullLayers, type Pattern, parsePattern } from "../pattern/pattern.ts";
import type { Evaluation } from "./events.ts";
import { commit } from "./step.ts";
import { candidate, chooseBest, flip, requireRetainable, type SearchPlan, type Trials } from "./trials.ts";

/** Evaluations that are made without a question. */
export const EXHAUSTIVE_LIMIT = 5000;

/**
 * @throws UsageError where there are more patterns than the limit, or the model has fewer Full layers than should remain
 */
export function planExhaustive(start: Pattern, retain: number, limit = EXHAUSTIVE_LIMIT): SearchPlan {
  requireRetainable(start, retain);
  const evaluations = 1 + binomial(fullLayers(start).length - 1, retain - 1);
  if (evaluations > limit) {
    throw new UsageError(
      `An exhaustive search for ${retain} Full layers takes ${words(evaluations)} evaluations, the limit is ${words(limit)}`,
      { hint: "choose another --strategy, or a --retain that leaves fewer patterns" },
    );
  }
  return {
    steps: 1,
    evaluations,
    async *run<E extends Evaluation>(trials: Trials<E>) {
      const tried = [];
      for (const pattern of patternsOfSize(start, retain)) {
        // Neighbours in this order differ late. Each is its own base: what it shares with the one before is reused, and
        // it is run once, where a base and a pattern beside it would be two.
        const evaluation = yield* trials.evaluate(1, pattern, start, pattern);
        tried.push(flip(start, pattern, evaluation));
      }
      const { evaluation, ...best } = chooseBest(tried);
      const step = { ...best, evaluation, candidates: tried.map(candidate) };
      const found = { pattern: step.pattern, evaluation, steps: [step] };
      yield* commit(trials, 1, found);
      return found;
    },
  };
}

/** In the order of letters with S before F: of two that tie, the one wins that shares the lowest layer in which they differ. */
function* patternsOfSize(start: Pattern, retain: number): Generator<Pattern> {
  const owned = fullLayers(start);
  /** Chooses from `index` on, `left` more Full layers. */
  function* choose(letters: readonly string[], index: number, left: number): Generator<Pattern> {
    const layer = owned[index];
    if (layer === undefined) {
      yield parsePattern(letters.join(""));
      return;
    }
    if (owned.length - index > left) yield* choose(letters.with(layer, "S"), index + 1, left);
    if (left > 0) yield* choose(letters.with(layer, "F"), index + 1, left - 1);
  }
  yield* choose([...start], 1, retain - 1);
}

function binomial(from: number, chosen: number): number {
  let ways = 1;
  for (let index = 1; index <= Math.min(chosen, from - chosen); index++) ways = (ways * (from - index + 1)) / index;
  return Math.round(ways);
}

function words(count: number): string {
  return Number.isSafeInteger(count) ? count.toLocaleString("en-US") : `about ${count.toExponential(1)}`;
}
