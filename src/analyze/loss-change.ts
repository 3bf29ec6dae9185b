/**
 * What patterns cost, by loss: changes are paired over sequences, because two patterns on the same text differ by far
 * less than two texts do.
 */
import { estimate, pairedDifference } from "../base/estimate.ts";
import { fullLayers, type Pattern, withShared } from "../pattern/pattern.ts";
import type { Measurement } from "../runtime/measurement.ts";

/** What an analysis has to know of a measurement. */
export type MeasuredPattern = Pick<Measurement, "pattern" | "loss" | "standardError" | "tokens" | "sequences">;

/** Measures a pattern; `base` is the one that the next patterns depart from. */
export type MeasurePattern = (pattern: Pattern, base: Pattern) => Promise<MeasuredPattern>;

/** Nats per token. */
export interface Change {
  change: number;
  /** Over sequences; null, unknown, with a single one. */
  standardError: number | null;
}

export interface FlipChange extends Change {
  layer: number;
  measurement: MeasuredPattern;
}

export interface PairFlip extends Change {
  layers: [number, number];
  measurement: MeasuredPattern;
  /** Change of the pair less the changes of its flips. */
  interaction: Change;
}

/** Loss of the first less that of the second. */
export function lossChange(measurement: MeasuredPattern, base: MeasuredPattern): Change {
  const { mean, standardError } = pairedDifference(measurement.sequences, base.sequences);
  return { change: mean, standardError };
}

/** The loss of one more Shared layer, for every Full layer but the first. */
export async function measureFlips(base: MeasuredPattern, measure: MeasurePattern): Promise<FlipChange[]> {
  const flips: FlipChange[] = [];
  for (const layer of fullLayers(base.pattern).slice(1)) {
    const measurement = await measure(withShared(base.pattern, layer), base.pattern);
    flips.push({ layer, measurement, ...lossChange(measurement, base) });
  }
  return flips;
}

/** The loss of two more Shared layers, for every pair of `flips`. */
export async function measurePairs(
  base: MeasuredPattern,
  flips: readonly FlipChange[],
  measure: MeasurePattern,
): Promise<PairFlip[]> {
  const pairs: PairFlip[] = [];
  for (const [index, first] of flips.entries()) {
    for (const second of flips.slice(index + 1)) {
      const measurement = await measure(withShared(first.measurement.pattern, second.layer), first.measurement.pattern);
      const interaction = combine([
        [1, measurement],
        [-1, first.measurement],
        [-1, second.measurement],
        [1, base],
      ]);
      pairs.push({
        layers: [first.layer, second.layer],
        measurement,
        ...lossChange(measurement, base),
        interaction,
      });
    }
  }
  return pairs;
}

/** A sum of losses, sequence by sequence; all measurements are of the same sequences. */
function combine(terms: readonly (readonly [sign: 1 | -1, measurement: MeasuredPattern])[]): Change {
  const [[, { sequences }]] = terms as [(typeof terms)[number]];
  const differences = sequences.map(({ tokens }, index) => {
    const loss = terms.reduce(
      (total, [sign, { sequences: all }]) => total + sign * (all[index]?.loss ?? Number.NaN),
      0,
    );
    return { loss, tokens };
  });
  const { mean: change, standardError } = estimate(differences);
  return { change, standardError };
}
