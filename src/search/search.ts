/** Runs a strategy: on losses that are measured, or, to foresee what that takes, on losses that cost nothing. */
import { GateFailure, UsageError } from "../base/errors.ts";
import { TIE_NATS } from "../base/near-tie.ts";
import { type Pattern, sourceLayer } from "../pattern/pattern.ts";
import {
  type Evaluate,
  type Found,
  oneByOne,
  type Rehearsal,
  type SearchEvent,
  type SearchOptions,
  type SearchResult,
  type SearchStep,
} from "./events.ts";
import { bounded } from "./screening/bounded.ts";
import { raced } from "./screening/raced.ts";
import { contest, repeated } from "./screening/repeated.ts";
import { complete } from "./screening/screening.ts";
import type { PatternSpace } from "./space.ts";
import { stabilityOf } from "./stability.ts";
import { strategies } from "./strategies/strategies.ts";
import { type SearchMethod, strategySettings } from "./strategy.ts";
import { type Screening, Trials } from "./trials.ts";

/**
 * Runs a strategy. The consumer sees each evaluation before the next one begins, so that it can write it down.
 * @throws UsageError as `requireFeasible` does
 * @throws RuntimeFailure for a loss that is not a number
 */
export async function* search(method: SearchMethod, options: SearchOptions): AsyncGenerator<SearchEvent, void> {
  const { space, targets } = options;
  const foreseen = options.foreseen ?? (await rehearse(method, options));
  yield { kind: "plan", strategy: method.strategy.name, start: space.start, targets, foreseen };
  const trials = new Trials(
    { ...options, across: method.across },
    withRepeats(screeningOf(method), options.repeats),
    foreseen,
  );
  const result = yield* walk(method, trials, targets);
  yield { kind: "found", result };
  const stability =
    options.stability === true
      ? await stabilityOf(trials, method.strategy, result.patterns, options.signal)
      : undefined;
  yield { kind: "done", result: stability === undefined ? result : { ...result, stability } };
}

/**
 * Refuses what cannot be searched for, before anything is opened for it.
 * @throws UsageError for a target that is out of reach, an exhaustive search that is too long, or a race that cannot be run
 */
export function requireFeasible(
  { strategy, race, across }: SearchMethod,
  space: PatternSpace,
  targets: readonly number[],
): void {
  for (const retain of targets) space.requireReachable(retain);
  if (race !== undefined && !strategy.mayRace) {
    const racing = strategies.filter(({ mayRace }) => mayRace).map(({ name }) => name);
    throw new UsageError(`--race goes with ${racing.join(", ")}, not with --strategy ${strategy.name}`);
  }
  if (race !== undefined && across === "worst") {
    throw new UsageError("--race does not go with --across worst: its tests are of a mean over all sequences", {
      hint: "leave --race out, which --effort quick sets as well",
    });
  }
  strategy.requireFeasible?.(
    space,
    targets.filter((retain) => retain < space.size),
  );
}

/**
 * What a search takes: the strategy runs over losses that only know distances, each Shared layer costing how far it is from the
 * layer that it reads. Races and bounds spare what depends on the losses; they are taken to spare nothing.
 * @throws UsageError as `requireFeasible` does
 */
export async function rehearse(
  method: SearchMethod,
  { space, targets, sequences, repeats }: Pick<SearchOptions, "space" | "targets" | "sequences" | "repeats">,
): Promise<Rehearsal> {
  requireFeasible(method, space, targets);
  const screening = screeningOf(method);
  let screened = 0;
  let steps = 0;
  const counted: Screening = {
    ...complete,
    async *run(trials, from, patterns, keep) {
      screened += patterns.length;
      steps++;
      return yield* complete.run(trials, from, patterns, keep);
    },
  };
  const measure = oneByOne(async (pattern, asked) => {
    const loss = distances(pattern);
    return asked.map(() => ({ loss, tokens: 1 }));
  });
  let passes = 0;
  const evaluate: Evaluate = (requests, context) => {
    passes++;
    return measure(requests, context);
  };
  const options = { space, targets, sequences, evaluate, across: method.across, repeats };
  const trials = new Trials(options, withRepeats(counted, repeats), { steps: 0, evaluations: 0 });
  const work = walk(method, trials, targets);
  let layers = 0;
  const layersBefore: number[] = [];
  for (let next = await work.next(); next.done !== true; next = await work.next()) {
    if (next.value.kind !== "evaluation done") continue;
    layersBefore[next.value.step] ??= layers;
    layers += next.value.layers;
  }
  // A race asks for a block of all that are left, a bound for a block of one.
  const further = screening === bounded ? screened : steps;
  return {
    passes: passes + further * (screening.callsEach(sequences.length) - 1),
    steps: trials.step,
    evaluations: trials.evaluations,
    layers,
    isOptimum: trials.isOptimum,
    layersBefore,
    exact: !method.strategy.isAdaptive && screening === complete && repeats === undefined && !space.limitsRuns,
  };
}

