/** Lengths and numbers of generated samples, as they are asked for. */
import { UsageError } from "../../base/errors.ts";

/** Samples of every task and length. */
export const DEFAULT_SAMPLES = 100;
/** RULER's own. */
export const DEFAULT_SEED = 42;
/** RULER's shortest length. */
const USUAL_LENGTH = 4096;

export interface AskedLengths {
  lengths?: readonly number[];
  samples?: number;
  limit?: number;
  window?: number;
}

/**
 * The lengths asked for, or 4,096 tokens where the model's window has room for them.
 * @throws UsageError for lengths or numbers that cannot be
 */
export function targetLengths(asked: AskedLengths): readonly number[] {
  const { window = Number.POSITIVE_INFINITY, samples, limit } = asked;
  const lengths = asked.lengths ?? [Math.min(USUAL_LENGTH, window)];
  if (lengths.length === 0) throw new UsageError("--lengths names no length");
  for (const length of lengths) requireFrom(64, length, "--lengths");
  requireWithinWindow(asked);
  if (new Set(lengths).size < lengths.length) throw new UsageError("--lengths names a length twice");
  if (samples !== undefined) requireFrom(1, samples, "--samples");
  if (limit !== undefined) requireFrom(1, limit, "--limit");
  return lengths;
}

/** @throws UsageError for a length beyond the model's window */
export function requireWithinWindow({ lengths = [], window = Number.POSITIVE_INFINITY }: AskedLengths): void {
  const longest = Math.max(0, ...lengths);
  if (longest > window) throw new UsageError(`--lengths has ${longest}, the model's window is ${window} tokens`);
}

function requireFrom(least: number, value: number, flag: string): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  throw new UsageError(`${flag} is ${value}: it must be a whole number from ${least} up`);
}
