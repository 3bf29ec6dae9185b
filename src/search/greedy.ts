/**
 * The paper's training-free search (section 3.1): backward elimination over the loss. From the model's own pattern on,
 * each step tries every Full layer but the first as Shared and commits the one that costs least. Steps are nested, so
 * one run holds the pattern of every retention on its way.
 *
 * It knows no model: `evaluate` gives losses, a memo of earlier ones makes a resumed run a replay.
 */
import { RuntimeFailure, UsageError } from "../base/errors.ts";
import { fullLayers, type Pattern, withShared } from "../pattern/pattern.ts";

/**
 * Losses closer than this are ties, and the lowest layer wins. Kernels and thread counts flip near ties of the top-k,
 * which moves a loss by up to about 1e-5: a smaller difference is not the model's, and a choice by it would differ
 * from machine to machine. Any fixed order would do; the lowest index is what the reference search in Python takes.
 */
export const TIE_NATS = 1e-5;

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

export interface GreedyOptions<E extends Evaluation> {
  /** The model's own pattern; its Shared layers have no indexer and stay Shared. */
  start: Pattern;
  /** Full layers at the end. */
  retain: number;
  evaluate: Evaluate<E>;
  /** Evaluations of an earlier run by pattern: these are taken as they are. */
  memo?: ReadonlyMap<string, E>;
  signal?: AbortSignal;
}

export interface Candidate {
  layer: number;
  loss: number;
}

export interface GreedyStep<E extends Evaluation> {
  /** The pattern after the step. */
  pattern: Pattern;
  flippedLayer: number;
  evaluation: E;
  /** Every layer that was tried, ascending. */
  candidates: Candidate[];
}

export interface GreedyResult<E extends Evaluation> {
  pattern: Pattern;
  baseline: E;
  final: E;
  steps: GreedyStep<E>[];
  /** Patterns that were evaluated, replayed ones included. */
  evaluations: number;
}

/** How far the search is; `done` and `total` count evaluations. */
interface Position {
  /** From 1; 0 is the baseline. */
  step: number;
  /** The layer that is tried; undefined for the baseline. */
  layer: number | undefined;
  pattern: Pattern;
  done: number;
  total: number;
}

export type SearchEvent<E extends Evaluation> =
  | { kind: "plan"; start: Pattern; retain: number; steps: number; evaluations: number }
  | ({ kind: "evaluation started" } & Position)
  | ({ kind: "evaluation done"; evaluation: E; replayed: boolean } & Position)
  | ({ kind: "step committed"; step: number; steps: number } & Omit<GreedyStep<E>, "step">)
  | { kind: "done"; result: GreedyResult<E> };

/** Evaluations of a search: the baseline, and in each step one for every layer that is still free. */
export function countEvaluations(start: Pattern, retain: number): number {
  const full = fullLayers(start).length;
  let total = 1;
  for (let left = full; left > retain; left--) total += left - 1;
  return total;
}

/**
 * Runs the search. The consumer sees each evaluation before the next one begins, so that it can write it down.
 * @throws UsageError where the model has fewer Full layers than should remain
 * @throws RuntimeFailure for a loss that is not a number
 */
export async function* searchGreedily<E extends Evaluation>(options: GreedyOptions<E>): AsyncGenerator<SearchEvent<E>> {
  const { start, retain, memo, signal } = options;
  const steps = fullLayers(start).length - retain;
  if (steps < 0) {
    throw new UsageError(
      `--retain asks for ${retain} Full layers, the model itself has only ${fullLayers(start).length}`,
      {
        hint: `its own pattern is ${start}`,
      },
    );
  }
  const total = countEvaluations(start, retain);
  let done = 0;
  yield { kind: "plan", start, retain, steps, evaluations: total };

  async function* evaluate(
    pattern: Pattern,
    base: Pattern,
    step: number,
    layer?: number,
  ): AsyncGenerator<SearchEvent<E>, E> {
    signal?.throwIfAborted();
    yield { kind: "evaluation started", step, layer, pattern, done, total };
    const known = memo?.get(pattern);
    const evaluation = known ?? (await options.evaluate(pattern, signal === undefined ? { base } : { base, signal }));
    if (!Number.isFinite(evaluation.loss))
      throw new RuntimeFailure(`Pattern ${pattern} has the loss ${evaluation.loss}`);
    done++;
    yield { kind: "evaluation done", step, layer, pattern, done, total, evaluation, replayed: known !== undefined };
    return evaluation;
  }

  const baseline = yield* evaluate(start, start, 0);
  const committed: GreedyStep<E>[] = [];
  let current = { pattern: start, evaluation: baseline };
  for (let step = 1; step <= steps; step++) {
    const tried: { layer: number; pattern: Pattern; evaluation: E }[] = [];
    for (const layer of fullLayers(current.pattern).slice(1)) {
      const pattern = withShared(current.pattern, layer);
      tried.push({ layer, pattern, evaluation: yield* evaluate(pattern, current.pattern, step, layer) });
    }
    const best = chooseBest(tried);
    const candidates = tried.map(({ layer, evaluation }) => ({ layer, loss: evaluation.loss }));
    const commit = { pattern: best.pattern, flippedLayer: best.layer, evaluation: best.evaluation, candidates };
    committed.push(commit);
    yield { kind: "step committed", ...commit, step, steps };
    current = best;
  }
  const { pattern, evaluation: final } = current;
  yield { kind: "done", result: { pattern, baseline, final, steps: committed, evaluations: done } };
}

/** The lowest layer among those within `TIE_NATS` of the lowest loss; `tried` is in ascending order of layers. */
function chooseBest<T extends { evaluation: Evaluation }>(tried: readonly T[]): T {
  const lowest = Math.min(...tried.map(({ evaluation }) => evaluation.loss));
  const best = tried.find(({ evaluation }) => evaluation.loss <= lowest + TIE_NATS);
  if (best === undefined) throw new Error("a step without candidates");
  return best;
}
