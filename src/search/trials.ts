/**
 * What strategies share: evaluating a pattern at most once (a pattern of an earlier run is replayed from the memo), the
 * events about it, the tie rule, and what the work costs in layers.
 */
import { RuntimeFailure, UsageError } from "../base/errors.ts";
import { firstDifference, fullLayers, type Pattern } from "../pattern/pattern.ts";
import type { Candidate, Evaluate, Evaluation, SearchEvent, SearchOptions, SearchStep, SecondLook } from "./events.ts";

/**
 * Losses closer than this are ties, and the lowest layer wins. Kernels and thread counts flip near ties of the top-k,
 * which moves a loss by up to about 1e-5: a smaller difference is not the model's, and a choice by it would differ
 * from machine to machine. Any fixed order would do; the lowest index is what the reference search in Python takes.
 */
export const TIE_NATS = 1e-5;

/** A pattern with its loss and the steps that led to it. */
export interface Found<E extends Evaluation> {
  pattern: Pattern;
  evaluation: E;
  steps: readonly SearchStep<E>[];
  secondLook?: SecondLook;
}

export type Stage<E extends Evaluation> = AsyncGenerator<SearchEvent<E>, Found<E>>;

/** A strategy for one model and target: how much there is to do, and doing it from the measured start. */
export interface SearchPlan {
  steps: number;
  /** Evaluations foreseen, the baseline included. */
  evaluations: number;
  run<E extends Evaluation>(trials: Trials<E>, start: Found<E>): Stage<E>;
}

export class Trials<E extends Evaluation> {
  readonly start: Pattern;
  readonly retain: number;
  done = 0;
  /** Body layers that the evaluations so far take, replayed ones as if they had run: a resumed search decides alike. */
  cost = 0;
  /** What `cost` may become; `affords` asks. */
  budget = Number.POSITIVE_INFINITY;
  /** Steps of the stages before the one at work. */
  stepsBefore = 0;
  /** Evaluations foreseen for the stages after it. */
  evaluationsAfter = 0;
  readonly #steps: number;
  readonly #evaluate: Evaluate<E>;
  readonly #memo: ReadonlyMap<string, E> | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #known = new Map<Pattern, E>();
  #left: number;
  #base: Pattern | undefined;

  constructor({ start, retain, evaluate, memo, signal }: SearchOptions<E>, plan: SearchPlan) {
    this.start = start;
    this.retain = retain;
    this.#evaluate = evaluate;
    this.#memo = memo;
    this.#signal = signal;
    this.#steps = plan.steps;
    this.#left = plan.evaluations;
  }

  /** Evaluations that the stage at work foresees from here on. */
  foresee(evaluations: number): void {
    this.#left = evaluations + this.evaluationsAfter;
  }

