/** What generated tasks have in common: samples that grow with a number of units. */
import type { Random } from "../../base/random.ts";
import type { OfficialSteps } from "./official-steps.ts";

/** "official" sizes samples as RULER's generator does, "fine" fills them. */
export const fillSteps = ["fine", "official"] as const;
export type FillSteps = (typeof fillSteps)[number];

export interface GeneratedSample {
  input: string;
  answerPrefix: string;
  /** Gold strings: at least one. */
  outputs: readonly string[];
  /** Offset in `input` of the first answer, where its place means something (needles). */
  answerAt?: number;
  /** Samples that share an article. */
  cluster?: string;
}

export interface SampleGenerator {
  /** Units of the smallest prompt that is still the task. */
  smallest: number;
  /** Units that the data has, where it ends. */
  largest?: number;
  /** What ends where `largest` does, and what to do about it; for a note. */
  largestNote?: string;
  /** How RULER's own generator sizes it, for `--steps official`; absent for tasks that are none of RULER's. */
  officialSteps?: OfficialSteps;
  /** How the task is easier than RULER's, for lengths in which RULER's own does not fit; for a note. */
  simplified?: string;
  /** Samples that the data has, where they end: one for each question. */
  available?: number;
  /** Same arguments, same sample. `index` chooses the question of QA tasks; all else depends on `random`. */
  make(random: Random, units: number, index: number): GeneratedSample;
}

/** Steps of RULER's search where a unit is a line: smaller ones below 4,096 tokens. */
export function lineSteps(length: number, usual: number): OfficialSteps {
  const step = length < 4096 ? 5 : usual;
  return { kind: "halving", step, probe: step, reach: 3 };
}

/** What generators are made from. */
export interface GeneratorSettings {
  /** Target length in tokens: RULER has easier rules below 4,096. */
  length: number;
  seed: number;
}

/** What `draw` gives until there are `count` different ones, in their order. */
export function different<T>(count: number, draw: () => T): T[] {
  const drawn = new Set<T>();
  while (drawn.size < count) drawn.add(draw());
  return [...drawn];
}
