/** Single steps away from a pattern: trying some others, and taking the best of them. */
import { fullLayers, type Pattern, parsePattern, withFull, withShared } from "../pattern/pattern.ts";
import type { Evaluation, SearchEvent } from "./events.ts";
import { candidate, chooseBest, type Flip, type Found, flip, type Stage, type Trials } from "./trials.ts";

export type Direction = "backward" | "forward";

/** Backward steps share a layer, forward steps give a Shared layer its indexer back: patterns by flipped layer, ascending. */
export function neighbours(start: Pattern, from: Pattern, direction: Direction): Pattern[] {
  if (direction === "backward") {
    return fullLayers(from)
      .slice(1)
      .map((layer) => withShared(from, layer));
  }
  // A layer that the model itself shares has no indexer to come back to.
  return fullLayers(start)
    .filter((layer) => from[layer] === "S")
    .map((layer) => withFull(from, layer));
}

/** Where forward steps begin: only layer 0 Full, which every pattern has. */
export async function* sparsest<E extends Evaluation>(trials: Trials<E>): Stage<E> {
  const pattern = parsePattern(`F${"S".repeat(trials.start.length - 1)}`);
  // Its own base: the next step departs from it, and a base is run once anyhow.
  return { pattern, evaluation: yield* trials.evaluate(1, pattern, pattern), steps: [] };
}

/** Evaluates patterns that depart from one; each comes back with the step to it behind the steps before. */
export async function* tryFrom<E extends Evaluation>(
  trials: Trials<E>,
  step: number,
  from: Found<E>,
  patterns: readonly Pattern[],
): AsyncGenerator<SearchEvent<E>, Found<E>[]> {
  const tried: Flip<E>[] = [];
  for (const pattern of patterns) {
    const evaluation = yield* trials.evaluate(step, pattern, from.pattern);
    tried.push(flip(from.pattern, pattern, evaluation));
  }
  return follow(from, tried);
}

/** Where each of the flips that were tried from one pattern leads. */
export function follow<E extends Evaluation>(from: Found<E>, tried: readonly Flip<E>[]): Found<E>[] {
  const candidates = tried.map(candidate);
  return tried.map((taken) => ({
    pattern: taken.pattern,
    evaluation: taken.evaluation,
    steps: [...from.steps, { ...taken, candidates }],
  }));
}

/** Tries every neighbour in one direction, takes the best. */
export async function* takeStep<E extends Evaluation>(
  trials: Trials<E>,
  step: number,
  from: Found<E>,
  direction: Direction,
): Stage<E> {
  const best = chooseBest(yield* tryFrom(trials, step, from, neighbours(trials.start, from.pattern, direction)));
  yield* commit(trials, step, best);
  return best;
}

/** Tells that the last step of a way was taken. */
export async function* commit<E extends Evaluation>(
  trials: Trials<E>,
  step: number,
  { steps }: Found<E>,
): AsyncGenerator<SearchEvent<E>, void> {
  const last = steps.at(-1);
  if (last !== undefined) yield trials.committed(step, last);
}
