/**
 * How a difference is bounded, and how many more items would settle a verdict by the same bounds. Both rules have two sides
 * that mirror each other: a lower bound for losses, an upper one for gains.
 */
import { normalQuantile } from "../../base/distributions.ts";
import {
  type BoundedSample,
  grouped,
  lowerBoundOfMean,
  negated,
  probabilityBelow,
  upperBoundOfMean,
  type WeightedValue,
} from "./bounded-mean.ts";
import { type Discordant, lowerBoundOfDifference, powerOfMore, upperBoundOfDifference } from "./paired-score.ts";
import type { PowerSettings } from "./power.ts";
import { itemCount, type Stratum } from "./strata.ts";

/** What further items would show. */
export type Future = "no difference" | "as observed";

/** `above`: the lower bound clears the value; `below`: the upper one does. */
export interface Claim {
  side: "above" | "below";
  value: number;
}

export interface DifferenceRule {
  name: "exact score" | "bounded mean";
  /** One-sided, of this confidence. */
  lower(confidence: number): number;
  upper(confidence: number): number;
  /** Would `more` items, spread evenly over the strata, prove the claim with the chance of `power`? */
  provesWith(more: number, claim: Claim, future: Future, power: PowerSettings): boolean;
}

/** Independent pairs of right and wrong. */
export class PairedShares implements DifferenceRule {
  readonly name = "exact score";
  readonly #seen: Discordant & { items: number };

  constructor(seen: Discordant & { items: number }) {
    this.#seen = seen;
  }

  lower(confidence: number): number {
    return lowerBoundOfDifference(this.#seen, this.#seen.items, confidence);
  }

  upper(confidence: number): number {
    return upperBoundOfDifference(this.#seen, this.#seen.items, confidence);
  }

  provesWith(more: number, { side, value }: Claim, future: Future, { alpha, power }: PowerSettings): boolean {
    const { lost, gained, items } = this.#seen;
    // Half a pair more where some differ: shares that few pairs show by chance too low would ask for too little.
    const half = lost + gained === 0 ? 0 : (lost + gained + 0.5) / 2;
    const counts = future === "no difference" ? { lost: half, gained: half } : { lost, gained };
    const shares = { lost: counts.lost / items, gained: counts.gained / items };
    return side === "above"
      ? powerOfMore(this.#seen, more, shares, { difference: value, alpha }) >= power
      : powerOfMore({ lost: gained, gained: lost, items }, more, swapped(shares), { difference: -value, alpha }) >=
          power;
  }
}

function swapped({ lost, gained }: Discordant): Discordant {
  return { lost: gained, gained: lost };
}

/** A difference of two scores of 0 to 1. */
const FLOOR = -1;
/** Values that a look ahead works with: more are put on a grid. */
const MOST_VALUES = 256;
const GRID = 64;

/** Mean over strata of differences of any size; units may be clusters. */
export class BoundedMean implements DifferenceRule {
  readonly name = "bounded mean";
  readonly #sample: BoundedSample;
  readonly #items: number;
  #coarse: CoarseSample | undefined;

  constructor(strata: readonly Stratum[]) {
    this.#sample = sampleOf(strata);
    this.#items = itemCount(strata);
  }

  lower(confidence: number): number {
    return lowerBoundOfMean(this.#sample, confidence);
  }

  upper(confidence: number): number {
    return upperBoundOfMean(this.#sample, confidence);
  }

  provesWith(more: number, { side, value }: Claim, future: Future, { alpha, power }: PowerSettings): boolean {
    this.#coarse ??= coarsened(this.#sample, alpha);
    const { sample, shiftBelow, shiftAbove } = this.#coarse;
    const [values, at] =
      side === "above" ? [sample.values, value - shiftBelow] : [negated(sample.values), -value + shiftAbove];
    const coming = unlucky(future === "no difference" ? symmetric(values) : values, more / this.#items, power);
    return probabilityBelow({ ...sample, values: [...values, ...coming] }, at) <= alpha;
  }
}

/**
 * Units with their weights in the macro mean. What was not seen weighs as much as a unit of the stratum with the fewest of
 * them, where it would do the most; clusters of unequal sizes count as so many equal ones (Kish's effective number).
 */
function sampleOf(strata: readonly Stratum[]): BoundedSample {
  const values: WeightedValue[] = [];
  let unseenWeight = 0;
  for (const stratum of strata) {
    const all = itemCount([stratum]);
    const shares = stratum.units.map(({ items }) => items / all);
    unseenWeight = Math.max(
      unseenWeight,
      shares.reduce((total, share) => total + share ** 2, 0),
    );
    for (const [index, { total, items }] of stratum.units.entries()) {
      values.push({ value: Math.max(-1, Math.min(1, total / items)), weight: shares[index] as number, count: 1 });
    }
  }
  return { values: grouped(values), unseenWeight, floor: FLOOR };
}

/** For looking ahead, where hundreds of thousands of values would take seconds. */
interface CoarseSample {
  sample: BoundedSample;
  /** By how much the grid has moved the lower bound, and the upper one. */
  shiftBelow: number;
  shiftAbove: number;
}

function coarsened(sample: BoundedSample, alpha: number): CoarseSample {
  if (sample.values.length <= MOST_VALUES) return { sample, shiftBelow: 0, shiftAbove: 0 };
  const onGrid = sample.values.map(({ value, weight, count }) => ({
    value: Math.round(value * GRID) / GRID,
    weight: 1.1 ** Math.round(Math.log(weight) / Math.log(1.1)),
    count,
  }));
  const coarse = { ...sample, values: grouped(onGrid) };
  return {
    sample: coarse,
    shiftBelow: lowerBoundOfMean(sample, 1 - alpha) - lowerBoundOfMean(coarse, 1 - alpha),
    shiftAbove: upperBoundOfMean(sample, 1 - alpha) - upperBoundOfMean(coarse, 1 - alpha),
  };
}

/** The same values and their negatives, each half as often: as much that differs, and no difference. */
function symmetric(values: readonly WeightedValue[]): WeightedValue[] {
  const halves = values.map(({ value, weight, count }) => ({ value, weight, count: count / 2 }));
  return grouped([...halves, ...negated(halves)]);
}

/**
 * `times` as many draws of the values, tilted so that their mean lies where it comes to lie at least with the chance of
 * `power`: what is lost is more frequent, what is gained less.
 */
function unlucky(values: readonly WeightedValue[], times: number, power: number): WeightedValue[] {
  let [total, first] = [0, 0];
  for (const { value, weight, count } of values) {
    total += weight * count;
    first += weight * count * value;
  }
  const mean = first / total;
  let [spread, squares] = [0, 0];
  for (const { value, weight, count } of values) {
    spread += weight * count * (value - mean) ** 2;
    squares += count * (weight * (value - mean)) ** 2;
  }
  const tilt = spread === 0 ? 0 : (normalQuantile(power) * Math.sqrt(squares / times)) / spread;
  return values.map(({ value, weight, count }) => ({
    value,
    weight,
    count: count * times * Math.max(0, 1 - tilt * (value - mean)),
  }));
}
