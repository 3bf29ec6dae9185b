/**
 * For evaluators whose measurements repeat only up to noise (a serving engine): every step measures its base again, takes the
 * noise from that, and measures candidates that are closer together again until they are told apart or `most` rounds are
 * over. What is undecided then ties, and the lowest layer wins, so that noise does not choose. The noise is measured at each
 * step because it grows with what a pattern loses.
 */
import type { Pattern } from "../pattern/pattern.ts";
import type { Selection, Tried } from "./selection.ts";
import { differences } from "./space.ts";
import type { Trials } from "./trials.ts";

export function repeated(inner: Selection, most: number): Selection {
  return {
    name: inner.name,
    callsEach: (sequences) => inner.callsEach(sequences),
    async *run(trials, step, from, patterns, keep) {
      yield* trials.again(step, from, from);
      trials.noise = trials.losses.noise(from);
      const tried = yield* inner.run(trials, step, from, patterns, keep);
      const alive = tried.filter(({ dropped }) => !dropped).map(({ pattern }) => pattern);
      let rounds = 0;
      let rivals = undecided(trials, alive, keep);
      while (rivals.length > keep && rounds < most) {
        rounds++;
        for (const pattern of rivals) yield* trials.again(step, pattern, from);
        rivals = undecided(trials, rivals, keep);
      }
      trials.repetition = {
        noise: trials.noise,
        rounds,
        undecided: rivals.length > keep ? rivals.map((pattern) => differences(from, pattern)[0] ?? 0) : [],
      };
      return tried.map((one): Tried => ({ ...one, evaluation: trials.losses.evaluation(one.pattern) }));
    },
  };
}

/** Those that the noise does not tell from the last of the `keep` best, and the best themselves. */
function undecided(trials: Trials, patterns: readonly Pattern[], keep: number): Pattern[] {
  if (trials.noise === 0) return [];
  const loss = (pattern: Pattern): number => trials.losses.evaluation(pattern).loss;
  const last = patterns.toSorted((left, right) => loss(left) - loss(right))[keep - 1];
  if (last === undefined) return [];
  return patterns.filter((pattern) => loss(pattern) - loss(last) <= trials.margin(pattern, last));
}
