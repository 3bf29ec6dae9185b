/**
 * Greedy, and a second look at its results: greedy is often optimal and sometimes far off, and only looking again tells
 * which. The second look exchanges layers of each wanted pattern and walks forward with a beam of width 2, which fails
 * elsewhere than greedy does; all of it within twice the layers that greedy runs. It need not know what losers lose, so
 * that a few sequences are enough for most of them (`challenge.ts`). Costs are counted from patterns and bases, not from
 * clocks: a resumed search and one on another machine look at the same patterns. docs/log.md has what the parts and their
 * shares were chosen by.
 */
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import type { Found, SearchEvent, SecondLook } from "../events.ts";
import { challenge } from "../screening/challenge.ts";
import { type RaceSettings, raced } from "../screening/raced.ts";
import { repeated } from "../screening/repeated.ts";
import type { Selection } from "../screening/selection.ts";
import type { PatternSpace } from "../space.ts";
import { sparsest, tryFrom } from "../step.ts";
import { chooseBestOnes } from "../ties.ts";
import { BudgetSpent, type SearchPlan, type Trials } from "../trials.ts";
import { exchangeLayers } from "./exchange.ts";
import { eliminate, planGreedy } from "./greedy.ts";

/** Where a stage has to stop, as a multiple of the layers that greedy runs when it measures every candidate whole. */
const EXCHANGES_END = 1.5;
const PAIRS_END = 1.7;
const END = 2;

const WIDTH = 2;
/** The beam only has to find promising patterns; they are measured whole before they count. */
const RACE: RaceSettings = { alpha: 0.1, block: 2, seed: 0 };

export function planLookAgain(
  space: PatternSpace,
  targets: readonly number[],
  selection: Selection,
  sequences: number,
): SearchPlan {
  const fewest = Math.min(...targets);
  const greedy = planGreedy(space, fewest, selection, sequences);
  return {
    steps: greedy.steps + 1,
    // How far the budget goes depends on the losses; about as far as greedy went.
    evaluations: 2 * greedy.evaluations,
    async *run(trials, from) {
      trials.evaluationsAfter += greedy.evaluations;
      trials.by = "greedy";
      const walked = yield* eliminate(trials, from, fewest);
      trials.evaluationsAfter -= greedy.evaluations;
      const known = trials.evaluations;
      const first = targets.flatMap((retain) => trials.frontier.at(retain) ?? []);
      const cost = layersOf(walked, from, sequences);

      trials.stepsBefore += greedy.steps;
      yield* within(trials, EXCHANGES_END * cost, "exchange", exchangeLayers(trials, walked, 1));
      yield* within(trials, PAIRS_END * cost, "exchange", exchangeLayers(trials, walked, 2));
      yield* within(trials, END * cost, "forward beam", lookForward(trials, Math.max(...targets)));
      yield* within(trials, END * cost, "exchange", exchangeLayers(trials, walked, 1));
      yield* within(trials, END * cost, "exchange", exchangeLayers(trials, walked, 2));
      trials.budget = Number.POSITIVE_INFINITY;
      trials.secondLooks = first.map((found) => secondLook(trials, found, trials.evaluations - known));
    },
  };
}

/** Body layers of one sequence that greedy runs for these steps, each candidate on all sequences. */
function layersOf({ steps }: Found, { pattern }: Found, sequences: number): number {
  const layers = pattern.length;
  const candidates = steps.flatMap((step) => step.candidates.map(({ layer }) => layers - layer));
  return sequences * candidates.reduce((sum, each) => sum + each, layers);
}

/** Runs a stage as far as the budget goes. */
async function* within(
  trials: Trials,
  budget: number,
  by: string,
  stage: AsyncGenerator<SearchEvent, void>,
): AsyncGenerator<SearchEvent, void> {
  trials.budget = budget;
  trials.by = by;
  try {
    yield* stage;
  } catch (error) {
    if (!(error instanceof BudgetSpent)) throw error;
  }
}

/** A beam from the sparsest pattern up, whose best ones challenge what is known of their size. */
async function* lookForward(trials: Trials, most: number): AsyncGenerator<SearchEvent, void> {
  const { space, frontier, losses } = trials;
  const race = trials.repeats === undefined ? raced(RACE) : repeated(raced(RACE));
  let beam: Found[] = [yield* sparsest(trials)];
  for (let size = space.pinned + 1; size <= most; size++) {
    const children = new Map<Pattern, Found>();
    for (const parent of beam) {
      const flips = space.flips(parent.pattern, "forward", most);
      for (const child of yield* tryFrom(trials, 1, parent, flips, WIDTH, race)) {
        if (!children.has(child.pattern)) children.set(child.pattern, child);
      }
    }
    if (children.size === 0) return;
    beam = chooseBestOnes([...children.values()], WIDTH, trials.tie);
    for (const child of beam) {
      const best = frontier.at(size);
      if (best === undefined || best.pattern === child.pattern || !space.allows(child.pattern)) continue;
      const parent = child.steps.at(-2)?.pattern ?? space.sparsest;
      if (!(yield* challenge(trials, child.pattern, parent, best))) continue;
      yield* trials.commit(1, { ...child, evaluation: losses.evaluation(child.pattern) });
    }
  }
}

function secondLook({ frontier, losses }: Trials, first: Found, tried: number): SecondLook {
  const retain = fullLayers(first.pattern).length;
  const found = frontier.at(retain) ?? first;
  const confirmed = found.pattern === first.pattern;
  return {
    retain,
    firstPattern: first.pattern,
    firstLoss: first.evaluation.loss,
    gain: confirmed
      ? { mean: 0, standardError: 0, sequences: losses.sequences.length }
      : losses.difference(first.pattern, found.pattern),
    by: found.by,
    tried,
  };
}
