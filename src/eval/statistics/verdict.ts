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
  /** Points as a share: 0.01. */
  margin: number;
  /** Every output the same and every score and loss equal to the last bit. */
  identical: boolean;
  /** Neither arm solves anything: what they lose cannot be seen. */
  floor: boolean;
  power: PowerSettings;
}

export function verdict({ strata, bounds, margin, identical, floor, power }: VerdictQuestion): Verdict {
  if (identical) return { kind: "identical" };
  if (floor) return { kind: "inconclusive" };
  if (bounds.low > -margin) return { kind: "non-inferior" };
  if (bounds.high < -margin) return { kind: "inferior" };
  return { kind: "inconclusive", itemsNeeded: itemsNeeded(strata, bounds, margin, power) };
}

/** Supposes that there is no loss where none is proven, and otherwise that the loss is the observed one. */
function itemsNeeded(strata: readonly Stratum[], bounds: Interval, margin: number, power: PowerSettings): number {
  const variance = variancePerItem(strata);
  const items = itemCount(strata);
  const observed = macroMean(strata);
  const more = (truth: number) => itemsForBound(variance, Math.max(Math.abs(truth + margin), 1e-4), power) - items;
  const plain = more(bounds.high < 0 ? observed : 0);
  return Math.max(1, plain > 0 ? plain : more(observed));
}
