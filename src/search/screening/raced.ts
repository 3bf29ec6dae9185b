/**
 * Racing (Maron and Moore 1997; Birattari et al. 2002): candidates are measured on a growing number of sequences, and one
 * is dropped once a paired t test says that it is worse than the best. Not exact: with probability about `alpha` a test drops
 * what would have won. Differences between sequences cancel in pairs, so that a few sequences separate most candidates.
 */

import { studentQuantile } from "../../base/distributions.ts";
import type { Estimate } from "../../base/estimate.ts";
import { TIE_NATS } from "../../base/near-tie.ts";
import { Random } from "../../base/random.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { chooseBestOnes } from "../ties.ts";
import type { Screening, Trials } from "../trials.ts";
import { blocksOf } from "./screening.ts";

export interface RaceSettings {
  /** Error rate of one test. */
  alpha: number;
  /** Sequences that a round adds. */
  block: number;
  /** Of the order in which sequences come. */
  seed: number;
}

export function raced({ alpha, block, seed }: RaceSettings): Screening {
  return {
    name: "raced",
    callsEach: (sequences) => Math.ceil(sequences / block),
    async *run(trials, from, patterns, keep) {
      const { losses } = trials;
      // Documents of a kind stand side by side in many sets: a block should be a sample.
      const order = Random.forPart(seed, "race").shuffled(losses.sequences);
      let alive = [...patterns];
      for (const sequences of blocksOf(order, block)) {
        // The first round always runs: a step reports a loss for each candidate.
        if (alive.length <= keep && alive.every((pattern) => losses.isMeasured(pattern))) break;
        const requests = alive.map((pattern) => ({ pattern, base: from, sequences }));
        yield* trials.evaluateAll(requests, from);
        alive = survivors(trials, alive, keep, alpha);
      }
      const left = new Set(alive);
      return patterns.map((pattern) => ({
        pattern,
        evaluation: losses.evaluation(pattern),
        dropped: !left.has(pattern),
      }));
    },
  };
}

/** Those that are not worse than the last of the `keep` best. */
function survivors({ losses }: Trials, alive: readonly Pattern[], keep: number, alpha: number): Pattern[] {
  const tried = alive.map((pattern) => ({ pattern, evaluation: losses.evaluation(pattern) }));
  const best = chooseBestOnes(tried, keep).map(({ pattern }) => pattern);
  const last = best.at(-1);
  if (last === undefined) return [];
  return alive.filter((pattern) => best.includes(pattern) || !isWorse(losses.difference(pattern, last), alpha));
}

/** Whether a paired difference is above a tie and beyond chance. */
export function isWorse({ mean, standardError, sequences }: Estimate, alpha: number): boolean {
  if (mean <= TIE_NATS || standardError === null) return false;
  // The upper quantile by symmetry: 1 - alpha would round.
  return mean > -studentQuantile(alpha, sequences - 1) * standardError;
}
