/**
 * Paired differences as the estimators take them. A stratum is a task at a length; a unit is what was drawn
 * independently: an item, or all items that share an article. The quantity of interest is the unweighted mean over strata
 * of their means over items, as RULER and LongBench report it.
 */
import { sum } from "../../base/sum.ts";

/** Items that were drawn together. */
interface Unit {
  /** Sum of the items' differences. */
  total: number;
  items: number;
}

export interface Stratum {
  /** For the random stream, so that a stratum's resamples do not depend on its neighbours. */
  name: string;
  units: readonly Unit[];
}

/** Sums differences over clusters; an item without a cluster is a unit of its own. */
export function stratumOf(
  name: string,
  items: readonly { difference: number; cluster?: string | undefined }[],
): Stratum {
  const units: Unit[] = [];
  const clusters = new Map<string, Unit>();
  for (const { difference, cluster } of items) {
    let unit = cluster === undefined ? undefined : clusters.get(cluster);
    if (unit === undefined) {
      unit = { total: 0, items: 0 };
      units.push(unit);
      if (cluster !== undefined) clusters.set(cluster, unit);
    }
    unit.total += difference;
    unit.items++;
  }
  return { name, units };
}

export function itemCount(strata: readonly Stratum[]): number {
  return sum(strata.flatMap(({ units }) => units.map(({ items }) => items)));
}

/** Mean over items. */
function stratumMean({ units }: Stratum): number {
  return sum(units.map(({ total }) => total)) / sum(units.map(({ items }) => items));
}

/** Mean over strata of their means. */
export function macroMean(strata: readonly Stratum[]): number {
  return sum(strata.map(stratumMean)) / strata.length;
}

/**
 * Standard error of the macro mean, by the spread of units around their stratum's mean, with the factor C/(C-1) for C
 * units; undefined where a stratum has a single unit.
 */
export function macroStandardError(strata: readonly Stratum[]): number | undefined {
  if (strata.some(({ units }) => units.length < 2)) return undefined;
  const variances = strata.map((stratum) => {
    const { units } = stratum;
    const mean = stratumMean(stratum);
    const squares = sum(units.map(({ total, items }) => (total - items * mean) ** 2));
    return ((units.length / (units.length - 1)) * squares) / itemCount([stratum]) ** 2;
  });
  return Math.sqrt(sum(variances)) / strata.length;
}

/** Each unit's weight in the macro mean times its total: they sum to it. */
export function contributions(strata: readonly Stratum[]): number[] {
  return strata.flatMap((stratum) => {
    const scale = strata.length * itemCount([stratum]);
    return stratum.units.map(({ total }) => total / scale);
  });
}
