/**
 * How many units a prompt of a given length has. Tokenizing is all that costs time here, so the search interpolates
 * instead of halving only, and a sample starts a little below what the search found and is rarely counted twice.
 */

export interface Fit {
  units: number;
  tokens: number;
}

/** Below this share of the limit a sample is given more units. */
export const FULL_ENOUGH = 0.97;
/** Samples of many units differ by about a percent. */
const MARGIN = 0.01;
const MOST_TRIES = 8;
/** From this many tokens on a search ends a little below the limit: each further look costs seconds, and samples differ by more. */
const LONG_LIMIT = 32_768;
const CLOSE_ENOUGH = 0.995;

/**
 * The largest number of units whose tokens stay within the limit, for tokens that grow with units; for limits of more than
 * 32,768 tokens one that fills 99.5% of it.
 * @param smallest fits, with `smallestTokens`
 * @param largest units that there are, if the data ends
 */
export function findLargest(
  count: (units: number) => number,
  smallest: Fit,
  limit: number,
  largest = Number.POSITIVE_INFINITY,
): Fit {
  let low = smallest;
  let high: Fit | undefined;
  const enough = limit > LONG_LIMIT ? CLOSE_ENOUGH * limit : Number.POSITIVE_INFINITY;
  // Up until something does not fit.
  for (let step = Math.max(4, low.units); high === undefined; step *= 2) {
    if (low.tokens >= enough) return low;
    const units = Math.min(low.units + step, largest);
    if (units <= low.units) return low;
    const next = { units, tokens: count(units) };
    if (next.tokens <= limit) low = next;
    else high = next;
    // From two counts on the slope tells how far to go.
    const slope = (next.tokens - smallest.tokens) / (next.units - smallest.units);
    if (high === undefined && slope > 0) step = Math.max(1, Math.floor(((limit - low.tokens) / slope) * 0.55));
  }
  for (let turn = 0; high.units - low.units > 1 && low.tokens < enough; turn++) {
    const share = turn % 3 === 2 ? 0.5 : (limit - low.tokens) / Math.max(1, high.tokens - low.tokens);
    const guess = low.units + Math.round(share * (high.units - low.units));
    const units = Math.min(high.units - 1, Math.max(low.units + 1, guess));
    const next = { units, tokens: count(units) };
    if (next.tokens <= limit) low = next;
    else high = next;
  }
  return low;
}

/** Where samples start, given the largest number of units that the search found. */
export function startOf(largest: number): number {
  return largest - (largest < 1 / MARGIN ? 0 : Math.ceil(largest * MARGIN));
}

/**
 * Fits one sample.
 * @param perUnit tokens of a unit, about
 * @returns undefined where even the smallest number of units has too many tokens
 */
export function fitSample(
  count: (units: number) => number,
  { start, smallest, largest = Number.POSITIVE_INFINITY }: { start: number; smallest: number; largest?: number },
  limit: number,
  perUnit: number,
): Fit | undefined {
  let best: Fit | undefined;
  let tooMany = largest + 1;
  let units = start;
  for (let turn = 0; turn < MOST_TRIES || best === undefined; turn++) {
    const tokens = count(units);
    if (tokens > limit) {
      if (units <= smallest) return undefined;
      tooMany = Math.min(tooMany, units);
      // Once tries run out, down fast: to fit at all matters more than to be full.
      const less = Math.ceil((tokens - limit) / perUnit) + (turn < MOST_TRIES ? 0 : Math.ceil(units / 4));
      units = Math.max(smallest, best?.units ?? 0, units - Math.max(1, less));
    } else {
      if (best === undefined || units > best.units) best = { units, tokens };
      if (tokens >= FULL_ENOUGH * limit) break;
      units += Math.max(1, Math.floor((limit - tokens) / perUnit));
    }
    if (units >= tooMany) units = tooMany - 1;
    if (best !== undefined && units <= best.units) break;
  }
  return best;
}
