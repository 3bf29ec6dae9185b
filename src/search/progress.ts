/** How a search stands, folded from its events: what a person who watches it wants to know. */

import { sum } from "../base/sum.ts";
import type { Pattern } from "../pattern/pattern.ts";
import { countFull } from "../pattern/pattern.ts";
import type { Candidate, Rehearsal, SearchEvent, SearchStep } from "./events.ts";
import { differences } from "./space.ts";

/** A committed step, for a plot. */
interface PathPoint {
  full: number;
  loss: number;
}

/** A committed step, for a list. */
interface AcceptedStep {
  /** The flipped layers, and what the first of them became. */
  flipped: readonly number[];
  letter: "F" | "S";
  loss: number;
}

/** The best pattern of a size that was committed. */
interface BestOfSize {
  pattern: Pattern;
  loss: number;
  /** Loss of the first one of that size. */
  firstLoss: number;
}

export interface SearchProgress {
  /** The pattern that the current step departs from. */
  pattern: Pattern;
  /** From 1; 0 while the baseline is measured. */
  step: number;
  steps: number;
  /** Measured, on some sequences or all; foreseen, at most or about; of the first, those that a journal knew all of. */
  patterns: { done: number; total: number; isExact: boolean; replayed: number };
  /** Body layers of one sequence, by `LayerCost`; the total is an estimate until the search has ended. */
  layers: { done: number; total: number };
  /** Sequences that the search judges by. */
  sequences: number;
  baselineLoss: number | undefined;
  /** Loss of `pattern`. */
  loss: number | undefined;
  /** Tried in the current step so far, in the order of their first measurement. */
  candidates: Candidate[];
  /** The layers that are being tried, together; none between two evaluations. */
  trying: readonly number[];
  /** Lowest loss among the candidates. */
  best: Candidate | undefined;
  /** Committed steps, in their order. */
  path: readonly PathPoint[];
  accepted: readonly AcceptedStep[];
  /** By their number of Full layers. */
  bests: ReadonlyMap<number, BestOfSize>;
  /** Wanted numbers of Full layers. */
  targets: readonly number[];
  /** The search has found what it was asked for, and departs from other patterns than the last one to find better ones. */
  isRefining: boolean;
  /** It is over, and looks whether other text would have led to the same patterns. */
  isResampling: boolean;
  elapsedSeconds: number;
  /** Undefined before the second measured evaluation: the first opens sessions, chooses kernels and takes memory as well. */
  etaSeconds: number | undefined;
}

/** Evaluations that the estimate looks back on: enough to be calm, few enough to follow a busy machine. */
const RECENT = 20;

/** Follows a search. Times are given by the caller, so that a test needs no clock. */
export class ProgressTracker {
  readonly #startedAt: number;
  readonly #recent: { seconds: number; layers: number }[] = [];
  /** By pattern, for a search that continues from another pattern than the last committed one. */
  readonly #losses = new Map<Pattern, number>();
  /** Whether a journal knew all that was asked of a pattern. */
  readonly #isReplayed = new Map<Pattern, boolean>();
  #evaluationStartedAt = 0;
  #isWarm = false;
  #foreseen: Pick<Rehearsal, "layers" | "layersBefore"> = { layers: 0, layersBefore: [] };
  /** Layers that had run before the current step. */
  #layersBefore = 0;
  #state: SearchProgress | undefined;

  constructor(nowSeconds: number) {
    this.#startedAt = nowSeconds;
  }

  /** The state after an event; undefined before the plan. */
  advance(event: SearchEvent, nowSeconds: number): SearchProgress | undefined {
    const state = this.#state;
    if (event.kind === "plan") {
      this.#foreseen = event.foreseen;
      this.#state = emptyProgress(event.start, event.foreseen, event.targets);
    } else if (state !== undefined) {
      this.#state = this.#next(state, event, nowSeconds);
    }
    return this.at(nowSeconds);
  }

