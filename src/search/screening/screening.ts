/**
 * How a step finds its best candidates: measure all of them on every sequence (`complete`), or stop early (`bounded.ts`,
 * `raced.ts`).
 */
import type { Pattern } from "../../pattern/pattern.ts";
import type { SearchEvent } from "../events.ts";
import type { PatternEvaluation } from "../losses.ts";
import type { Trials } from "../trials.ts";

export interface Tried {
  pattern: Pattern;
  evaluation: PatternEvaluation;
  /** Shown not to be among the best before all sequences were measured. */
  dropped: boolean;
}

export interface Screening {
  name: "complete" | "bounded" | "raced";
  /** Calls of the evaluator for one candidate, at most. */
  callsEach(sequences: number): number;
  /**
   * Measures candidates that depart from one pattern.
   * @param keep how many of the best the step wants; at least these are not dropped
   * @returns one entry for each pattern, in their order
   */
  run(trials: Trials, from: Pattern, patterns: readonly Pattern[], keep: number): AsyncGenerator<SearchEvent, Tried[]>;
}

/** The list in pieces of `size`. */
export function blocksOf(indices: readonly number[], size: number): number[][] {
  return Array.from({ length: Math.ceil(indices.length / size) }, (_, block) =>
    indices.slice(block * size, (block + 1) * size),
  );
}

/** Every candidate on every sequence: the paper's way. */
export const complete: Screening = {
  name: "complete",
  callsEach: () => 1,
  run: (trials, from, patterns) => trials.tryAll(patterns, from),
};
