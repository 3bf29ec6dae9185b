/**
 * What every search strategy takes, says while it works, and gives at the end. Strategies differ in the patterns that
 * they ask for, not in this: journal, progress and views follow any of them.
 */
import type { Pattern } from "../pattern/pattern.ts";

/** What the search has to know of a measurement. */
export interface Evaluation {
  /** Nats per token. */
  loss: number;
}

/** `base` is the pattern that this one departs from: an evaluator may keep its states and run only what differs. */
export type Evaluate<E extends Evaluation> = (
  pattern: Pattern,
  options: { base: Pattern; signal?: AbortSignal },
) => Promise<E>;

export interface SearchOptions<E extends Evaluation> {
  /** The model's own pattern; its Shared layers have no indexer and stay Shared. */
  start: Pattern;
  /** Full layers at the end. */
  retain: number;
  evaluate: Evaluate<E>;
  /** Evaluations of an earlier run by pattern, of whatever strategy: these are taken as they are. */
  memo?: ReadonlyMap<string, E>;
  signal?: AbortSignal;
}

export interface Candidate {
  /** The layer that is flipped; the lowest one where a strategy flips several at once. */
  layer: number;
  /** The other flipped layers, ascending. */
  others?: readonly number[];
  loss: number;
}

/** One change of the pattern. Whether a flipped layer became Shared or Full is its letter in `pattern`. */
export interface SearchStep<E extends Evaluation> {
  /** The pattern after the step. */
  pattern: Pattern;
  flippedLayer: number;
  otherLayers?: readonly number[];
  evaluation: E;
  /** Everything that was tried from the same pattern, ascending. */
  candidates: Candidate[];
}

/** What `look-again` found beyond its first, greedy, look. */
export interface SecondLook {
  /** Greedy's pattern and loss. */
  firstPattern: Pattern;
  firstLoss: number;
  /** Nats per token below greedy's loss; often 0. */
  gain: number;
  /** Patterns evaluated after greedy. */
  evaluations: number;
  /** Whether the forward beam fitted into the budget; where not, there were swaps only. */
  forward: boolean;
  /** Whether swaps came to their end before the budget did. */
  finished: boolean;
}

export interface SearchResult<E extends Evaluation> {
  pattern: Pattern;
  baseline: E;
  final: E;
  /** How `pattern` came about, first to last: those of the way that led there, not of others that were followed. */
  steps: SearchStep<E>[];
  /** Patterns that were evaluated, replayed ones included. */
  evaluations: number;
  secondLook?: SecondLook;
}

/** How far the search is; `done` and `total` count evaluations. */
interface Position {
  /** From 1; 0 is the baseline. */
  step: number;
  /** The pattern that is departed from. */
  from: Pattern;
  /** The lowest layer that differs from it; undefined for the baseline and other patterns to begin with. */
  layer: number | undefined;
  pattern: Pattern;
  done: number;
  /** Exact for greedy. Else what is foreseen: it shrinks where patterns recur and grows where a refinement succeeds. */
  total: number;
}

export type SearchEvent<E extends Evaluation> =
  | { kind: "plan"; strategy: string; start: Pattern; retain: number; steps: number; evaluations: number }
  | ({ kind: "evaluation started" } & Position)
  | ({ kind: "evaluation done"; evaluation: E; replayed: boolean } & Position)
  | ({ kind: "step committed"; step: number; steps: number; done: number; total: number } & SearchStep<E>)
  | { kind: "done"; result: SearchResult<E> };
