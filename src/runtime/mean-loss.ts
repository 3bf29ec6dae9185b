/** Means over sequences, with their standard errors. */
import { CompensatedSum, sum } from "../base/sum.ts";
import type { Measurement, SequenceLoss } from "./measurement.ts";

/** Token-weighted means of loss and divergence, where there is one. */
export function meanLoss(
  losses: readonly SequenceLoss[],
): Pick<Measurement, "loss" | "standardError" | "kl" | "klStandardError" | "tokens"> {
  const tokens = sum(losses.map((sequence) => sequence.tokens));
  const { mean: loss, standardError } = meanOf(losses, tokens, (sequence) => sequence.loss);
  if (losses.some(({ kl }) => kl === undefined)) return { loss, standardError, tokens };
  const { mean: kl, standardError: klStandardError } = meanOf(losses, tokens, ({ kl = 0 }) => kl);
  return { loss, standardError, kl, klStandardError, tokens };
}

/** Token-weighted mean over sequences and its standard error (ratio estimator; s / sqrt(n) for equal lengths). */
function meanOf(
  losses: readonly SequenceLoss[],
  tokens: number,
  value: (sequence: SequenceLoss) => number,
): { mean: number; standardError: number } {
  const mean = sum(losses.map((sequence) => value(sequence) * sequence.tokens)) / tokens;
  const squares = new CompensatedSum();
  for (const sequence of losses) squares.add((sequence.tokens * (value(sequence) - mean)) ** 2);
  const n = losses.length;
  return { mean, standardError: n < 2 ? 0 : Math.sqrt((n / (n - 1)) * squares.value) / tokens };
}
