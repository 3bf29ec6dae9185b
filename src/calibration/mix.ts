/**
 * Several calibration sets that are judged by together: the total is the weighted mean of their means, whatever the number
 * and length of their sequences.
 */
import { createHash } from "node:crypto";
import { UsageError } from "../base/errors.ts";
import type { CalibrationSet } from "./calibration-set.ts";

export interface MixedSource {
  /** As results call it. */
  name: string;
  /** Share of the total; those of all sources add up to 1. */
  weight: number;
  /** Whether only answers count, not every token. */
  answers: boolean;
  /** Of the generator, where the sequences were generated. */
  seed?: number;
  /** Places of its sequences among those of the mix. */
  sequences: readonly number[];
}

export interface CalibrationMix extends CalibrationSet {
  sources: readonly MixedSource[];
}

export interface WeightedSet extends Omit<MixedSource, "sequences"> {
  set: CalibrationSet;
}

/**
 * The sequences of all sets, one set after the other.
 * @param parts weights are relative, and positive
 */
export function mixSets(parts: readonly WeightedSet[]): CalibrationMix {
  const total = parts.reduce((sum, { weight }) => sum + weight, 0);
  const sources: MixedSource[] = [];
  let first = 0;
  for (const { set, weight, ...part } of parts) {
    const sequences = set.windows.map((_, index) => first + index);
    first += sequences.length;
    sources.push({ ...part, weight: weight / total, sequences });
  }
  const [only] = parts;
  const sets = parts.map(({ set }) => set);
  const sum = (of: (set: CalibrationSet) => number): number => sets.reduce((all, set) => all + of(set), 0);
  return {
    source:
      parts.length === 1 && only !== undefined
        ? only.name
        : sources.map(({ name, weight }) => `${name}=${Number(weight.toFixed(4))}`).join(" + "),
    hash:
      parts.length === 1 && only !== undefined
        ? only.set.hash
        : createHash("sha256")
            .update(sets.map(({ hash }) => hash).join("\n"))
            .digest("hex"),
    windows: sets.flatMap(({ windows }) => windows),
    scoredFrom: sets.flatMap(({ scoredFrom }) => scoredFrom),
    sequenceLength: Math.max(...sets.map(({ sequenceLength }) => sequenceLength)),
    tokens: sum(({ tokens }) => tokens),
    available: sum(({ available }) => available),
    documents: sum(({ documents }) => documents),
    notes: sets.flatMap(({ notes }) => notes),
    warnings: sets.flatMap(({ warnings }) => warnings),
    sources,
  };
}

/**
 * What a sequence's tokens are multiplied by, so that token-weighted means over the given sequences are the weighted means of
 * the sources: 1 where there is one source.
 * @param scored tokens of a sequence that count
 * @throws UsageError where a source has none of the sequences
 */
export function sourceFactors(
  sources: readonly MixedSource[],
  indices: readonly number[],
  scored: (index: number) => number,
): (index: number) => number {
  if (sources.length === 1) return () => 1;
  const tokens = (of: readonly number[]): number => of.reduce((sum, index) => sum + scored(index), 0);
  const all = tokens(indices);
  const asked = new Set(indices);
  const factors = new Map<number, number>();
  for (const { name, weight, sequences } of sources) {
    const own = sequences.filter((index) => asked.has(index));
    if (own.length === 0) throw new UsageError(`No sequence of "${name}" is left to judge by: give more of it`);
    const factor = (weight * all) / tokens(own);
    for (const index of own) factors.set(index, factor);
  }
  return (index) => {
    const factor = factors.get(index);
    if (factor === undefined) throw new RangeError(`sequence ${index} is not among those that are weighed`);
    return factor;
  };
}
