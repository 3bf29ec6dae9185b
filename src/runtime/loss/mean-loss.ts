/** Means over sequences, with their standard errors. */

import { estimate } from "../../base/estimate.ts";
import { sum } from "../../base/sum.ts";
import type { Measurement, SequenceLoss } from "../measurement.ts";
import { noExecutions, sumExecutions } from "./loss-backend.ts";

/**
 * Measurements of one pattern on different sequences, as one.
 * @throws RangeError for none
 */
export function joinMeasurements(parts: readonly Measurement[]): Measurement {
  const [first] = parts;
  if (first === undefined) throw new RangeError("nothing to join");
  const sequences = parts.flatMap((part) => part.sequences);
  return {
    pattern: first.pattern,
    ...meanLoss(sequences),
    sequences,
    seconds: sum(parts.map(({ seconds }) => seconds)),
    executions: sumExecutions(parts.map(({ executions }) => ({ ...noExecutions(), ...executions }))),
  };
}

/** Token-weighted means of loss and divergence, where there is one. */
export function meanLoss(
  losses: readonly SequenceLoss[],
): Pick<Measurement, "loss" | "standardError" | "kl" | "klStandardError" | "tokens"> {
  const tokens = sum(losses.map((sequence) => sequence.tokens));
  const { mean: loss, standardError } = estimate(losses);
  if (losses.some(({ kl }) => kl === undefined)) return { loss, standardError, tokens };
  const { mean: kl, standardError: klStandardError } = estimate(
    losses.map(({ kl: one = 0, tokens: weight }) => ({ loss: one, tokens: weight })),
  );
  return { loss, standardError, kl, klStandardError, tokens };
}