  /** The state at a later moment. */
  at(nowSeconds: number): SearchProgress | undefined {
    const state = this.#state;
    if (state === undefined) return undefined;
    const left = this.#layersLeft(state);
    const ran = sum(this.#recent.map((one) => one.layers));
    const seconds = sum(this.#recent.map((one) => one.seconds));
    return {
      ...state,
      layers: { ...state.layers, total: state.layers.done + left },
      elapsedSeconds: nowSeconds - this.#startedAt,
      etaSeconds: ran === 0 ? undefined : (seconds / ran) * left,
    };
  }

  #next(state: SearchProgress, event: Exclude<SearchEvent, { kind: "plan" }>, now: number): SearchProgress {
    switch (event.kind) {
      case "evaluation started":
        this.#evaluationStartedAt = now;
        if (event.step !== state.step) this.#layersBefore = state.layers.done;
        return { ...this.#departing(state, event.from), step: event.step, trying: flippedLayers(event) };
      case "evaluation done": {
        const { evaluation, layer, replayed, done, total } = event;
        if (!replayed) this.#record(now, event.layers);
        this.#losses.set(event.pattern, evaluation.loss);
        const patterns = { ...state.patterns, done, total, replayed: this.#replayedAfter(event.pattern, replayed) };
        const layers = { ...state.layers, done: state.layers.done + event.layers };
        const next = { ...state, patterns, layers, trying: [] };
        if (event.step === 0) {
          const path = [{ full: countFull(event.pattern), loss: evaluation.loss }];
          return {
            ...next,
            path,
            bests: withBest(state.bests, event.pattern, evaluation.loss),
            baselineLoss: evaluation.loss,
            loss: evaluation.loss,
            sequences: evaluation.sequences,
          };
        }
        if (layer === undefined) return { ...next, loss: evaluation.loss };
        const { loss, changeError, sequences } = evaluation;
        const candidate = { flipped: flippedLayers(event), loss, changeError, sequences, dropped: false };
        // Measured further: what was known of it before is replaced.
        const candidates = [...state.candidates.filter((one) => !isSameFlip(one, candidate)), candidate];
        return { ...next, candidates, best: lowest(candidates) };
      }
      case "step committed":
        return {
          ...state,
          patterns: { ...state.patterns, total: event.total },
          pattern: event.pattern,
          path: [...state.path, { full: countFull(event.pattern), loss: event.evaluation.loss }],
          accepted: [...state.accepted, acceptedStep(event)],
          bests: withBest(state.bests, event.pattern, event.evaluation.loss),
          loss: event.evaluation.loss,
          candidates: [],
          best: undefined,
        };
      case "found":
      case "done":
        // What was foreseen and did not have to be done.
        this.#foreseen = { layers: 0, layersBefore: [] };
        return {
          ...state,
          patterns: { ...state.patterns, total: state.patterns.done, isExact: true },
          isResampling: event.kind === "found",
        };
    }
  }

  /** Strategies that follow several patterns at once go to and fro between them. */
  #departing(state: SearchProgress, from: Pattern): SearchProgress {
    if (from === state.pattern) return state;
    const isRefining = state.isRefining || state.targets.every((size) => state.bests.has(size));
    return { ...state, pattern: from, loss: this.#losses.get(from), candidates: [], best: undefined, isRefining };
  }

  /** How many patterns were taken from a journal, with this one. */
  #replayedAfter(pattern: Pattern, replayed: boolean): number {
    this.#isReplayed.set(pattern, replayed && this.#isReplayed.get(pattern) !== false);
    return [...this.#isReplayed.values()].filter((one) => one).length;
  }

  #record(now: number, layers: number): void {
    // What the first one did besides can be most of its time on a GPU.
    if (this.#isWarm) this.#recent.push({ seconds: now - this.#evaluationStartedAt, layers });
    this.#isWarm = true;
    if (this.#recent.length > RECENT) this.#recent.shift();
  }

  /**
   * Time left follows from this, not from evaluations: a candidate runs the layers from its flip up, so that a flip near the top is
   * cheap and its time says little about one near the bottom. Which flips are taken, and what a race or a bound spares,
   * decides how many layers the others run: what the rehearsal had left before this step is stretched by what the steps before
   * it took, of what they took in the rehearsal.
   */
  #layersLeft({ layers, step }: SearchProgress): number {
    const { layers: all, layersBefore } = this.#foreseen;
    const before = layersBefore[step] ?? 0;
    const stretch = before === 0 ? 1 : this.#layersBefore / before;
    const later = all - (layersBefore[step + 1] ?? all);
    const ofThisStep = Math.max(0, stretch * (all - before - later) - (layers.done - this.#layersBefore));
    return stretch * later + ofThisStep;
  }
}

function emptyProgress(start: Pattern, foreseen: Rehearsal, targets: readonly number[]): SearchProgress {
  return {
    pattern: start,
    step: 0,
    steps: foreseen.steps,
    patterns: { done: 0, total: foreseen.evaluations, isExact: foreseen.exact, replayed: 0 },
    layers: { done: 0, total: foreseen.layers },
    sequences: 0,
    path: [],
    accepted: [],
    bests: new Map(),
    targets,
    isRefining: false,
    isResampling: false,
    baselineLoss: undefined,
    loss: undefined,
    candidates: [],
    trying: [],
    best: undefined,
    elapsedSeconds: 0,
    etaSeconds: undefined,
  };
}

function flippedLayers({ from, layer, pattern }: { from: Pattern; layer: number | undefined; pattern: Pattern }) {
  return layer === undefined ? [] : differences(from, pattern);
}

function withBest(bests: SearchProgress["bests"], pattern: Pattern, loss: number): SearchProgress["bests"] {
  const size = countFull(pattern);
  const known = bests.get(size);
  if (known !== undefined && known.loss <= loss) return bests;
  return new Map(bests).set(size, { pattern, loss, firstLoss: known?.firstLoss ?? loss });
}

function acceptedStep({ pattern, flipped, evaluation }: SearchStep): AcceptedStep {
  const letter = pattern[flipped[0] ?? 0] === "S" ? "S" : "F";
  return { flipped, letter, loss: evaluation.loss };
}

/** Whether two candidates of one step flip the same layers. */
export function isSameFlip(left: Candidate, right: Candidate): boolean {
  return left.flipped.join() === right.flipped.join();
}

function lowest(candidates: readonly Candidate[]): Candidate | undefined {
  return candidates.reduce<Candidate | undefined>(
    (best, one) => (best === undefined || one.loss < best.loss ? one : best),
    undefined,
  );
}
