/** Repeated measurements in three numbers. */
export interface Spread {
  median: number;
  low: number;
  high: number;
}

/** @throws RangeError for an empty list */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  if (sorted.length === 0) throw new RangeError("spread of nothing");
  const at = (share: number) => sorted[Math.floor(share)] as number;
  const middle = (sorted.length - 1) / 2;
  return { median: (at(middle) + at(Math.ceil(middle))) / 2, low: at(0), high: at(sorted.length - 1) };
}
