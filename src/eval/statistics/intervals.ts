/** Confidence intervals. `confidence` is two-sided: 0.95 leaves 2.5% on either side. */

import { normalQuantile, studentQuantile } from "../../base/distributions.ts";
import { sum } from "../../base/sum.ts";
import { contributions, itemCount, macroMean, macroStandardError, type Stratum } from "./strata.ts";

export interface Interval {
  low: number;
  high: number;
}

/** Wilson's interval of a share, from the mean of values in [0, 1]; for graded ones it is wider than need be. */
export function wilsonInterval(mean: number, count: number, confidence: number): Interval {
  const z = normalQuantile((1 + confidence) / 2);
  const factor = 1 / (1 + z ** 2 / count);
  const middle = factor * (mean + z ** 2 / (2 * count));
  const half = factor * z * Math.sqrt((mean * (1 - mean)) / count + z ** 2 / (4 * count ** 2));
  // Rounding leaves the ends a hair off.
  return { low: mean === 0 ? 0 : middle - half, high: mean === 1 ? 1 : middle + half };
}

/** Student's interval of the macro mean; undefined where a stratum has too few units to know a spread. */
export function studentInterval(strata: readonly Stratum[], confidence: number): Interval | undefined {
  const error = macroStandardError(strata);
  if (error === undefined) return undefined;
  const degrees = sum(strata.map(({ units }) => units.length - 1));
  const mean = macroMean(strata);
  const half = studentQuantile((1 + confidence) / 2, degrees) * error;
  return { low: mean - half, high: mean + half };
}

/**
 * Agresti and Min's interval for paired differences (half a pair added to each of the four cells), for differences of any
 * size in [-1, 1]: the four half pairs are differences of +1/2, -1/2 and 0 in sum, and +1, -1 and 0, 0 in squares. Unlike a
 * bootstrap it has a width where nothing differs yet.
 */
export function agrestiMin(strata: readonly Stratum[], confidence: number): Interval {
  const { middle, error } = smoothedDifference(strata);
  const half = normalQuantile((1 + confidence) / 2) * error;
  return { low: Math.max(-1, middle - half), high: Math.min(1, middle + half) };
}

/** Middle and standard error of `agrestiMin`. */
export function smoothedDifference(strata: readonly Stratum[]): { middle: number; error: number } {
  const units = sum(strata.map((stratum) => stratum.units.length));
  const values = contributions(strata).map((part) => part * units);
  const count = units + 2;
  const middle = sum(values) / count;
  const variance = (sum(values.map((value) => value ** 2)) + 1) / count - middle ** 2;
  return { middle, error: Math.sqrt(Math.max(variance, 0) / count) };
}

/** Items that an estimate with this standard error stands for, were it to shrink with the square root of their number. */
export function variancePerItem(strata: readonly Stratum[]): number {
  return itemCount(strata) * smoothedDifference(strata).error ** 2;
}
