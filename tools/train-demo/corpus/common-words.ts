/**
 * Word counts after RULER: the most common words of a numbered list (cwe), and the most frequent words of a coded text
 * whose word frequencies fall off as a zeta law (fwe). Templates: RULER (Apache-2.0, NVIDIA).
 */
import type { Random } from "../../../src/base/random.ts";
import { commonWordsPrompt, frequentWordsPrompt, numberedWords } from "../../../src/eval/ruler/templates.ts";
import type { Task } from "./task.ts";
import { animals, foods, things, trades } from "./words.ts";

export interface CommonWordsOptions {
  /** Words to find. Default 10. */
  common?: number;
  /** How often each of them occurs. Default 6. */
  commonCount?: number;
  /** Other words. */
  others: number;
  /** How often each of those occurs. Default 1. */
  otherCount?: number;
}

const pool: readonly string[] = [...things, ...animals, ...foods, ...trades];

/** Orders `words` by their first place in `text`: the one order that a reader of the text can know. */
function byFirstPlace(words: readonly string[], text: readonly string[]): string[] {
  return [...words].sort((a, b) => text.indexOf(a) - text.indexOf(b));
}

/** One cwe task. `outputs` are the common words in order of first occurrence. */
export function makeCommonWords(random: Random, options: CommonWordsOptions): Task {
  const { common = 10, commonCount = 6, others, otherCount = 1 } = options;
  const words = random.sample(pool, common + others);
  const listed = random.shuffled(
    words.flatMap((word, i) => new Array<string>(i < common ? commonCount : otherCount).fill(word)),
  );
  return {
    ...commonWordsPrompt(numberedWords(listed), common),
    outputs: byFirstPlace(words.slice(0, common), listed),
  };
}

/** ζ(2), the sum of the frequencies' law. */
const zeta2 = Math.PI ** 2 / 6;

/** One fwe task over `length` coded words, of which `vocabulary` differ. `outputs` are ranks 2 to 4 (rank 1 is dots). */
export function makeFrequentWords(random: Random, options: { length: number; vocabulary: number }): Task {
  const letters = [..."abcdefghijklmnopqrstuvwxyz"];
  const coded = new Set<string>();
  while (coded.size < options.vocabulary) coded.add(Array.from({ length: 6 }, () => random.pick(letters)).join(""));
  const ranked = ["...", ...[...coded].slice(1)];
  const text = random.shuffled(
    ranked.flatMap((word, i) => new Array<string>(Math.floor((options.length * (i + 1) ** -2) / zeta2)).fill(word)),
  );
  return {
    ...frequentWordsPrompt(text.join(" ")),
    outputs: ranked.slice(1, 4),
  };
}