function distances(pattern: Pattern): number {
  let sum = 0;
  for (let layer = 0; layer < pattern.length; layer++) sum += layer - sourceLayer(pattern, layer);
  return sum;
}

async function* walk(
  method: SearchMethod,
  trials: Trials,
  targets: readonly number[],
): AsyncGenerator<SearchEvent, SearchResult> {
  const { strategy } = method;
  const { start } = trials.space;
  trials.foundBy = strategy.name;
  const baseline = yield* trials.evaluate(start, start);
  const from: Found = { pattern: start, evaluation: baseline, steps: [], foundBy: "model" };
  trials.frontier.offer(from);
  if (trials.targets.length > 0) {
    let isFirst = true;
    for await (const event of strategy.run(trials, from, strategySettings(method))) {
      yield event;
      if (event.kind !== "step committed" || !isFirst) continue;
      isFirst = false;
      yield* requireSignal(trials, event);
    }
  }
  requireDifferences(trials);
  const patterns: Found[] = [];
  for (const retain of [...new Set(targets)].sort((left, right) => right - left)) {
    const found = trials.frontier.at(retain);
    if (found === undefined) throw new Error(`the search committed no pattern with ${retain} Full layers`);
    // A race may have decided before all sequences were measured.
    const evaluation = yield* trials.evaluate(found.pattern, found.pattern);
    const settled = { ...found, evaluation };
    const best = trials.repeats === undefined ? settled : yield* contest(trials, settled);
    patterns.push(best);
    trials.frontier.refresh(best);
  }
  const { evaluations, sequenceEvaluations, refinements } = trials;
  return {
    baseline,
    patterns,
    frontier: trials.frontier.all,
    evaluations,
    sequenceEvaluations,
    layers: trials.cost.total,
    refinements,
    ...(trials.isOptimum ? { isOptimum: true } : {}),
  };
}

/** Of so many sequences those that a search asks for at once, at least: fewer than all where candidates may be dropped early. */
export function sequencesAtOnce(method: SearchMethod, sequences: number): number {
  const byScreening = Math.ceil(sequences / screeningOf(method).callsEach(sequences));
  return Math.min(byScreening, method.strategy.asksFor?.(sequences) ?? sequences);
}

function screeningOf({ race, bounded: isBounded }: SearchMethod): Screening {
  if (race !== undefined) return raced(race);
  return isBounded === true ? bounded : complete;
}

function withRepeats(screening: Screening, repeats: number | undefined): Screening {
  return repeats === undefined ? screening : repeated(screening);
}

/**
 * After the first step: when all its candidates lose what the start loses, the sparsest pattern is measured, which differs
 * most from it. A search that lasts days is not to find out at its end.
 * @throws GateFailure if that loses nothing either
 */
async function* requireSignal(trials: Trials, { candidates }: SearchStep): AsyncGenerator<SearchEvent, void> {
  const { space } = trials;
  if (candidates.some(({ loss }) => !ties(trials, loss))) return;
  yield* trials.evaluate(space.sparsest, space.start);
  requireDifferences(trials);
}

/**
 * If losses on this text do not differ at all, the tie rule alone would choose, and any pattern would "win".
 * @throws GateFailure if all that was measured agrees within a tie
 */
function requireDifferences(trials: Trials): void {
  const { measured, losses } = trials;
  if (measured.length < 2 || measured.some((pattern) => !ties(trials, losses.evaluation(pattern).loss))) return;
  throw new GateFailure(
    `The losses of all ${measured.length} patterns that were measured agree within ${TIE_NATS} nats on these ${losses.sequences.length} sequences: ` +
      "there is nothing to choose by, and no pattern is written",
    { hint: "longer sequences (--sequence-length) and text that refers far back make indexers matter" },
  );
}

function ties({ losses, space }: Trials, loss: number): boolean {
  return Math.abs(loss - losses.evaluation(space.start).loss) <= TIE_NATS;
}
