/** How a search stands, folded from its events: what a person who watches it wants to know. */
import type { Pattern } from "../pattern/pattern.ts";
import type { Candidate, Evaluation, SearchEvent } from "./events.ts";
import { differences } from "./trials.ts";

export interface SearchProgress {
  /** The pattern that the current step departs from. */
  pattern: Pattern;
  /** From 1; 0 while the baseline is measured. */
  step: number;
  steps: number;
  evaluations: { done: number; total: number; replayed: number };
  baselineLoss: number | undefined;
  /** Loss of `pattern`. */
  loss: number | undefined;
  /** Tried in the current step so far, ascending by layer. */
  candidates: Candidate[];
  /** The layer that is being tried. */
  trying: number | undefined;
  /** Layers that are tried together with it. */
  tryingOthers?: readonly number[];
  /** Lowest loss among the candidates. */
  best: Candidate | undefined;
  elapsedSeconds: number;
  /** Undefined before the first measured evaluation. */
  etaSeconds: number | undefined;
}

/** Evaluations that the estimate looks back on: enough to be calm, few enough to follow a busy machine. */
const RECENT = 20;

/** Follows a search. Times are given by the caller, so that a test needs no clock. */
export class ProgressTracker {
  readonly #startedAt: number;
  readonly #recent: { seconds: number; work: number }[] = [];
  readonly #measured = { seconds: 0, evaluations: 0 };
  /** By pattern, for a search that goes on from another pattern than the last committed one. */
  readonly #losses = new Map<Pattern, number>();
  #strategy = "";
  #evaluationStartedAt = 0;
  #state: SearchProgress | undefined;

  constructor(nowSeconds: number) {
    this.#startedAt = nowSeconds;
  }

  /** The state after an event; undefined before the plan. */
  advance(event: SearchEvent<Evaluation>, nowSeconds: number): SearchProgress | undefined {
    const state = this.#state;
    if (event.kind === "plan") {
      this.#strategy = event.strategy;
      this.#state = emptyProgress(event);
    } else if (state !== undefined) {
      this.#state = this.#next(state, event, nowSeconds);
    }
    return this.at(nowSeconds);
  }

  /** The state at a later moment. */
  at(nowSeconds: number): SearchProgress | undefined {
    const state = this.#state;
    if (state === undefined) return undefined;
    return { ...state, elapsedSeconds: nowSeconds - this.#startedAt, etaSeconds: this.#estimate(state) };
  }

  #next(state: SearchProgress, event: Exclude<SearchEvent<Evaluation>, { kind: "plan" }>, now: number): SearchProgress {
    switch (event.kind) {
      case "evaluation started":
        this.#evaluationStartedAt = now;
        return { ...this.#departing(state, event.from), step: event.step, ...flippedLayers(event) };
      case "evaluation done": {
        const { evaluation, layer, replayed, done, total } = event;
        if (!replayed) this.#record(now, workOf(state.pattern, layer));
        this.#losses.set(event.pattern, evaluation.loss);
        const counts = { done, total, replayed: state.evaluations.replayed + (replayed ? 1 : 0) };
        const { tryingOthers, ...others } = state;
        const next = { ...others, evaluations: counts, trying: undefined };
        if (event.step === 0) return { ...next, baselineLoss: evaluation.loss, loss: evaluation.loss };
        if (layer === undefined) return { ...next, loss: evaluation.loss };
        const flipped = { layer, loss: evaluation.loss };
        const candidate = tryingOthers === undefined ? flipped : { ...flipped, others: tryingOthers };
        const best = state.best === undefined || candidate.loss < state.best.loss ? candidate : state.best;
        return { ...next, candidates: [...state.candidates, candidate], best };
      }
      case "step committed":
        return {
          ...state,
          evaluations: { ...state.evaluations, total: event.total },
          pattern: event.pattern,
          loss: event.evaluation.loss,
          candidates: [],
          best: undefined,
        };
      case "done":
        // What was foreseen and did not have to be done.
        return { ...state, evaluations: { ...state.evaluations, total: state.evaluations.done } };
    }
  }

  /** Strategies that follow several patterns at once go to and fro between them. */
  #departing(state: SearchProgress, from: Pattern): SearchProgress {
    if (from === state.pattern) return state;
    return { ...state, pattern: from, loss: this.#losses.get(from), candidates: [], best: undefined };
  }

  #record(now: number, work: number): void {
    const seconds = now - this.#evaluationStartedAt;
    this.#measured.seconds += seconds;
    this.#measured.evaluations++;
    this.#recent.push({ seconds, work });
    if (this.#recent.length > RECENT) this.#recent.shift();
  }

  /**
   * Seconds left. A candidate runs the layers from its flip up, so a flip near the top is cheap and its time says
   * little about one near the bottom: work is counted in layers. Later steps are taken to look like this one. That is
   * greedy; what other strategies will try is not known, and a mean over all that was measured has to do.
   */
  #estimate(state: SearchProgress): number | undefined {
    if (this.#recent.length === 0) return undefined;
    const left = state.evaluations.total - state.evaluations.done;
    if (this.#strategy !== "greedy") return (this.#measured.seconds / this.#measured.evaluations) * left;
    const total = (pick: "seconds" | "work"): number => this.#recent.reduce((sum, one) => sum + one[pick], 0);
    const free = [...state.pattern].flatMap((letter, layer) => (letter === "F" && layer > 0 ? [layer] : []));
    const tried = new Set(state.candidates.map(({ layer }) => layer));
    const here = free.filter((layer) => !tried.has(layer));
    const meanWork = free.length === 0 ? 0 : sumWork(state.pattern, free) / free.length;
    const work = sumWork(state.pattern, here.slice(0, left)) + Math.max(0, left - here.length) * meanWork;
    return (total("seconds") / total("work")) * work;
  }
}

function emptyProgress(plan: { start: Pattern; steps: number; evaluations: number }): SearchProgress {
  return {
    pattern: plan.start,
    step: 0,
    steps: plan.steps,
    evaluations: { done: 0, total: plan.evaluations, replayed: 0 },
    baselineLoss: undefined,
    loss: undefined,
    candidates: [],
    trying: undefined,
    best: undefined,
    elapsedSeconds: 0,
    etaSeconds: undefined,
  };
}

function flippedLayers({ from, layer, pattern }: { from: Pattern; layer: number | undefined; pattern: Pattern }) {
  const [, ...others] = layer === undefined ? [] : differences(from, pattern);
  return others.length === 0 ? { trying: layer } : { trying: layer, tryingOthers: others };
}

/** Layers that an evaluation runs; all of them for the baseline. */
function workOf(pattern: Pattern, layer: number | undefined): number {
  return pattern.length - (layer ?? 0);
}

function sumWork(pattern: Pattern, layers: readonly number[]): number {
  return layers.reduce((sum, layer) => sum + workOf(pattern, layer), 0);
}
