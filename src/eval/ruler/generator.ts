/** What RULER's five families of tasks have in common: samples that grow with a number of units. */
import type { Random } from "../../base/random.ts";

export interface RulerSample {
  input: string;
  answerPrefix: string;
  /** Gold strings: at least one. */
  outputs: readonly string[];
  /** Offset in `input` of the first answer, where its place means something (needles). */
  answerAt?: number;
  /** Samples that share an article. */
  cluster?: string;
}

export interface RulerGenerator {
  /** Units of the smallest prompt that is still the task. */
  smallest: number;
  /** Units that the data has, where it ends. */
  largest?: number;
  /** How the task is easier than RULER's, for lengths in which RULER's own does not fit; for a note. */
  simplified?: string;
  /** Samples that the data has, where they end: one for each question. */
  available?: number;
  /** Same arguments, same sample. `index` chooses the question of QA tasks; all else hangs on `random`. */
  make(random: Random, units: number, index: number): RulerSample;
}

/** What generators are made from. */
export interface GeneratorSettings {
  /** Target length in tokens: RULER has easier rules below 4,096. */
  length: number;
  seed: number;
}
