/** The passages of one pass over the layers: many patterns side by side, each from its first difference. */
import { firstDifference } from "../../pattern/pattern.ts";
import type { StageModel } from "../stages/stage-model.ts";
import { closest } from "./kept-states.ts";
import { type Departure, Passage, type StagedWindow } from "./passage.ts";
import type { StagedStates } from "./staged-states.ts";
import type { Walker } from "./window-losses.ts";

/** A passage for each walker of one window, in an order in which each departs from kept states or from one before it. */
export function passagesOf(stages: StageModel, walkers: readonly Walker<StagedStates, StagedWindow>[]): Passage[] {
  const passages: Passage[] = [];
  const leaders = walkers.filter(({ leads }) => leads);
  const leader = leaders.at(-1) ?? walkers[0];
  // What differs last goes first: the next ones share all that they can with it, base or no base.
  const depth = ({ pattern }: { pattern: Walker<StagedStates, StagedWindow>["pattern"] }): number =>
    leader === undefined ? 0 : firstDifference(pattern, leader.pattern);
  const others = walkers.filter(({ leads }) => !leads).toSorted((a, b) => depth(b) - depth(a));
  for (const walker of [...leaders, ...others]) {
    if (passages.some(({ pattern }) => pattern === walker.pattern)) continue;
    const near: Departure[] = passages.filter((passage) => !walker.keeps || passage.walker.keeps);
    const kept = walker.departure === undefined ? near : [walker.departure, ...near];
    passages.push(new Passage(stages, walker, closest(walker.pattern, kept)));
  }
  return passages;
}
