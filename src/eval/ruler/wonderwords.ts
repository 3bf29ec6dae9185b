/**
 * The word lists of wonderwords 3.0.1 (MIT, (c) 2020 Maxim Rebguns; THIRD_PARTY_NOTICES.md), which RULER draws its keys
 * and its lists of words from: all entries, each once, in their order. Some are two words, some are not ASCII.
 */
import { readFileSync } from "node:fs";

/** A list of `calibration/words`: three folders up from `src/eval/ruler` and from `dist/eval/ruler` alike. */
function readWords(name: string): readonly string[] {
  return readFileSync(new URL(`../../../calibration/words/${name}.txt`, import.meta.url), "utf8")
    .trimEnd()
    .split("\n");
}

export const nouns = readWords("nouns");
export const adjectives = readWords("adjectives");
export const verbs = readWords("verbs");
