/**
 * The paper's training-free search (section 3.1): backward elimination over the loss. From the model's own pattern on,
 * each step tries every Full layer that is free as Shared and commits the one that costs least. Steps are nested, so
 * one run holds the pattern of every retention on its way.
 */
import { fullLayers } from "../../pattern/pattern.ts";
import type { Found } from "../events.ts";
import type { Selection } from "../screening/selection.ts";
import type { PatternSpace } from "../space.ts";
import { takeStep } from "../step.ts";
import type { SearchPlan, Trials } from "../trials.ts";

/** Candidates of all steps, at most: constraints leave fewer. */
export function countCandidates(space: PatternSpace, from: number, retain: number): number {
  // A pinned layer is never tried; with nothing pinned but layer 0 there is one candidate less than Full layers.
  const pinned = space.pinned;
  let total = 0;
  for (let left = from; left > retain; left--) total += left - pinned;
  return total;
}

export function planGreedy(space: PatternSpace, retain: number, selection: Selection, sequences: number): SearchPlan {
  const steps = space.size - retain;
  return {
    steps,
    evaluations: 1 + countCandidates(space, space.size, retain) * selection.callsEach(sequences),
    run: (trials, from) => eliminate(trials, from, retain),
  };
}

/** Greedy steps down to a number of Full layers. */
export async function* eliminate(trials: Trials, from: Found, retain: number) {
  let current = from;
  const first = fullLayers(from.pattern).length;
  for (let size = first; size > retain; size--) {
    current = yield* takeStep(trials, first - size + 1, current, "backward", retain);
  }
  return current;
}
