/**
 * Greedy, and a search for something better than its results: greedy is often optimal and sometimes far from it, and only
 * trying shows which. Layers of each wanted pattern are exchanged, and a beam of width 2 walks forward, which fails elsewhere
 * than greedy does; all of it within twice the layers that greedy runs, or `budget` times. Where that is enough to measure every
 * pattern of the wanted sizes, as it is with few indexers, that is done instead. It needs to know that a candidate loses, not by how
 * much: a few sequences are enough for most (`challenge.ts`). Costs are counted from patterns and bases, not from clocks: a
 * resumed search and one on another machine try the same patterns. docs/log.md has what the parts and their shares were
 * chosen by.
 */
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import type { Found, Refinement, SearchEvent } from "../events.ts";
import { challenge, challengeBlock } from "../screening/challenge.ts";
import { type RaceSettings, raced } from "../screening/raced.ts";
import { repeated } from "../screening/repeated.ts";
import { sparsest, tryFrom } from "../step.ts";
import type { Strategy } from "../strategy.ts";
import { chooseBestOnes } from "../ties.ts";
import { BudgetSpent, type Trials } from "../trials.ts";
import { exchangeLayers } from "./exchange.ts";
import { isEveryWithin, tryEvery } from "./exhaustive.ts";
import { eliminate } from "./greedy.ts";

/** When a stage has to stop, as a share of what may be run beyond greedy. */
const EXCHANGES_END = 0.5;
const PAIRS_END = 0.7;
/** The layers that it may run, as a multiple of those that greedy runs if it measures every candidate whole. */
const BUDGET = 2;

const WIDTH = 2;
/** The beam only has to find promising patterns; they are measured whole before they count. */
const RACE: RaceSettings = { alpha: 0.1, block: 2, seed: 0 };

export const refine: Strategy = {
  name: "refine",
  summary: "greedy, then exchanges of layers and a forward beam, for as much work again",
  options: [
    {
      name: "budget",
      summary: "layers that refine may run, greedy's included, in multiples of greedy's",
      initial: BUDGET,
      isNamedIfSet: true,
    },
  ],
  mayRace: false,
  isNested: false,
  isAdaptive: true,
  resampledBy: "greedy steps",
  asksFor: challengeBlock,
  async *run(trials, start, { budget = BUDGET }) {
    const { targets, frontier } = trials;
    trials.foundBy = "greedy";
    const walked = yield* eliminate(trials, start, Math.min(...targets));
    const known = trials.evaluations;
    const first = targets.flatMap((retain) => frontier.at(retain) ?? []);
    const cost = greedyLayers(walked, start, trials.losses.sequences.length);
    const until = (share: number): number => (1 + share * (budget - 1)) * cost;

    // One more step, however many patterns it commits.
    trials.step++;
    if (isEveryWithin(trials, until(1) - trials.cost.total)) {
      trials.foundBy = "exhaustive";
      for (const retain of targets) yield* tryEvery(trials, start, retain);
      trials.isOptimum = true;
    } else {
      yield* within(trials, until(EXCHANGES_END), "exchange", exchangeLayers(trials, walked, 1));
      yield* within(trials, until(PAIRS_END), "exchange", exchangeLayers(trials, walked, 2));
      yield* within(trials, until(1), "forward beam", beamForward(trials, Math.max(...targets)));
      yield* within(trials, until(1), "exchange", exchangeLayers(trials, walked, 1));
      yield* within(trials, until(1), "exchange", exchangeLayers(trials, walked, 2));
      trials.budget = Number.POSITIVE_INFINITY;
    }
    trials.refinements = first.map((found) => refinement(trials, found, trials.evaluations - known));
  },
};

/** Body layers of one sequence that greedy runs for these steps, each candidate on all sequences. */
function greedyLayers({ steps }: Found, { pattern }: Found, sequences: number): number {
  const layers = pattern.length;
  const candidates = steps.flatMap((step) => step.candidates.map(({ flipped: [layer = 0] }) => layers - layer));
  return sequences * candidates.reduce((sum, each) => sum + each, layers);
}

/** Runs a stage as far as the budget allows. */
async function* within(
  trials: Trials,
  budget: number,
  foundBy: string,
  stage: AsyncGenerator<SearchEvent, void>,
): AsyncGenerator<SearchEvent, void> {
  trials.budget = budget;
  trials.foundBy = foundBy;
  try {
    yield* stage;
  } catch (error) {
    if (!(error instanceof BudgetSpent)) throw error;
  }
}

/** A beam from the sparsest pattern up, whose best ones challenge what is known of their size. */
async function* beamForward(trials: Trials, most: number): AsyncGenerator<SearchEvent, void> {
  const { space, frontier, losses } = trials;
  const race = trials.repeats === undefined ? raced(RACE) : repeated(raced(RACE));
  // A race tests means.
  const screening = losses.across === "mean" ? race : trials.screening;
  let beam: Found[] = [yield* sparsest(trials)];
  for (let size = space.pinned + 1; size <= most; size++) {
    const children = new Map<Pattern, Found>();
    for (const parent of beam) {
      const flips = space.flips(parent.pattern, "forward", most);
      for (const child of yield* tryFrom(trials, parent, flips, WIDTH, screening)) {
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
      yield* trials.commit({ ...child, evaluation: losses.evaluation(child.pattern) });
    }
  }
}

function refinement({ frontier, losses }: Trials, first: Found, tried: number): Refinement {
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
    foundBy: found.foundBy,
    tried,
  };
}
