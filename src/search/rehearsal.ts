/** A search without a model: how many patterns it will measure and how many layers that runs, for a plan. */
import { sourceLayer } from "../pattern/pattern.ts";
import { oneByOne } from "./events.ts";
import type { PatternSpace } from "./space.ts";
import { type Strategy, search } from "./strategy.ts";

export interface Rehearsal {
  evaluations: number;
  /** Body layers of one sequence. */
  layers: number;
  /** Whether every search by this strategy does the same number of things, whatever the losses are. */
  exact: boolean;
}

/**
 * Runs the strategy over losses that only know distances: each Shared layer costs how far it is from the layer that it
 * reads. Races and bounds are left out, because what they spare depends on the losses: these plans are upper bounds.
 */
export async function rehearse(
  { race, bounded, ...strategy }: Strategy,
  space: PatternSpace,
  targets: readonly number[],
  sequences: readonly number[],
): Promise<Rehearsal> {
  const layers = Array.from(space.start, (_, layer) => layer);
  const evaluate = oneByOne(async (pattern, asked) => {
    const loss = layers.reduce((sum, layer) => sum + layer - sourceLayer(pattern, layer), 0);
    return asked.map(() => ({ loss, tokens: 1 }));
  });
  let result: Rehearsal | undefined;
  for await (const event of search(strategy as Strategy, { space, targets, sequences, evaluate })) {
    if (event.kind !== "done") continue;
    const fixed = strategy.name !== "look-again" && strategy.name !== "floating" && strategy.swaps === undefined;
    const exact = fixed && race === undefined && bounded !== true;
    result = { evaluations: event.result.evaluations, layers: event.result.layers, exact };
  }
  if (result === undefined) throw new Error("a search without a result");
  return result;
}
