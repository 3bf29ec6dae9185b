/** Confidence intervals. `confidence` is two-sided: 0.95 leaves 2.5% on either side. */

import { normalQuantile, studentQuantile } from "../../base/distributions.ts";
import { sum } from "../../base/sum.ts";
import { macroMean, macroStandardError, type Stratum } from "./strata.ts";

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
