/**
 * What strategies share: measuring a pattern on a sequence at most once (losses of an earlier run are replayed), the
 * events about it, what the work costs in layers, and the best pattern of each size so far.
 */
import { RuntimeFailure } from "../base/errors.ts";
import type { WeightedLoss } from "../base/estimate.ts";
import { TIE_NATS } from "../base/near-tie.ts";
import { firstDifference, fullLayers, type Pattern } from "../pattern/pattern.ts";
import { LayerCost } from "./cost.ts";
import type {
  Evaluate,
  Found,
  MeasureRequest,
  Refinement,
  Rehearsal,
  Repetition,
  SearchEvent,
  SearchOptions,
} from "./events.ts";
import { Frontier } from "./frontier.ts";
import { type Across, LossTable, type PatternEvaluation, type Recall } from "./losses.ts";
import type { PatternSpace } from "./space.ts";

/**
 * Differences below so many standard errors are noise. Three, because many candidates are compared, some of them several
 * times, with a noise that is itself measured on few sequences.
 */
const NOISE_ERRORS = 3;

/** Tells a stage that works on a budget that there is no more; nothing is wrong. */
export class BudgetSpent extends Error {}

/** A pattern that a step has measured. */
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

export class Trials {
  readonly space: PatternSpace;
  readonly targets: readonly number[];
  readonly losses: LossTable;
  readonly frontier = new Frontier();
  /** How steps find their best candidates. */
  readonly screening: Screening;
  /** Name of the strategy, or the stage of it, whose patterns are being committed. */
  foundBy = "";
  /** The step at work, from 1; 0 is the baseline. */
  step = 0;
  sequenceEvaluations = 0;
  /** What the work so far costs; replayed evaluations as if they had run, so that a resumed search decides the same. */
  readonly cost = new LayerCost();
  /** What it may cost in all. */
  budget = Number.POSITIVE_INFINITY;
  refinements: Refinement[] | undefined;
  /** Every pattern of the wanted sizes was measured: what was found is the optimum on these sequences. */
  isOptimum = false;
  /** Of one measurement at the step at work; 0 for exact evaluators. */
  noise = 0;
  /** What the step at work has measured again. */
  repetition: Repetition | undefined;
  /** Rounds in which a noisy evaluator is asked again for what noise hides; undefined for an exact one. */
  readonly repeats: number | undefined;
  readonly #foreseen: Pick<Rehearsal, "steps" | "evaluations">;
  readonly #evaluate: Evaluate;
  readonly #recall: Recall;
  readonly #signal: AbortSignal | undefined;
  readonly #patterns = new Set<Pattern>();

  constructor(
    options: SearchOptions & { across?: Across | undefined },
    screening: Screening,
    foreseen: Pick<Rehearsal, "steps" | "evaluations">,
  ) {
    this.space = options.space;
    // With every indexer there is one pattern, and it is measured before the first step.
    this.targets = options.targets.filter((retain) => retain < options.space.size);
    this.losses = new LossTable(options.sequences, options.space.start, options);
    this.screening = screening;
    this.repeats = options.repeats;
    this.#evaluate = options.evaluate;
    this.#recall = options.recall ?? (() => undefined);
    this.#signal = options.signal;
    this.#foreseen = foreseen;
  }

