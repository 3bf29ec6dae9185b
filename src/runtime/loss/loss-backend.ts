/** What computes the losses of windows, in this process or in others. */
import type { Pattern } from "../../pattern/pattern.ts";
import type { EvaluateOptions, PatternRequest, SequenceLoss } from "../measurement.ts";
import type { CountedExecutions } from "./layer-executions.ts";

/** Losses of windows for one pattern: what a process can answer. */
export interface SequenceResults {
  sequences: SequenceLoss[];
  executions: CountedExecutions;
}

export interface SequenceLosses {
  evaluate(pattern: Pattern, options: EvaluateOptions): Promise<SequenceResults>;
  /**
   * Where layers are loaded in turn: evaluates as many of the requests, from the first one on, as there is room for in one
   * pass over the layers. Absent where the whole model is loaded.
   */
  walk?: ((requests: readonly PatternRequest[], signal?: AbortSignal) => Promise<SequenceResults[]>) | undefined;
  /** Windows that one run or one pass over the layers computes. */
  readonly sideBySide: number;
  readonly plan: string[];
  release(): Promise<void>;
}

/** The places that were asked for, in that order; all where nothing is said. */
export function chosen<T>(all: readonly T[], indices: readonly number[] | undefined): T[] {
  return indices === undefined ? [...all] : indices.map((index) => all[index] as T);
}
