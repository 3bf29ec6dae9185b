/**
 * The paper's training-free search (section 3.1): backward elimination over the loss. Starting from the model's own pattern,
 * each step tries every Full layer that is free as Shared and commits the one that costs least. Steps are nested, so one run
 * holds the pattern of every retention on its way.
 */
import { fullLayers } from "../../pattern/pattern.ts";
import type { Found, SearchEvent } from "../events.ts";
import { takeStep } from "../step.ts";
import type { Strategy } from "../strategy.ts";
import type { Trials } from "../trials.ts";

export const greedy: Strategy = {
  name: "greedy",
  summary: "the paper's: each step shares the layer that costs least",
  mayRace: true,
  isNested: true,
  isAdaptive: false,
  resampledBy: "greedy steps",
  run: (trials, start) => eliminate(trials, start, Math.min(...trials.targets)),
};

/** Greedy steps down to a number of Full layers. */
export async function* eliminate(trials: Trials, from: Found, retain: number): AsyncGenerator<SearchEvent, Found> {
  let current = from;
  while (fullLayers(current.pattern).length > retain) current = yield* takeStep(trials, current, "backward", retain);
  return current;
}
