/** What computes the losses of windows, in this process or in others. */
import type { Pattern } from "../../pattern/pattern.ts";
import type { EvaluateOptions, PatternRequest, SequenceLoss } from "../measurement.ts";
import type { Recording } from "../session/recording.ts";
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

/** What every way of computing losses is told about its share of the windows. */
export interface BackendSettings {
  threads: number;
  /** Bytes of host memory that boundary states may take; 0 runs every candidate from the first layer. */
  stateBytes: number;
  /** Tokens of the model's own distribution that are kept, where divergences from it are asked for beside losses. */
  top?: number;
  /** Windows that are asked for at once, at least; all where absent. */
  together?: number;
  /** Position of the first token that counts, for each window; 1 where absent. */
  scoredFrom?: readonly number[];
  /** What messages call the windows; 0 and up where absent. */
  numbers?: readonly number[];
  recording?: Recording;
}

/** The places that were asked for, in that order; all where nothing is said. */
export function chosen<T>(all: readonly T[], indices: readonly number[] | undefined): T[] {
  return indices === undefined ? [...all] : indices.map((index) => all[index] as T);
}
