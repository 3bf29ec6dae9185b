/** Means over sequences, with their standard errors. */
import { sum } from "../base/sum.ts";
import { weightedMean } from "../base/weighted-mean.ts";
import type { Measurement, SequenceLoss } from "./measurement.ts";

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
