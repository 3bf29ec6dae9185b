/** Similarity of two lines of code from 0 to 100, as `fuzz.ratio` of fuzzywuzzy gives it. */

import { matchedByBlocks } from "../sequence-matcher.ts";
import type { CodeRatio } from "./options.ts";

/**
 * @param kind "difflib" is what LongBench's requirements install; "indel" what python-Levenshtein makes of it. The first
 *   depends on the order of its arguments
 */
export function fuzzRatio(prediction: string, gold: string, kind: CodeRatio): number {
  if (prediction === gold) return 100;
  const [a, b] = [[...prediction], [...gold]];
  if (a.length === 0 || b.length === 0) return 0;
  const matched = kind === "difflib" ? matchedByBlocks(a, b) : commonSubsequence(a, b);
  // In this order: fuzzywuzzy rounds 100 times the ratio, which is a rounded number already.
  return roundHalfEven(100 * ((2 * matched) / (a.length + b.length)));
}

/** Length of the longest common subsequence: what insertions and deletions alone leave in place. */
function commonSubsequence(a: readonly string[], b: readonly string[]): number {
  let above = new Uint32Array(b.length + 1);
  for (const character of a) {
    const row = new Uint32Array(b.length + 1);
    for (const [j, other] of b.entries()) {
      row[j + 1] = character === other ? (above[j] ?? 0) + 1 : Math.max(above[j + 1] ?? 0, row[j] ?? 0);
    }
    above = row;
  }
  return above[b.length] ?? 0;
}

/** Python's round(). */
function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
