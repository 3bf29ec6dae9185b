/**
 * Seeds of generated samples. Those that a search may judge by are never those that `eval` asks: calibration takes the upper
 * half of the 32 bits, `eval` the lower.
 */
import { UsageError } from "../../base/errors.ts";

const FIRST_OF_CALIBRATION = 2 ** 31;

/**
 * The seed of calibration samples: 2^31 more than the one asked for.
 * @throws UsageError for a seed beyond the half
 */
export function calibrationSeed(seed: number): number {
  requireLowerHalf(seed, "it must be less than 2147483648 where sequences are generated");
  return FIRST_OF_CALIBRATION + seed;
}

/** @throws UsageError for a seed that calibration samples may have had */
export function requireEvaluationSeed(seed: number): void {
  requireLowerHalf(
    seed,
    "seeds from 2147483648 up are those of generated calibration samples, which no pattern may be tested on",
  );
}

function requireLowerHalf(seed: number, why: string): void {
  if (seed >= FIRST_OF_CALIBRATION) throw new UsageError(`--seed is ${seed}: ${why}`);
}
