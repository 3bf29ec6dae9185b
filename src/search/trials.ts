/**
 * What strategies share: measuring a pattern on a sequence at most once (losses of an earlier run are replayed), the
 * events about it, what the work costs in layers, and the best pattern of each size so far.
 */
import { RuntimeFailure } from "../base/errors.ts";
import { TIE_NATS } from "../base/near-tie.ts";
import { firstDifference, fullLayers, type Pattern } from "../pattern/pattern.ts";
import { LayerCost } from "./cost.ts";
import type {
  Evaluate,
  Found,
  PatternRequest,
  Repetition,
  SearchEvent,
  SearchOptions,
  SearchStep,
  SecondLook,
} from "./events.ts";
import { Frontier } from "./frontier.ts";
import { type Evaluation, type KnownLosses, LossTable, type SequenceLoss } from "./losses.ts";
import { contest } from "./screening/repeated.ts";
import type { Selection } from "./screening/selection.ts";
import { requireDifferences, requireSignal } from "./signal.ts";
import type { PatternSpace } from "./space.ts";

/** A strategy for one space and targets: how much there is to do, and doing it from the measured start. */
export interface SearchPlan {
  steps: number;
  /** Evaluations foreseen, the baseline included. */
  evaluations: number;
  run(trials: Trials, start: Found): AsyncGenerator<SearchEvent, unknown>;
}

/**
 * Differences below so many standard errors are noise. Three, because many candidates are compared, some of them several
 * times, with a noise that is itself measured on few sequences.
 */
const NOISE_ERRORS = 3;

/** How losses of a repeated measurement are known, beside those of the first. */
export function repetitionKey(pattern: string, repeat: number): string {
  return `${pattern}#${repeat}`;
}

/** Tells a stage that works on a budget that there is no more; nothing is wrong. */
export class BudgetSpent extends Error {}

export class Trials {
  readonly space: PatternSpace;
  readonly targets: readonly number[];
  readonly losses: LossTable;
  readonly frontier = new Frontier();
  /** How steps tell their best candidates. */
  readonly selection: Selection;
  /** What commits, for the frontier. */
  by = "";
  done = 0;
  sequenceEvaluations = 0;
  /** What the work so far costs; replayed evaluations as if they had run, so that a resumed search decides alike. */
  readonly cost = new LayerCost();
  /** What it may come to. */
  budget = Number.POSITIVE_INFINITY;
  /** Steps of the stages before the one at work. */
  stepsBefore = 0;
  /** Evaluations foreseen for the stages after it. */
  evaluationsAfter = 0;
  secondLooks: SecondLook[] | undefined;
  /** Of one measurement at the step at work; 0 for exact evaluators. */
  noise = 0;
  /** What the step at work has measured again. */
  repetition: Repetition | undefined;
  /** Rounds in which a noisy evaluator is asked again for what noise does not tell apart; undefined for an exact one. */
  readonly repeats: number | undefined;
  readonly #steps: number;
  readonly #evaluate: Evaluate;
  readonly #known: KnownLosses | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #patterns = new Set<Pattern>();
  #left: number;

  constructor(options: SearchOptions, plan: SearchPlan, selection: Selection) {
    this.space = options.space;
    this.targets = options.targets;
    this.losses = new LossTable(options.sequences, options.space.start);
    this.selection = selection;
    this.repeats = options.repeats;
    this.#evaluate = options.evaluate;
    this.#known = options.known;
    this.#signal = options.signal;
    this.#steps = plan.steps;
    this.#left = plan.evaluations;
  }

