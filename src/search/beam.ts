/**
 * Beam search: like greedy (backward) or forward selection, but the `width` best distinct patterns of each size are
 * followed, so that a step which looks dear at first may still win. Width 1 is greedy, or forward selection, exactly.
 */
import { fullLayers, type Pattern } from "../pattern/pattern.ts";
import type { Evaluation } from "./events.ts";
import { commit, type Direction, neighbours, sparsest, tryFrom } from "./step.ts";
import { chooseBest, type Found, requireRetainable, type SearchPlan, type Trials } from "./trials.ts";

export interface BeamSettings {
  width: number;
  direction: Direction;
}

/** Patterns of one size, the best first. */
type Beam<E extends Evaluation> = [Found<E>, ...Found<E>[]];

/** @throws UsageError where the model has fewer Full layers than should remain */
export function planBeam(start: Pattern, retain: number, { width, direction }: BeamSettings): SearchPlan {
  const backwardSteps = requireRetainable(start, retain);
  const owned = fullLayers(start).length;
  const steps = direction === "backward" ? backwardSteps : retain - 1;
  return {
    // As in forward selection: measuring the sparsest pattern is all that there is to do for it.
    steps: Math.max(1, steps),
    evaluations: (direction === "backward" ? 1 : 2) + foreseen(owned, steps, width, 1, 1),
    async *run<E extends Evaluation>(trials: Trials<E>, from: Found<E>) {
      let beam: Beam<E> = [direction === "backward" ? from : yield* sparsest(trials)];
      for (let step = 1; step <= steps; step++) {
        trials.foresee(foreseen(owned, steps, width, step, beam.length));
        const children = new Map<Pattern, Found<E>>();
        // One parent after the other: each is the base of its own children, and is run once.
        for (const parent of beam) {
          const patterns = neighbours(start, parent.pattern, direction);
          for (const child of yield* tryFrom(trials, step, parent, patterns)) {
            if (!children.has(child.pattern)) children.set(child.pattern, child);
          }
        }
        beam = chooseBestOnes([...children.values()], width);
        yield* commit(trials, step, beam[0]);
      }
      return beam[0];
    },
  };
}

/** The best, then the best of the others, and so on: the tie rule is no order that could be sorted by. */
function chooseBestOnes<E extends Evaluation>(found: readonly Found<E>[], width: number): Beam<E> {
  const first = chooseBest(found);
  const chosen: Beam<E> = [first];
  let rest = found.filter((one) => one !== first);
  while (chosen.length < width && rest.length > 0) {
    const next = chooseBest(rest);
    chosen.push(next);
    rest = rest.filter((one) => one !== next);
  }
  return chosen;
}

/** The most evaluations that the steps from this one on can take; patterns with two parents count twice. */
function foreseen(owned: number, steps: number, width: number, step: number, parents: number): number {
  if (step > steps) return 0;
  const children = parents * (owned - step);
  return children + foreseen(owned, steps, width, step + 1, Math.min(width, children));
}
