/**
 * Stratified paired bootstrap: units are drawn again within their stratum, both arms of an item together. A stratum has a
 * random stream of its own, so that its resamples serve its own row and every sum over strata.
 */
import { Random } from "../../base/random.ts";
import type { Interval } from "./intervals.ts";
import { type Stratum, stratumMean } from "./strata.ts";

export interface BootstrapSettings {
  resamples: number;
  seed: number;
}

export class Bootstrap {
  readonly #settings: BootstrapSettings;
  readonly #means = new Map<Stratum, Float64Array>();

  constructor(settings: BootstrapSettings) {
    this.#settings = settings;
  }

  /** Percentile interval of the macro mean. */
  interval(strata: readonly Stratum[], confidence: number): Interval {
    const totals = new Float64Array(this.#settings.resamples);
    for (const stratum of strata) {
      const means = this.#resampledMeans(stratum);
      for (let b = 0; b < totals.length; b++) totals[b] = (totals[b] as number) + (means[b] as number) / strata.length;
    }
    totals.sort();
    return { low: quantile(totals, (1 - confidence) / 2), high: quantile(totals, (1 + confidence) / 2) };
  }

  #resampledMeans(stratum: Stratum): Float64Array {
    const known = this.#means.get(stratum);
    if (known !== undefined) return known;
    const means = resampledMeans(stratum, this.#settings);
    this.#means.set(stratum, means);
    return means;
  }
}

function resampledMeans(stratum: Stratum, { resamples, seed }: BootstrapSettings): Float64Array {
  const { name, units } = stratum;
  const totals = Float64Array.from(units, ({ total }) => total);
  const items = Float64Array.from(units, ({ items: count }) => count);
  // Nothing to draw where all units are alike; the mean is exact then.
  if (units.every(({ total, items: count }) => total === totals[0] && count === items[0])) {
    return new Float64Array(resamples).fill(stratumMean(stratum));
  }
  const random = Random.forPart(seed, `bootstrap/${name}`);
  const means = new Float64Array(resamples);
  for (let b = 0; b < resamples; b++) {
    let total = 0;
    let count = 0;
    for (let i = 0; i < units.length; i++) {
      const drawn = Math.floor(random.unit() * units.length);
      total += totals[drawn] as number;
      count += items[drawn] as number;
    }
    means[b] = total / count;
  }
  return means;
}

/** Linear between order statistics (Hyndman and Fan's type 7, what NumPy does). */
function quantile(sorted: Float64Array, share: number): number {
  const position = share * (sorted.length - 1);
  const below = Math.floor(position);
  const low = sorted[below] as number;
  const high = sorted[Math.min(below + 1, sorted.length - 1)] as number;
  return low + (high - low) * (position - below);
}
