/** Mean loss over sequences, with its standard error. */
import { CompensatedSum, sum } from "../base/sum.ts";
import type { SequenceLoss } from "./measurement.ts";

/** Token-weighted mean over sequences and its standard error (ratio estimator; s / sqrt(n) for equal lengths). */
export function meanLoss(losses: readonly SequenceLoss[]): { loss: number; standardError: number; tokens: number } {
  const tokens = sum(losses.map((sequence) => sequence.tokens));
  const loss = sum(losses.map((sequence) => sequence.loss * sequence.tokens)) / tokens;
  const squares = new CompensatedSum();
  for (const sequence of losses) squares.add((sequence.tokens * (sequence.loss - loss)) ** 2);
  const n = losses.length;
  const standardError = n < 2 ? 0 : Math.sqrt((n / (n - 1)) * squares.value) / tokens;
  return { loss, standardError, tokens };
}
