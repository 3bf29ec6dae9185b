/** How many items a statement takes, and how small a difference a number of items can show. */
import { normalQuantile } from "../../base/distributions.ts";

export interface PowerSettings {
  /** Two-sided for differences, one-sided for margins. */
  alpha: number;
  /** Chance of seeing what is there. */
  power: number;
}

export const usualPower: PowerSettings = { alpha: 0.05, power: 0.8 };

/**
 * Items that a two-sided test of paired scores needs to see `difference`.
 * @param discordance mean square of the differences; for binary scores the share of items that the arms judge differently
 */
export function itemsForDifference(discordance: number, difference: number, settings = usualPower): number {
  const [zAlpha, zBeta] = quantiles(settings.alpha / 2, settings.power);
  const spread = Math.sqrt(Math.max(discordance - difference ** 2, 0));
  return Math.ceil((zAlpha * Math.sqrt(discordance) + zBeta * spread) ** 2 / difference ** 2);
}

/**
 * Smallest difference that `items` items show with the chance of `power`; undefined where even the largest that these
 * discordant pairs allow would not be seen.
 */
export function minimumDetectableEffect(discordance: number, items: number, settings = usualPower): number | undefined {
  if (!(discordance > 0) || itemsForDifference(discordance, discordance, settings) > items) return undefined;
  let low = 0;
  let high = discordance;
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (middle > 0 && itemsForDifference(discordance, middle, settings) <= items) high = middle;
    else low = middle;
  }
  return high;
}

function quantiles(tail: number, power: number): [zAlpha: number, zBeta: number] {
  return [normalQuantile(1 - tail), normalQuantile(power)];
}
