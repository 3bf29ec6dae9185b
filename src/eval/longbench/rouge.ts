/**
 * ROUGE-L as the package `rouge` 1.0.1 (pltrdy) computes it, which LongBench scores with. It is not the ROUGE-L of the
 * paper: sentences end at any full stop, words are counted once, and the common words are those of the longest common
 * subsequences of all pairs of sentences together.
 */

import { pythonSplit } from "../python-whitespace.ts";

/** F of hypothesis and reference; 0 where either has no sentence. */
export function rougeL(hypothesis: string, reference: string): number {
  const hypotheses = sentences(hypothesis);
  const references = sentences(reference);
  if (hypotheses.length === 0 || references.length === 0) return 0;
  const union = new Set<string>();
  for (const ref of references) for (const hyp of hypotheses) addCommonSubsequence(ref, hyp, union);
  const recall = union.size / new Set(references.flat()).size;
  const precision = union.size / new Set(hypotheses.flat()).size;
  return 2 * ((precision * recall) / (precision + recall + 1e-8));
}

/** Words of each sentence. A sentence of blanks has the empty word, as in the original. */
function sentences(text: string): string[][] {
  return text
    .split(".")
    .filter((sentence) => sentence.length > 0)
    .map((sentence) => pythonSplit(sentence).join(" ").split(" "));
}

/**
 * Adds the words of one longest common subsequence: the one that the original's back-trace finds. Its recursion fails on
 * sentences of more than about 550 words, which then score 0; this loop does not.
 */
function addCommonSubsequence(x: readonly string[], y: readonly string[], words: Set<string>): void {
  const width = y.length + 1;
  const lengths = new Uint32Array((x.length + 1) * width);
  const at = (i: number, j: number): number => lengths[i * width + j] ?? 0;
  for (let i = 1; i <= x.length; i++) {
    for (let j = 1; j <= y.length; j++) {
      lengths[i * width + j] = x[i - 1] === y[j - 1] ? at(i - 1, j - 1) + 1 : Math.max(at(i - 1, j), at(i, j - 1));
    }
  }
  let i = x.length;
  let j = y.length;
  while (i > 0 && j > 0) {
    if (x[i - 1] === y[j - 1]) {
      words.add(x[i - 1] ?? "");
      i--;
      j--;
    } else if (at(i - 1, j) > at(i, j - 1)) i--;
    else j--;
  }
}
