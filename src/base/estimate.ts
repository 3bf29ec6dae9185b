/** Mean losses over sequences, and paired differences of them: texts differ by far more than two patterns on one text do. */
import { sum } from "./sum.ts";

/** The loss of one sequence: mean nats per predicted token. */
export interface WeightedLoss {
  loss: number;
  tokens: number;
}

/** A mean over sequences, in nats per token, and its standard error; null, unknown, with a single sequence. */
export interface Estimate {
  mean: number;
  standardError: number | null;
  sequences: number;
}

/** The mean over sequences, weighted by their tokens (ratio estimator; the error is s / sqrt(n) for equal lengths). */
export function estimate(losses: readonly WeightedLoss[]): Estimate {
  const total = sum(losses.map(({ tokens }) => tokens));
  const mean = sum(losses.map(({ loss, tokens }) => loss * tokens)) / total;
  const squares = sum(losses.map(({ loss, tokens }) => (tokens * (loss - mean)) ** 2));
  const n = losses.length;
  return { mean, standardError: n < 2 ? null : Math.sqrt((n / (n - 1)) * squares) / total, sequences: n };
}

/**
 * Losses less those of the same sequences under another pattern, sequence by sequence.
 * @throws RangeError for lists of different lengths
 */
export function pairedDifference(losses: readonly WeightedLoss[], others: readonly WeightedLoss[]): Estimate {
  if (losses.length !== others.length) throw new RangeError(`${losses.length} losses against ${others.length}`);
  return estimate(
    losses.map(({ loss, tokens }, index) => ({ loss: loss - (others[index] as WeightedLoss).loss, tokens })),
  );
}
