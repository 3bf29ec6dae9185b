/**
 * Branch and bound, for objectives whose terms are never negative (KL): what a candidate has lost on some sequences is a
 * lower bound of what it loses on all. The candidate with the lowest bound is measured further, block by block, until
 * those that are complete lie below every bound. It chooses what measuring everything chooses, ties included, and no
 * order of work measures less.
 */

import { TIE_NATS } from "../../base/near-tie.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import type { Screening, Trials } from "../trials.ts";
import { blocksOf } from "./screening.ts";

/** Blocks that the sequences are measured in, at most: more drop candidates earlier and leave less for a batch. */
const BLOCKS = 16;

export const bounded: Screening = {
  name: "bounded",
  callsEach: (sequences) => Math.min(BLOCKS, sequences),
  async *run(trials, from, patterns, keep) {
    const blocks = blocksOf(byLoss(trials, from), Math.ceil(trials.losses.sequences.length / BLOCKS));
    const { losses } = trials;
    const bound = new Map<Pattern, number>(
      patterns.map((pattern) => [pattern, losses.isMeasured(pattern) ? losses.lowerBound(pattern) : 0]),
    );
    // Every candidate is measured once: a step reports a loss for each.
    const [first = losses.sequences] = blocks;
    const unmeasured = patterns.filter((pattern) => !losses.isMeasured(pattern));
    const requests = unmeasured.map((pattern) => ({ pattern, base: from, sequences: first }));
    yield* trials.evaluateAll(requests, from);
    for (const pattern of unmeasured) bound.set(pattern, losses.lowerBound(pattern));
    for (;;) {
      const next = mostPromising(trials, patterns, bound, keep);
      if (next === undefined) break;
      const block = blocks.find((sequences) => losses.missing(next, sequences).length > 0);
      yield* trials.evaluate(next, from, { sequences: block ?? losses.sequences });
      bound.set(next, losses.lowerBound(next));
    }
    return patterns.map((pattern) => ({
      pattern,
      evaluation: losses.evaluation(pattern),
      dropped: !losses.isComplete(pattern),
    }));
  },
};

/** The candidate to measure further; undefined once the best are known. */
function mostPromising(
  { losses }: Trials,
  patterns: readonly Pattern[],
  bound: ReadonlyMap<Pattern, number>,
  keep: number,
): Pattern | undefined {
  const done = patterns.filter((pattern) => losses.isComplete(pattern));
  const known = done.map((pattern) => losses.evaluation(pattern).loss).sort((left, right) => left - right);
  const limit = (known[keep - 1] ?? Number.POSITIVE_INFINITY) + TIE_NATS;
  let next: Pattern | undefined;
  for (const pattern of patterns) {
    const own = bound.get(pattern) ?? 0;
    const open = !losses.isComplete(pattern) && own <= limit;
    if (open && (next === undefined || own < (bound.get(next) ?? 0))) next = pattern;
  }
  return next;
}

/** The sequences on which the base has lost most come first: they raise the bounds soonest. */
function byLoss({ losses }: Trials, from: Pattern): number[] {
  const lost = new Map(losses.sequences.map((index) => [index, losses.weightedLoss(from, index)]));
  return losses.sequences.toSorted((left, right) => (lost.get(right) ?? 0) - (lost.get(left) ?? 0));
}
