/** The passages of one pass over the layers: many patterns side by side, each from its first difference. */
import { firstDifference, type Pattern } from "../../pattern/pattern.ts";
import type { StageModel } from "../stages/stage-model.ts";
import type { CountedExecutions } from "./layer-executions.ts";
import { type Departure, Passage, type StagedSequence } from "./passage.ts";

export interface Walker {
  pattern: Pattern;
  /** Whether its states at layer boundaries are kept for later walks. */
  keeps: boolean;
  /** Takes the counts of what it runs. */
  executions: CountedExecutions;
}

/**
 * Passages of one sequence, in an order in which each departs from kept states or from one before it.
 * @param first the patterns that others depend on: the model's own, the base
 * @param others in any order
 */
export function passagesOf(
  stages: StageModel,
  sequence: StagedSequence,
  first: readonly Walker[],
  others: readonly Walker[],
): Passage[] {
  const passages: Passage[] = [];
  const [leader = others[0]] = first.toReversed();
  // What differs last goes first: the next ones share all that they can with it, base or no base.
  const depth = ({ pattern }: Walker): number => (leader === undefined ? 0 : firstDifference(pattern, leader.pattern));
  for (const { pattern, keeps, executions } of [...first, ...others.toSorted((a, b) => depth(b) - depth(a))]) {
    if (passages.some((passage) => passage.pattern === pattern)) continue;
    const near: Departure[] = passages.filter((passage) => !keeps || passage.keeps);
    const known = sequence.states.closest(pattern);
    const departure = closest(pattern, known === undefined ? near : [known, ...near]);
    passages.push(new Passage(stages, sequence, pattern, { departure, keeps, executions }));
  }
  return passages;
}

function closest(pattern: Pattern, departures: readonly Departure[]): Departure | undefined {
  let best: Departure | undefined;
  let most = -1;
  for (const departure of departures) {
    const shared = firstDifference(pattern, departure.pattern);
    if (shared > most) [best, most] = [departure, shared];
  }
  return best;
}
