/**
 * What every search strategy takes, reports while it works, and returns. Strategies differ in the patterns that they ask for,
 * not in this: journal, progress and views follow any of them.
 */

import type { Estimate, WeightedLoss } from "../base/estimate.ts";
import type { Pattern } from "../pattern/pattern.ts";
import type { PatternEvaluation, Recall } from "./losses.ts";
import type { PatternSpace } from "./space.ts";

/** A pattern to be measured, and on which sequences. */
export interface MeasureRequest {
  pattern: Pattern;
  /** Indices, in the order in which the losses are wanted. */
  sequences: readonly number[];
  /** The pattern that this one departs from: an evaluator may keep its states and run only what differs. */
  base: Pattern;
}

export interface MeasureContext {
  /** Patterns measured so far that may become the next base, the likeliest first: their states are worth keeping. */
  keep(): readonly Pattern[];
  /** From 1: measure once more what was measured before; absent for the first measurement. */
  repeat?: number | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Losses of patterns that are wanted together, the candidates of a step: one list for each request, in their order and
 * each as soon as it is known. An evaluator may run them side by side; one that measures one after the other starts the
 * next when it is asked for.
 */
export type Evaluate = (
  requests: readonly MeasureRequest[],
  context: MeasureContext,
) => AsyncIterable<readonly WeightedLoss[]>;

/** An evaluator that measures one pattern after the other. */
export function oneByOne(
  measure: (
    pattern: Pattern,
    sequences: readonly number[],
    options: { base: Pattern; keep: readonly Pattern[] } & Omit<MeasureContext, "keep">,
  ) => Promise<readonly WeightedLoss[]>,
): Evaluate {
  return async function* (requests, { keep, ...context }) {
    for (const { pattern, sequences, base } of requests) {
      yield await measure(pattern, sequences, { base, keep: keep(), ...context });
    }
  };
}

export interface SearchOptions {
  space: PatternSpace;
  /** Numbers of Full layers that patterns are wanted for, at least one. */
  targets: readonly number[];
  /** Indices of the sequences to judge by. */
  sequences: readonly number[];
  /** The same by the source of text that they are of; all of one if absent. */
  sources?: readonly (readonly number[])[];
  evaluate: Evaluate;
  /** Search again on resampled sequences at the end, by the losses that are known then. */
  stability?: boolean;
  /** Losses of earlier runs, of whatever strategy: these are taken as they are. */
  recall?: Recall;
  /**
   * For an evaluator whose measurements repeat up to noise only: rounds in which candidates of a step are measured again
   * that the noise does not separate. Absent for exact ones: nothing is measured twice.
   */
  repeats?: number | undefined;
  /** What a rehearsal of this search foresees, if the caller has made one. */
  foreseen?: Rehearsal;
  signal?: AbortSignal | undefined;
}

/** A search without a model: what it takes. */
export interface Rehearsal {
  /** Times that the evaluator is asked, for one pattern or for the candidates of a step together; at most. */
  passes: number;
  steps: number;
  /** Patterns measured, the model's own included. */
  evaluations: number;
  /** Body layers of one sequence, by `LayerCost`, at most. */
  layers: number;
  /** How many of them ran before each step, by its number; 0 is the baseline. */
  layersBefore: readonly number[];
  /** Whether it takes as much whatever the losses are. */
  exact: boolean;
  /** Whether every pattern of the wanted sizes is measured. */
  isOptimum: boolean;
}

export interface Candidate {
  /** The layers that are flipped, ascending: one, unless a strategy flips several at once. */
  flipped: readonly number[];
  loss: number;
  /** Paired, against the search's start. */
  changeError: number | null;
  /** Sequences that it was measured on. */
  sequences: number;
  /** Not one of the best, shown before all sequences were measured. */
  dropped: boolean;
}

/** How far the step's choice is ahead of the next best. */
export interface Lead extends Estimate {
  /** Layer of the next best, the lowest if there are several. */
  over: number;
  /** Whether the lead is within noise: less than twice its standard error; null if that is not known. */
  withinNoise: boolean | null;
}

/** Of a step over a noisy evaluator, whose candidates are layers; and of a result, beside other patterns of its size. */
export interface Repetition<T = number> {
  /** Standard error of one measurement of the step's base, or of the result, because it repeats differently; nats per token. */
  noise: number;
  /** Rounds in which candidates were measured again. */
  rounds: number;
  /** Those that the noise still did not separate from the choice; empty if it is decided. */
  undecided: T[];
}

/** One change of the pattern. Whether a flipped layer became Shared or Full is its letter in `pattern`. */
export interface SearchStep {
  /** The pattern after the step. */
  pattern: Pattern;
  /** Ascending. */
  flipped: readonly number[];
  evaluation: PatternEvaluation;
  /** Everything that was tried from the same pattern, ascending. */
  candidates: Candidate[];
  /** Undefined for a step with one candidate. */
  lead?: Lead | undefined;
  repetition?: Repetition | undefined;
}

/** The best pattern found with a number of Full layers, and how it came about, first step to last. */
export interface Found {
  pattern: Pattern;
  evaluation: PatternEvaluation;
  steps: readonly SearchStep[];
  /** The strategy, or the stage of it, that committed it. */
  foundBy: string;
  /** Over a noisy evaluator, of a search's results: other patterns of the size that noise does not separate from it. */
  repetition?: Repetition<Pattern>;
}

/** What the strategy `refine` found beyond greedy, for one number of Full layers. */
export interface Refinement {
  retain: number;
  /** Greedy's pattern and loss. */
  firstPattern: Pattern;
  firstLoss: number;
  /** Paired: greedy's loss less that of the pattern found; 0 if that is greedy's. */
  gain: Estimate;
  /** The stage that found it. */
  foundBy: string;
  /** Patterns that were measured beyond greedy's, of all sizes together. */
  tried: number;
}

/** Of the pattern found for one number of Full layers. */
export interface Stability {
  retain: number;
  resamples: number;
  /** Share of the resamples, each of as many sequences as there are, that choose the search's pattern. */
  agreement: number;
  /** For each layer, the share of those in which it is Full. */
  full: readonly number[];
  /** The fewest sequences with which 9 of 10 choose the search's pattern; undefined if `tried`, the most, are too few. */
  needed: number | undefined;
  tried: number;
}

/** Why nothing can be said: candidates were dropped, which resamples might have chosen, or there is too little to resample. */
export type StabilityUnknown = "race" | "bound" | "strategy" | "few sequences";

export interface SearchResult {
  baseline: PatternEvaluation;
  /** Of each target, the most Full layers first; every one measured on all sequences. */
  patterns: Found[];
  /** The best pattern of every size that the search committed, the most Full layers first. */
  frontier: Found[];
  /** Patterns that were measured, on some sequences or all, replayed ones included. */
  evaluations: number;
  /** The same in sequences. */
  sequenceEvaluations: number;
  /** Body layers of one sequence that this takes, by `LayerCost`. */
  layers: number;
  refinements?: Refinement[] | undefined;
  /** Every pattern of the wanted sizes was measured. */
  isOptimum?: true;
  /** Of each pattern with fewer Full layers than the model, or why it is not known; absent unless it was asked for. */
  stability?: readonly Stability[] | StabilityUnknown;
}

/**
 * How far the search is: `done` and `total` count patterns, however often the evaluator was asked for one. A race and a
 * noisy evaluator ask again.
 */
interface Position {
  /** From 1; 0 is the baseline. */
  step: number;
  /** The pattern that is departed from. */
  from: Pattern;
  /** The lowest layer that differs from it; undefined for the baseline and other patterns to begin with. */
  layer: number | undefined;
  pattern: Pattern;
  /** Measured, on some sequences or all, this one included. */
  done: number;
  /** Foreseen by a rehearsal; it grows if the search turns out longer. */
  total: number;
}

export type SearchEvent =
  | { kind: "plan"; strategy: string; start: Pattern; targets: readonly number[]; foreseen: Rehearsal }
  | ({ kind: "evaluation started"; sequences: readonly number[] } & Position)
  /** `layers`: what it runs, in body layers of one sequence, by `LayerCost`. */
  | ({ kind: "evaluation done"; evaluation: PatternEvaluation; replayed: boolean; layers: number } & Position)
  | ({ kind: "step committed"; step: number; steps: number; done: number; total: number } & SearchStep)
  /** What was searched for, before it is looked at how sure it is: that takes seconds, and may be interrupted. */
  | { kind: "found"; result: SearchResult }
  | { kind: "done"; result: SearchResult };
