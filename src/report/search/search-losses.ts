/** Losses of single patterns on chosen sequences, from what the journal holds: of the search's own text and of held-out text. */

import { type Estimate, estimate, pairedDifference } from "../../base/estimate.ts";
import type { JournalEntry, KnownSequences } from "../../formats/journal.ts";
import type { Pattern } from "../../pattern/pattern.ts";

export interface PatternLoss {
  /** NLL, nats per token, with the standard error of the mean over sequences. */
  loss: Estimate;
  /** Paired: NLL less the baseline's. */
  change: Estimate;
  /** KL from the model's own pattern; undefined if it was not measured. */
  kl: Estimate | undefined;
}

type Sequence = JournalEntry["sequences"][number];
type Factor = (index: number) => number;

/**
 * @param factor what a sequence's tokens are multiplied by, where several sources are weighed
 * @throws Error if a sequence of one of the patterns is missing
 */
export function patternLoss(
  known: KnownSequences,
  pattern: Pattern,
  baseline: Pattern,
  indices: readonly number[],
  factor: Factor = () => 1,
): PatternLoss {
  const own = indices.map((index) => sequenceOf(known, pattern, index, factor));
  const before = indices.map((index) => sequenceOf(known, baseline, index, factor));
  const divergences = own.flatMap(({ kl, tokens }) => (kl === undefined ? [] : [{ loss: kl, tokens }]));
  const loss = estimate(own);
  return {
    loss,
    change:
      pattern === baseline
        ? { mean: 0, standardError: 0, sequences: own.length }
        : { ...pairedDifference(own, before), mean: loss.mean - estimate(before).mean },
    kl: divergences.length === own.length ? estimate(divergences) : undefined,
  };
}

/** Paired: NLL of one pattern less that of another. */
export function lossDifference(
  known: KnownSequences,
  pattern: Pattern,
  other: Pattern,
  indices: readonly number[],
  factor: Factor = () => 1,
): Estimate {
  return pairedDifference(
    indices.map((index) => sequenceOf(known, pattern, index, factor)),
    indices.map((index) => sequenceOf(known, other, index, factor)),
  );
}

function sequenceOf(known: KnownSequences, pattern: Pattern, index: number, factor: Factor): Sequence {
  const sequence = known.get(pattern)?.get(index);
  if (sequence === undefined) throw new Error(`sequence ${index} of ${pattern} was not measured`);
  return { ...sequence, tokens: sequence.tokens * factor(index) };
}
