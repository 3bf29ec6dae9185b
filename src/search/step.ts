/** Single steps away from a pattern: trying some others, and taking the best of them. */
import type { Pattern } from "../pattern/pattern.ts";
import type { Candidate, Found, Lead, SearchEvent, SearchStep } from "./events.ts";
import type { PatternEvaluation } from "./losses.ts";
import { type Direction, differences } from "./space.ts";
import { chooseBest } from "./ties.ts";
import type { Trials, Tried } from "./trials.ts";

/** Leads below so many standard errors are within noise. */
const NOISE_ERRORS = 2;

/** Where forward steps begin: only the pinned layers Full. */
export async function* sparsest(trials: Trials): AsyncGenerator<SearchEvent, Found> {
  const pattern = trials.space.sparsest;
  // Its own base: the next step departs from it, and a base is run once anyhow.
  const evaluation = yield* trials.evaluate(pattern, pattern);
  const found = { pattern, evaluation, steps: [], foundBy: trials.foundBy };
  yield* trials.commit(found);
  return found;
}

/**
 * Measures patterns that depart from one; those that may be among the `keep` best come back, in the given order.
 * @param screening how the best are found; as the search does it by default
 */
export async function* tryFrom(
  trials: Trials,
  from: Found,
  patterns: readonly Pattern[],
  keep = 1,
  screening = trials.screening,
): AsyncGenerator<SearchEvent, Found[]> {
  const tried = yield* screening.run(trials, from.pattern, patterns, keep);
  return follow(trials, from, tried);
}

/** Where each of the flips that were tried from one pattern leads. */
export function follow(trials: Trials, from: Found, tried: readonly Tried[]): Found[] {
  const candidates = tried.map((one) => candidate(from.pattern, one));
  return tried
    .filter(({ dropped }) => !dropped)
    .map((one) => {
      const lead = leadOf(trials, from.pattern, one, tried);
      const step: SearchStep = {
        pattern: one.pattern,
        flipped: differences(from.pattern, one.pattern),
        evaluation: one.evaluation,
        candidates,
        lead,
        repetition: trials.repetition,
      };
      return {
        pattern: one.pattern,
        evaluation: one.evaluation,
        steps: [...from.steps, step],
        foundBy: trials.foundBy,
      };
    });
}

/** Tries every flip in one direction, takes the best. */
export async function* takeStep(
  trials: Trials,
  from: Found,
  direction: Direction,
  retain: number,
): AsyncGenerator<SearchEvent, Found> {
  trials.step++;
  const tried = yield* tryFrom(trials, from, trials.space.flips(from.pattern, direction, retain));
  const best = chooseBest(tried, trials.tie);
  yield* trials.commit(best);
  return best;
}

function candidate(from: Pattern, { pattern, evaluation, dropped }: Tried): Candidate {
  const { loss, changeError, sequences } = evaluation;
  return { flipped: differences(from, pattern), loss, changeError, sequences, dropped };
}

/** Ahead of the best of the others, on the sequences that both were measured on. */
function leadOf({ losses }: Trials, from: Pattern, one: Tried, tried: readonly Tried[]): Lead | undefined {
  const next = tried.reduce<Tried | undefined>(
    (best, other) => (other !== one && (best === undefined || lossOf(other) < lossOf(best)) ? other : best),
    undefined,
  );
  if (next === undefined) return undefined;
  const lead = losses.difference(next.pattern, one.pattern);
  const [over = 0] = differences(from, next.pattern);
  const { standardError: error } = lead;
  return { ...lead, over, withinNoise: error === null ? null : lead.mean < NOISE_ERRORS * error };
}

function lossOf({ evaluation }: { evaluation: PatternEvaluation }): number {
  return evaluation.loss;
}
