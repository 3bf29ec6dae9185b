/** Mean losses over sequences, and paired differences of them: texts differ by far more than two patterns on one text do. */
import { weightedMean } from "./weighted-mean.ts";

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

/** The mean over sequences, weighted by their tokens. */
export function estimate(losses: readonly WeightedLoss[]): Estimate {
  const values = losses.map(({ loss, tokens }) => ({ value: loss, tokens }));
  return { ...weightedMean(values), sequences: losses.length };
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