  /** Patterns measured so far, the start first. */
  get measured(): readonly Pattern[] {
    return [...this.#patterns];
  }

  /** How many they are. */
  get evaluations(): number {
    return this.#patterns.size;
  }

  /**
   * The evaluation of a pattern on some sequences, and on those that were measured before. What this run knows already
   * passes without an event.
   * @param from the pattern that the step departs from
   * @param base whose states the evaluator reuses; usually `from`
   * @param sequences all by default
   * @throws RuntimeFailure for a loss that is not a number
   * @throws BudgetSpent before an evaluation that the budget does not allow
   */
  async *evaluate(
    pattern: Pattern,
    from: Pattern,
    { base = from, sequences = this.losses.sequences }: { base?: Pattern; sequences?: readonly number[] } = {},
  ): AsyncGenerator<SearchEvent, PatternEvaluation> {
    const [evaluation] = yield* this.evaluateAll([{ pattern, base, sequences }], from);
    return evaluation as PatternEvaluation;
  }

  /**
   * The evaluations of patterns that are wanted together, in their order: an evaluator may run them side by side.
   * @param from the pattern that the step departs from
   * @throws as `evaluate` does: BudgetSpent after those that the budget allows
   */
  async *evaluateAll(
    patterns: readonly MeasureRequest[],
    from: Pattern,
  ): AsyncGenerator<SearchEvent, PatternEvaluation[]> {
    const requests = patterns
      .map((request) => ({ ...request, sequences: this.losses.missing(request.pattern, request.sequences) }))
      .filter(({ sequences }) => sequences.length > 0);
    const affordable = requests.slice(0, this.cost.affordable(requests, this.budget));
    const within = new Map(affordable.map((request) => [request.pattern, request]));
    const measured = this.#measure(affordable);
    const open = new Set(requests.map(({ pattern }) => pattern));
    const evaluations: PatternEvaluation[] = [];
    try {
      for (const { pattern, base } of patterns) {
        this.#signal?.throwIfAborted();
        if (!open.has(pattern)) {
          evaluations.push(this.losses.evaluation(pattern));
          continue;
        }
        const request = within.get(pattern);
        if (request === undefined) throw new BudgetSpent();
        const { sequences } = request;
        yield this.#started(pattern, from, sequences);
        const isFresh = (await measured.next()).value === true;
        this.#patterns.add(pattern);
        const layers = this.cost.price(pattern, base, sequences);
        const evaluation = this.losses.evaluation(pattern);
        this.cost.spend(pattern, base, sequences, evaluation.loss);
        yield this.#done(pattern, from, sequences, { layers, replayed: !isFresh });
        evaluations.push(evaluation);
      }
    } finally {
      await measured.return(undefined);
    }
    return evaluations;
  }

  /**
   * Measures patterns on all sequences.
   * @param baseOf whose states the evaluator reuses
   */
  async *tryAll(
    patterns: readonly Pattern[],
    from: Pattern,
    baseOf = (_: Pattern) => from,
  ): AsyncGenerator<SearchEvent, Tried[]> {
    const { sequences } = this.losses;
    const requests = patterns.map((pattern) => ({ pattern, base: baseOf(pattern), sequences }));
    const evaluations = yield* this.evaluateAll(requests, from);
    return evaluations.map((evaluation, place) => ({
      pattern: patterns[place] as Pattern,
      evaluation,
      dropped: false,
    }));
  }

  /**
   * Measures once more what is known of a pattern, and takes the mean.
   * @param from the pattern that the step departs from
   */
  async *again(pattern: Pattern, from: Pattern): AsyncGenerator<SearchEvent, void> {
    this.#signal?.throwIfAborted();
    const sequences = this.losses.measuredSequences(pattern);
    const repeat = this.losses.measurements(pattern);
    yield this.#started(pattern, from, sequences);
    const known = sequences.map((index) => this.#recall(pattern, index, repeat));
    const missing = sequences.filter((_, place) => known[place] === undefined);
    const fresh = missing.length === 0 ? [] : await this.#repeat({ pattern, sequences: missing, base: from }, repeat);
    for (const [place, index] of sequences.entries()) {
      const loss = known[place] ?? fresh[missing.indexOf(index)];
      if (loss === undefined || !Number.isFinite(loss.loss)) {
        throw new RuntimeFailure(`Pattern ${pattern} has the loss ${loss?.loss} on sequence ${index}`);
      }
      this.losses.addAgain(pattern, index, loss);
    }
    const layers = this.cost.price(pattern, from, sequences);
    yield this.#done(pattern, from, sequences, { layers, replayed: missing.length === 0 });
  }

  /** What two losses may differ by and still be equal: a tie, or what the noise of both makes of their difference. */
  margin(left: Pattern, right: Pattern): number {
    if (this.noise === 0) return TIE_NATS;
    const variance = (pattern: Pattern): number =>
      Math.max(this.noise, this.losses.noise(pattern)) ** 2 / Math.max(1, this.losses.measurements(pattern));
    return Math.max(TIE_NATS, NOISE_ERRORS * Math.sqrt(variance(left) + variance(right)));
  }

  /** `margin` for what has a pattern. */
  readonly tie = (one: { pattern: Pattern }, other: { pattern: Pattern }): number =>
    this.margin(one.pattern, other.pattern);

  /** Takes a step: reports it, and offers its pattern to the frontier. */
  *commit(found: Found): Generator<SearchEvent, void> {
    const taken = found.steps.at(-1);
    if (this.space.allows(found.pattern)) {
      const known = this.frontier.at(fullLayers(found.pattern).length);
      // Measured again since it was offered.
      if (known !== undefined) this.frontier.refresh({ ...known, evaluation: this.losses.evaluation(known.pattern) });
      this.frontier.offer(found);
    }
    if (taken === undefined) return;
    const steps = Math.max(this.step, this.#foreseen.steps);
    yield { kind: "step committed", ...taken, step: this.step, steps, ...this.#position(taken.pattern) };
  }

  #started(pattern: Pattern, from: Pattern, sequences: readonly number[]): SearchEvent {
    return { kind: "evaluation started", ...this.#about(pattern, from), sequences };
  }

  #done(
    pattern: Pattern,
    from: Pattern,
    sequences: readonly number[],
    what: { layers: number; replayed: boolean },
  ): SearchEvent {
    this.sequenceEvaluations += sequences.length;
    const evaluation = this.losses.evaluation(pattern);
    return { kind: "evaluation done", ...this.#about(pattern, from), evaluation, ...what };
  }

  #about(pattern: Pattern, from: Pattern) {
    const layer = pattern === from ? undefined : firstDifference(pattern, from);
    return { step: this.step, from, layer, pattern, ...this.#position(pattern) };
  }

  #position(pattern: Pattern): { done: number; total: number } {
    const done = this.evaluations + (this.#patterns.has(pattern) ? 0 : 1);
    return { done, total: Math.max(done, this.#foreseen.evaluations) };
  }

  /** Notes the losses of each request in turn; yields for each whether any sequence had to be run for it. */
  async *#measure(requests: readonly MeasureRequest[]): AsyncGenerator<boolean, undefined> {
    const open = requests.map((request) => ({
      ...request,
      sequences: request.sequences.filter((index) => this.#recall(request.pattern, index) === undefined),
    }));
    const base = open[0]?.base;
    const asked = open.filter(({ sequences }) => sequences.length > 0);
    const context = { keep: () => (base === undefined ? [] : this.cost.leaders(base)), signal: this.#signal };
    const measured = asked.length === 0 ? undefined : this.#evaluate(asked, context)[Symbol.asyncIterator]();
    try {
      for (const [place, { pattern, sequences }] of requests.entries()) {
        const missing = open[place]?.sequences ?? [];
        const fresh: readonly WeightedLoss[] | undefined = missing.length === 0 ? [] : (await measured?.next())?.value;
        for (const index of sequences) {
          const asked = missing.indexOf(index);
          const loss = asked < 0 ? this.#recall(pattern, index) : fresh?.[asked];
          if (loss === undefined) throw new Error(`the evaluator returned no loss of sequence ${index}`);
          if (!Number.isFinite(loss.loss)) {
            throw new RuntimeFailure(`Pattern ${pattern} has the loss ${loss.loss} on sequence ${index}`);
          }
          this.losses.add(pattern, index, loss);
        }
        yield missing.length > 0;
      }
    } finally {
      await measured?.return?.();
    }
    return undefined;
  }

  async #repeat(request: MeasureRequest, repeat: number): Promise<readonly WeightedLoss[]> {
    const again = { keep: () => [], repeat, signal: this.#signal };
    for await (const losses of this.#evaluate([request], again)) return losses;
    return [];
  }
}
