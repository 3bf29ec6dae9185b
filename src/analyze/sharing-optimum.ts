/**
 * The best pattern by a statistic of pairs, exactly (paper, appendix C): the one that the paper finds to be worse than
 * one searched by loss, because a statistic of pairs is local.
 */
import type { Matrix } from "../formats/analysis-file.ts";
import { fullLayers, type Pattern, parsePattern, sourceLayer } from "../pattern/pattern.ts";

/** `value[layer][column]` of a pair; columns are `sources`. */
export interface PairValues {
  /** Layers that can be Full, ascending; layer 0 is the first. */
  sources: readonly number[];
  values: Matrix;
}

/**
 * Of all patterns with `full` Full layers the one with the greatest sum, over its Shared layers, of the value of the layer
 * with its source. By dynamic programming over the last Full layer: `best[k][i]`, k Full layers up to layer i, which is
 * Full, is the greatest `best[k - 1][j]` plus the values of the layers between with j. Of equal ones the first.
 * @throws RangeError unless 1 <= full <= sources
 */
export function bestSharing(pairs: PairValues, full: number): Pattern {
  const { sources } = pairs;
  const layers = pairs.values.length;
  if (full < 1 || full > sources.length) throw new RangeError(`${full} Full layers of ${sources.length}`);
  // run[c][layer]: the values of the layers after source c and below `layer`.
  const runs = sources.map((source, column) => {
    const run = new Float64Array(layers + 1);
    for (let layer = source + 1; layer < layers; layer++)
      run[layer + 1] = (run[layer] as number) + pairValue(pairs, layer, column);
    return run;
  });
  let best = sources.map((_, column) => (column === 0 ? 0 : Number.NEGATIVE_INFINITY));
  const before: number[][] = [];
  for (let k = 1; k < full; k++) {
    const chosen: number[] = [];
    best = sources.map((source, column) => {
      let greatest = Number.NEGATIVE_INFINITY;
      for (let previous = 0; previous < column; previous++) {
        const sum = (best[previous] as number) + ((runs[previous] as Float64Array)[source] as number);
        if (sum <= greatest) continue;
        greatest = sum;
        chosen[column] = previous;
      }
      return greatest;
    });
    before.push(chosen);
  }
  const ends = best.map((sum, column) => sum + ((runs[column] as Float64Array)[layers] as number));
  let column = ends.indexOf(Math.max(...ends));
  const letters = Array.from({ length: layers }, () => "S");
  for (let k = full - 1; ; k--) {
    letters[sources[column] as number] = "F";
    if (k === 0) return parsePattern(letters.join(""));
    column = (before[k - 1] as number[])[column] as number;
  }
}

/** Mean value of the Shared layers of a pattern with their sources; undefined if none is Shared. */
export function meanSharing(pairs: PairValues, pattern: Pattern): number | undefined {
  const shared = pattern.length - fullLayers(pattern).length;
  if (shared === 0) return undefined;
  let sum = 0;
  for (let layer = 0; layer < pattern.length; layer++) {
    const source = sourceLayer(pattern, layer);
    if (source !== layer) sum += pairValue(pairs, layer, pairs.sources.indexOf(source));
  }
  return sum / shared;
}

function pairValue({ values }: PairValues, layer: number, column: number): number {
  const value = values[layer]?.[column];
  if (typeof value !== "number") throw new RangeError(`no value of layer ${layer} with column ${column}`);
  return value;
}
