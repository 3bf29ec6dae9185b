/**
 * How RULER's own generator reaches a length (`scripts/data/synthetic/*.py`, Apache-2.0, (c) NVIDIA). It searches once, and
 * a sample that is a token too long loses a whole step: 500 words of an essay, 25 lines, 10 documents. Its prompts of 4,096
 * tokens are therefore often no more than three quarters full.
 */
import type { Fit } from "./fitting.ts";

/** Steps of a task: those of a search by halves, or fwe's, which climbs. */
export type OfficialSteps =
  | {
      kind: "halving";
      /** The smallest number of units that it looks at, and what a sample that is too long loses. */
      step: number;
      /** Units by which the tokens of a unit are estimated. */
      probe: number;
      /** Times the estimated number of units that the search looks up to. */
      reach: number;
    }
  | { kind: "climbing" };

/** Tokens of a prompt may be this many. */
interface Room {
  limit: number;
  /** The same with the answer: what RULER estimates from. */
  total: number;
}

/** Units that every sample starts from. */
export function officialStart(count: (units: number) => number, steps: OfficialSteps, { limit, total }: Room): number {
  if (steps.kind === "climbing") {
    const step = stepOf(steps, limit);
    let units = Math.floor(limit / 6);
    while (count(units) < limit) units += step;
    return Math.max(1, units - step);
  }
  const { step, probe, reach } = steps;
  let low = step;
  let high = Math.max(Math.floor((total / (count(probe) / probe)) * reach), 2 * step);
  let largest = step;
  while (low <= high) {
    const middle = Math.floor((low + high) / 2);
    if (count(middle) <= limit) {
      largest = middle;
      low = middle + 1;
    } else high = middle - 1;
  }
  return largest;
}

/**
 * Fits one sample. RULER's own loop does not end where even the last step does not fit; here the smallest prompt of the
 * task is tried then.
 * @returns undefined where that does not fit either
 */
export function officialSample(
  count: (units: number) => number,
  start: number,
  steps: OfficialSteps,
  smallest: number,
  limit: number,
): Fit | undefined {
  const step = stepOf(steps, limit);
  const floor = steps.kind === "halving" ? step : 0;
  let units = Math.max(smallest, start);
  for (;;) {
    const tokens = count(units);
    if (tokens <= limit) return { units, tokens };
    if (units <= smallest) return undefined;
    units = units > floor ? Math.max(smallest, units - step) : smallest;
  }
}

function stepOf(steps: OfficialSteps, limit: number): number {
  return steps.kind === "halving" ? steps.step : Math.max(1, Math.floor(limit / 32));
}