  /**
   * The evaluation of a pattern. One that this run knows already passes without an event.
   * @param from the pattern that the step departs from
   * @param base whose states the evaluator reuses; usually `from`
   * @throws RuntimeFailure for a loss that is not a number
   */
  async *evaluate(step: number, pattern: Pattern, from: Pattern, base = from): AsyncGenerator<SearchEvent<E>, E> {
    const signal = this.#signal;
    signal?.throwIfAborted();
    const known = this.#known.get(pattern);
    if (known !== undefined) {
      this.#left = Math.max(0, this.#left - 1);
      return known;
    }
    this.#left = Math.max(1, this.#left);
    const layer = pattern === from ? undefined : firstDifference(pattern, from);
    const about = { step: this.stepsBefore + step, from, layer, pattern };
    yield { kind: "evaluation started", ...about, done: this.done, total: this.total };
    this.cost += this.price(pattern, base);
    this.#base = base;
    const replayed = this.#memo?.get(pattern);
    const evaluation = replayed ?? (await this.#evaluate(pattern, signal === undefined ? { base } : { base, signal }));
    if (!Number.isFinite(evaluation.loss))
      throw new RuntimeFailure(`Pattern ${pattern} has the loss ${evaluation.loss}`);
    this.#known.set(pattern, evaluation);
    this.done++;
    this.#left--;
    const replay = replayed !== undefined;
    yield { kind: "evaluation done", ...about, done: this.done, total: this.total, evaluation, replayed: replay };
    return evaluation;
  }

  /** The event of a step that is taken. */
  committed(step: number, taken: SearchStep<E>): SearchEvent<E> {
    const position = { step: this.stepsBefore + step, steps: this.#steps, done: this.done, total: this.total };
    return { kind: "step committed", ...taken, ...position };
  }

  get total(): number {
    return this.done + this.#left;
  }

  /** Body layers that an evaluation runs: a new base once from where it leaves the old one, then the pattern from its base. */
  price(pattern: Pattern, base: Pattern): number {
    if (this.#known.has(pattern)) return 0;
    const old = this.#base;
    const rebase = base.length - (old === undefined ? 0 : firstDifference(base, old));
    return rebase + pattern.length - firstDifference(pattern, base);
  }

  affords(pattern: Pattern, base: Pattern): boolean {
    return this.cost + this.price(pattern, base) <= this.budget;
  }
}

/** Runs a plan. The consumer sees each evaluation before the next one begins, so that it can write it down. */
export async function* runPlan<E extends Evaluation>(
  strategy: string,
  plan: SearchPlan,
  options: SearchOptions<E>,
): AsyncGenerator<SearchEvent<E>> {
  const { start, retain } = options;
  const trials = new Trials(options, plan);
  yield { kind: "plan", strategy, start, retain, steps: plan.steps, evaluations: plan.evaluations };
  const baseline = yield* trials.evaluate(0, start, start);
  const found = yield* plan.run(trials, { pattern: start, evaluation: baseline, steps: [] });
  const { pattern, evaluation: final, steps, secondLook } = found;
  const result = { pattern, baseline, final, steps: [...steps], evaluations: trials.done };
  yield { kind: "done", result: secondLook === undefined ? result : { ...result, secondLook } };
}

/**
 * The first among those within `TIE_NATS` of the lowest loss; `tried` is in ascending order of layers.
 */
export function chooseBest<T extends { evaluation: Evaluation }>(tried: readonly T[]): T {
  const lowest = tried.reduce((least, { evaluation }) => Math.min(least, evaluation.loss), Number.POSITIVE_INFINITY);
  const best = tried.find(({ evaluation }) => evaluation.loss <= lowest + TIE_NATS);
  if (best === undefined) throw new Error("a step without candidates");
  return best;
}

/** Whether the new loss is lower by more than a tie. */
export function improves(candidate: Evaluation, known: Evaluation): boolean {
  return candidate.loss < known.loss - TIE_NATS;
}

/** A step without what else was tried. */
export type Flip<E extends Evaluation> = Omit<SearchStep<E>, "candidates">;

/** What differs between two patterns, as a step. */
export function flip<E extends Evaluation>(from: Pattern, pattern: Pattern, evaluation: E): Flip<E> {
  const [flippedLayer = 0, ...otherLayers] = differences(from, pattern);
  const step = { pattern, flippedLayer, evaluation };
  return otherLayers.length === 0 ? step : { ...step, otherLayers };
}

export function candidate({ flippedLayer, otherLayers, evaluation }: Flip<Evaluation>): Candidate {
  const flipped = { layer: flippedLayer, loss: evaluation.loss };
  return otherLayers === undefined ? flipped : { ...flipped, others: otherLayers };
}

/** Layers at which two patterns differ, ascending. */
export function differences(left: Pattern, right: Pattern): number[] {
  return [...left].flatMap((letter, layer) => (letter === right[layer] ? [] : [layer]));
}

/**
 * How many Full layers the model has beyond the target.
 * @throws UsageError where it has fewer than should remain
 */
export function requireRetainable(start: Pattern, retain: number): number {
  const steps = fullLayers(start).length - retain;
  if (steps < 0) {
    throw new UsageError(
      `--retain asks for ${retain} Full layers, the model itself has only ${fullLayers(start).length}`,
      { hint: `its own pattern is ${start}` },
    );
  }
  return steps;
}