  /** Patterns measured so far, the start first. */
  get measured(): readonly Pattern[] {
    return [...this.#patterns];
  }

  /** How many they are. */
  get evaluations(): number {
    return this.#patterns.size;
  }

  get total(): number {
    return this.done + this.#left;
  }

  /** Evaluations that the stage at work foresees from here on. */
  foresee(evaluations: number): void {
    this.#left = evaluations + this.evaluationsAfter;
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
    step: number,
    pattern: Pattern,
    from: Pattern,
    { base = from, sequences = this.losses.sequences }: { base?: Pattern; sequences?: readonly number[] } = {},
  ): AsyncGenerator<SearchEvent, Evaluation> {
    const evaluations = yield* this.evaluateAll(step, [{ pattern, base, sequences }], from);
    return evaluations[0] as Evaluation;
  }

  /**
   * The evaluations of patterns that are wanted together, in their order: an evaluator may run them side by side.
   * @param from the pattern that the step departs from
   * @throws as `evaluate` does: BudgetSpent after those that the budget allows
   */
  async *evaluateAll(
    step: number,
    patterns: readonly PatternRequest[],
    from: Pattern,
  ): AsyncGenerator<SearchEvent, Evaluation[]> {
    const requests = patterns
      .map((request) => ({ ...request, sequences: this.losses.missing(request.pattern, request.sequences) }))
      .filter(({ sequences }) => sequences.length > 0);
    const affordable = requests.slice(0, this.cost.affordable(requests, this.budget));
    const within = new Map(affordable.map((request) => [request.pattern, request]));
    const measured = this.#measure(affordable);
    const open = new Set(requests.map(({ pattern }) => pattern));
    const evaluations: Evaluation[] = [];
    try {
      for (const { pattern, base } of patterns) {
        this.#signal?.throwIfAborted();
        if (!open.has(pattern)) {
          this.#left = Math.max(0, this.#left - 1);
          evaluations.push(this.losses.evaluation(pattern));
          continue;
        }
        const request = within.get(pattern);
        if (request === undefined) throw new BudgetSpent();
        this.#left = Math.max(1, this.#left);
        const layer = pattern === from ? undefined : firstDifference(pattern, from);
        const about = { step: this.stepsBefore + step, from, layer, pattern };
        const { sequences } = request;
        yield { kind: "evaluation started", ...about, sequences, done: this.done, total: this.total };
        const isFresh = (await measured.next()).value === true;
        this.#patterns.add(pattern);
        this.sequenceEvaluations += sequences.length;
        this.done++;
        this.#left--;
        const evaluation = this.losses.evaluation(pattern);
        this.cost.spend(pattern, base, sequences, evaluation.loss);
        const replayed = !isFresh;
        yield { kind: "evaluation done", ...about, done: this.done, total: this.total, evaluation, replayed };
        evaluations.push(evaluation);
      }
    } finally {
      await measured.return(undefined);
    }
    return evaluations;
  }

  /**
   * Measures once more what is known of a pattern, and takes the mean.
   * @param from the pattern that the step departs from
   */
  async *again(step: number, pattern: Pattern, from: Pattern): AsyncGenerator<SearchEvent, void> {
    const signal = this.#signal;
    signal?.throwIfAborted();
    const sequences = this.losses.measuredSequences(pattern);
    const repeat = this.losses.measurements(pattern);
    const layer = pattern === from ? undefined : firstDifference(pattern, from);
    const about = { step: this.stepsBefore + step, from, layer, pattern };
    this.#left = Math.max(1, this.#left);
    yield { kind: "evaluation started", ...about, sequences, done: this.done, total: this.total };
    const known = this.#known?.get(repetitionKey(pattern, repeat));
    const missing = sequences.filter((index) => known?.has(index) !== true);
    const fresh = missing.length === 0 ? [] : await this.#repeat({ pattern, sequences: missing, base: from }, repeat);
    for (const index of sequences) {
      const loss = known?.get(index) ?? fresh[missing.indexOf(index)];
      if (loss === undefined || !Number.isFinite(loss.loss)) {
        throw new RuntimeFailure(`Pattern ${pattern} has the loss ${loss?.loss} on sequence ${index}`);
      }
      this.losses.addAgain(pattern, index, loss);
    }
    this.sequenceEvaluations += sequences.length;
    this.done++;
    const evaluation = this.losses.evaluation(pattern);
    yield {
      kind: "evaluation done",
      ...about,
      done: this.done,
      total: this.total,
      evaluation,
      replayed: missing.length === 0,
    };
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

  /** Takes a step: tells of it, and offers its pattern to the frontier. */
  *commit(step: number, found: Found): Generator<SearchEvent, void> {
    const taken = found.steps.at(-1);
    if (this.space.allows(found.pattern)) {
      const known = this.frontier.at(fullLayers(found.pattern).length);
      // Measured again since it was offered.
      if (known !== undefined) this.frontier.refresh({ ...known, evaluation: this.losses.evaluation(known.pattern) });
      this.frontier.offer(found);
    }
    if (taken !== undefined) yield this.#committed(step, taken);
  }

  /** Takes note of the losses of each request in turn; says of each whether any sequence had to be run for it. */
  async *#measure(requests: readonly PatternRequest[]): AsyncGenerator<boolean, undefined> {
    const open = requests.map((request) => {
      const known = this.#known?.get(request.pattern);
      return { ...request, sequences: request.sequences.filter((index) => known?.has(index) !== true) };
    });
    const base = open[0]?.base;
    const asked = open.filter(({ sequences }) => sequences.length > 0);
    const context = { keep: () => (base === undefined ? [] : this.cost.leaders(base)), ...this.#interruption };
    const measured = asked.length === 0 ? undefined : this.#evaluate(asked, context)[Symbol.asyncIterator]();
    try {
      for (const [place, { pattern, sequences }] of requests.entries()) {
        const known = this.#known?.get(pattern);
        const missing = open[place]?.sequences ?? [];
        const fresh: readonly SequenceLoss[] | undefined = missing.length === 0 ? [] : (await measured?.next())?.value;
        for (const index of sequences) {
          const loss = known?.get(index) ?? fresh?.[missing.indexOf(index)];
          if (loss === undefined) throw new Error(`the evaluator gave no loss of sequence ${index}`);
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

  async #repeat(request: PatternRequest, repeat: number): Promise<readonly SequenceLoss[]> {
    for await (const losses of this.#evaluate([request], { keep: () => [], repeat, ...this.#interruption }))
      return losses;
    return [];
  }

  get #interruption(): { signal?: AbortSignal } {
    return this.#signal === undefined ? {} : { signal: this.#signal };
  }

  #committed(step: number, taken: SearchStep): SearchEvent {
    const position = { step: this.stepsBefore + step, steps: this.#steps, done: this.done, total: this.total };
    return { kind: "step committed", ...taken, ...position };
  }
}

/** Runs a plan. The consumer sees each evaluation before the next one begins, so that it can write it down. */
export async function* runPlan(
  strategy: string,
  plan: SearchPlan,
  options: SearchOptions,
  selection: Selection,
): AsyncGenerator<SearchEvent> {
  const { space, targets } = options;
  const trials = new Trials(options, plan, selection);
  trials.by = strategy;
  const { start } = space;
  yield { kind: "plan", strategy, start, targets, steps: plan.steps, evaluations: plan.evaluations };
  const baseline = yield* trials.evaluate(0, start, start);
  const from: Found = { pattern: start, evaluation: baseline, steps: [], by: "model" };
  trials.frontier.offer(from);
  let isFirst = true;
  for await (const event of plan.run(trials, from)) {
    yield event;
    if (event.kind !== "step committed" || !isFirst) continue;
    isFirst = false;
    yield* requireSignal(trials, event);
  }
  requireDifferences(trials);
  trials.foresee(0);
  const patterns: Found[] = [];
  for (const retain of [...new Set(targets)].sort((left, right) => right - left)) {
    const found = trials.frontier.at(retain);
    if (found === undefined) throw new Error(`the search committed no pattern with ${retain} Full layers`);
    // A race may have told it before all sequences were measured.
    const evaluation = yield* trials.evaluate(plan.steps, found.pattern, found.pattern);
    const settled = { ...found, evaluation };
    const best = trials.repeats === undefined ? settled : yield* contest(trials, plan.steps, settled);
    patterns.push(best);
    trials.frontier.refresh(best);
  }
  const { evaluations, sequenceEvaluations, secondLooks } = trials;
  const result = {
    baseline,
    patterns,
    frontier: trials.frontier.all,
    evaluations,
    sequenceEvaluations,
    layers: trials.cost.total,
  };
  yield { kind: "done", result: secondLooks === undefined ? result : { ...result, secondLooks } };
}
