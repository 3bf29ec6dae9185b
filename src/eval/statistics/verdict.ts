/**
 * What a comparison says about a pattern. "No significant difference" is not "no loss": a pattern passes when the data
 * exclude a loss of more than the margin, fails when they prove one, and everything else is said to be open.
 */
import { type Interval, variancePerItem } from "./intervals.ts";
import { itemsForBound, type PowerSettings } from "./power.ts";
import { itemCount, macroMean, type Stratum } from "./strata.ts";

export const verdictKinds = ["identical", "non-inferior", "inferior", "inconclusive"] as const;
export type VerdictKind = (typeof verdictKinds)[number];

export interface Verdict {
  kind: VerdictKind;
  /** Inconclusive: about how many more items would settle it; undefined where more of the same would not. */
  itemsNeeded?: number;
}

export interface VerdictQuestion {
  strata: readonly Stratum[];
  /** Bounds of the difference, each of one-sided confidence 1 - alpha. */
  bounds: Interval;
  /** Two-sided, of no difference. */
  p: number;
  /** Points as a share: 0.01. */
  margin: number;
  /** Every output the same and every score and loss equal to the last bit. */
  identical: boolean;
  /** Neither arm solves anything: what they lose cannot be seen. */
  floor: boolean;
  power: PowerSettings;
}

export function verdict({ strata, bounds, p, margin, identical, floor, power }: VerdictQuestion): Verdict {
  if (identical) return { kind: "identical" };
  if (floor) return { kind: "inconclusive" };
  if (bounds.low > -margin) return { kind: "non-inferior" };
  // Bounds are approximate, tests of few items exact: what is proven to be worse than the margin is worse at all.
  if (bounds.high < -margin && p / 2 <= power.alpha) return { kind: "inferior" };
  return { kind: "inconclusive", itemsNeeded: itemsNeeded(strata, margin, power) };
}

/** Supposes that there is no difference, or the observed one where that would be settled sooner. */
function itemsNeeded(strata: readonly Stratum[], margin: number, power: PowerSettings): number {
  const variance = variancePerItem(strata);
  const more = (truth: number) =>
    itemsForBound(variance, Math.max(Math.abs(truth + margin), 1e-4), power) - itemCount(strata);
  const observed = macroMean(strata);
  const without = more(0);
  const asObserved = Math.max(more(observed), 1);
  // What would have been enough was not, with these items: then only what was observed says more.
  return without > 0 && observed >= -margin ? without : Math.min(asObserved, without > 0 ? without : asObserved);
}
