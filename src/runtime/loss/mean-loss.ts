/** Means over sequences, with their standard errors. */
import { sum } from "../../base/sum.ts";
import { weightedMean } from "../../base/weighted-mean.ts";
import type { Measurement, SequenceLoss } from "../measurement.ts";
import { noExecutions, sumExecutions } from "./layer-executions.ts";

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
  const { mean: loss, standardError } = weightedMean(losses.map((one) => ({ value: one.loss, tokens: one.tokens })));
  if (losses.some(({ kl }) => kl === undefined)) return { loss, standardError, tokens };
  const { mean: kl, standardError: klStandardError } = weightedMean(
    losses.map(({ kl = 0, tokens: weight }) => ({ value: kl, tokens: weight })),
  );
  return { loss, standardError, kl, klStandardError, tokens };
}
