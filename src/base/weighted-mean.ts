/** Means over sequences, weighted by their tokens, with the error that they have as a sample of text. */
import { CompensatedSum, sum } from "./sum.ts";

export interface Weighted {
  value: number;
  tokens: number;
}

/** Token-weighted mean and its standard error (ratio estimator; s / sqrt(n) for equal lengths; null with a single one: unknown). */
export function weightedMean(values: readonly Weighted[]): { mean: number; standardError: number | null } {
  const tokens = sum(values.map((one) => one.tokens));
  const mean = sum(values.map((one) => one.value * one.tokens)) / tokens;
  const squares = new CompensatedSum();
  for (const one of values) squares.add((one.tokens * (one.value - mean)) ** 2);
  const n = values.length;
  return { mean, standardError: n < 2 ? null : Math.sqrt((n / (n - 1)) * squares.value) / tokens };
}
