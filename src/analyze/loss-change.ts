/**
 * What patterns cost, by loss: changes are paired over sequences, because two patterns on the same text differ by far
 * less than two texts do.
 */
import { fullLayers, type Pattern, withShared } from "../pattern/pattern.ts";
import { meanLoss } from "../runtime/loss/mean-loss.ts";
import type { Measurement } from "../runtime/measurement.ts";

/** What an analysis has to know of a measurement. */
export type PatternLoss = Pick<Measurement, "pattern" | "loss" | "standardError" | "tokens" | "sequences">;

/** Measures a pattern; `base` is the one that the next patterns depart from. */
export type Evaluate = (pattern: Pattern, base: Pattern) => Promise<PatternLoss>;

/** Nats per token. */
export interface Change {
  change: number;
  /** Over sequences; null, unknown, with a single one. */
  standardError: number | null;
}

export interface Flip extends Change {
  layer: number;
  measurement: PatternLoss;
}

export interface PairFlip extends Change {
  layers: [number, number];
  measurement: PatternLoss;
  /** Change of the pair less the changes of its flips. */
  interaction: Change;
}

/** Loss of the first less that of the second. */
export function lossChange(measurement: PatternLoss, base: PatternLoss): Change {
  return combine([
    [1, measurement],
    [-1, base],
  ]);
}

/** The loss of one more Shared layer, for every Full layer but the first. */
export async function measureFlips(base: PatternLoss, evaluate: Evaluate): Promise<Flip[]> {
  const flips: Flip[] = [];
  for (const layer of fullLayers(base.pattern).slice(1)) {
    const measurement = await evaluate(withShared(base.pattern, layer), base.pattern);
    flips.push({ layer, measurement, ...lossChange(measurement, base) });
  }
  return flips;
}

/** The loss of two more Shared layers, for every pair of `flips`. */
export async function measurePairs(base: PatternLoss, flips: readonly Flip[], evaluate: Evaluate): Promise<PairFlip[]> {
  const pairs: PairFlip[] = [];
  for (const [index, first] of flips.entries()) {
    for (const second of flips.slice(index + 1)) {
      const measurement = await evaluate(
        withShared(first.measurement.pattern, second.layer),
        first.measurement.pattern,
      );
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
function combine(terms: readonly (readonly [sign: 1 | -1, measurement: PatternLoss])[]): Change {
  const [[, { sequences }]] = terms as [(typeof terms)[number]];
  const differences = sequences.map(({ tokens }, index) => {
    const loss = terms.reduce(
      (total, [sign, { sequences: all }]) => total + sign * (all[index]?.loss ?? Number.NaN),
      0,
    );
    return { loss, tokens };
  });
  const { loss: change, standardError } = meanLoss(differences);
  return { change, standardError };
}
