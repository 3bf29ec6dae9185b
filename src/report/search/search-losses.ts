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

/** @throws Error if a sequence of one of the patterns is missing */
export function patternLoss(
  known: KnownSequences,
  pattern: Pattern,
  baseline: Pattern,
  indices: readonly number[],
): PatternLoss {
  const own = indices.map((index) => sequenceOf(known, pattern, index));
  const before = indices.map((index) => sequenceOf(known, baseline, index));
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
): Estimate {
  return pairedDifference(
    indices.map((index) => sequenceOf(known, pattern, index)),
    indices.map((index) => sequenceOf(known, other, index)),
  );
}

function sequenceOf(known: KnownSequences, pattern: Pattern, index: number): Sequence {
  const sequence = known.get(pattern)?.get(index);
  if (sequence === undefined) throw new Error(`sequence ${index} of ${pattern} was not measured`);
  return sequence;
}
