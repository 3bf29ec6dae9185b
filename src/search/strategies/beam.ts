/**
 * Beam search: like greedy (backward) or forward selection, but the `width` best distinct patterns of each size are
 * followed, so that a step which looks dear at first may still win. Width 1 is greedy, or forward selection, exactly.
 */
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import type { Found, SearchEvent } from "../events.ts";
import type { Selection } from "../screening/selection.ts";
import type { Direction, PatternSpace } from "../space.ts";
import { sparsest, tryFrom } from "../step.ts";
import { chooseBestOnes } from "../ties.ts";
import type { SearchPlan, Trials } from "../trials.ts";
import { reachTargets } from "./forward.ts";

export interface BeamSettings {
  width: number;
  direction: Direction;
}

export function planBeam(
  space: PatternSpace,
  targets: readonly number[],
  settings: BeamSettings,
  selection: Selection,
  sequences: number,
): SearchPlan {
  const { width, direction } = settings;
  const steps = direction === "backward" ? space.size - Math.min(...targets) : Math.max(...targets) - space.pinned;
  return {
    // As in forward selection: measuring the sparsest pattern is all that there is to do for it.
    steps: Math.max(1, steps),
    evaluations:
      (direction === "backward" ? 1 : 2) + foreseen(space, steps, width, 1, 1) * selection.callsEach(sequences),
    async *run(trials, from) {
      if (direction === "backward") yield* followBeam(trials, from, settings, Math.min(...targets));
      else {
        yield* reachTargets(trials, targets, async function* (retain) {
          yield* followBeam(trials, yield* sparsest(trials), settings, retain);
        });
      }
    },
  };
}

/** Steps with the best patterns of each size until there are `retain` Full layers, or `goesOn` says no. */
export async function* followBeam(
  trials: Trials,
  first: Found,
  { width, direction }: BeamSettings,
  retain: number,
  goesOn: (parents: readonly Found[]) => boolean = () => true,
): AsyncGenerator<SearchEvent, Found> {
  const { space, selection, losses } = trials;
  const steps = Math.abs(fullLayers(first.pattern).length - retain);
  const calls = selection.callsEach(losses.sequences.length);
  let beam: [Found, ...Found[]] = [first];
  for (let step = 1; step <= steps && goesOn(beam); step++) {
    trials.foresee(foreseen(space, steps, width, step, beam.length) * calls);
    const children = new Map<Pattern, Found>();
    // One parent after the other: each is the base of its own children, and is run once.
    for (const parent of beam) {
      const patterns = space.flips(parent.pattern, direction, retain);
      for (const child of yield* tryFrom(trials, step, parent, patterns, width)) {
        if (!children.has(child.pattern)) children.set(child.pattern, child);
      }
    }
    beam = chooseBestOnes([...children.values()], width, trials.tie);
    yield* trials.commit(step, beam[0]);
  }
  return beam[0];
}

/** The most candidates that the steps from this one on can have; patterns with two parents count twice. */
function foreseen(space: PatternSpace, steps: number, width: number, step: number, parents: number): number {
  if (step > steps) return 0;
  const children = parents * Math.max(0, space.size - space.pinned - step + 1);
  return children + foreseen(space, steps, width, step + 1, Math.min(width, children));
}
