/**
 * For evaluators whose measurements repeat only up to noise (a serving engine): every step measures its base again, takes the
 * noise from that, and measures candidates that are closer together again until they are separated or `trials.repeats` rounds are
 * over. What is undecided then ties, and the lowest layer wins, so that noise does not choose. The noise is measured at each
 * step because it grows with what a pattern loses. At the end the result of each size goes through the same with every other
 * pattern of that size that was measured, whatever strategy found them.
 */
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import type { Found, Repetition, SearchEvent } from "../events.ts";
import { differences } from "../space.ts";
import { follow } from "../step.ts";
import { chooseBest, improves } from "../ties.ts";
import type { Screening, Trials, Tried } from "../trials.ts";

/** Other patterns of a size that the result is compared with at the end, the closest first; the others are only named. */
const MOST_RIVALS = 8;

export function repeated(inner: Screening): Screening {
  return {
    name: inner.name,
    callsEach: (sequences) => inner.callsEach(sequences),
    async *run(trials, from, patterns, keep) {
      yield* trials.again(from, from);
      trials.noise = trials.losses.noise(from);
      const tried = yield* inner.run(trials, from, patterns, keep);
      const alive = tried.filter(({ dropped }) => !dropped).map(({ pattern }) => pattern);
      const { rivals, rounds } = yield* settle(trials, from, alive, keep);
      trials.repetition = {
        noise: trials.noise,
        rounds,
        undecided: rivals.length > keep ? rivals.map((pattern) => differences(from, pattern)[0] ?? 0) : [],
      };
      return tried.map((one): Tried => ({ ...one, evaluation: trials.losses.evaluation(one.pattern) }));
    },
  };
}

/**
 * Measures again those that noise does not separate from the last of the `keep` best, until it does or the rounds are over.
 * @returns those that it does not separate after that (more than `keep` of them), or the best
 */
async function* settle(
  trials: Trials,
  from: Pattern,
  patterns: readonly Pattern[],
  keep: number,
): AsyncGenerator<SearchEvent, { rivals: Pattern[]; rounds: number }> {
  let rounds = 0;
  let rivals = undecided(trials, patterns, keep);
  while (rivals.length > keep && rounds < (trials.repeats ?? 0)) {
    rounds++;
    for (const pattern of rivals) yield* trials.again(pattern, from);
    rivals = undecided(trials, rivals, keep);
  }
  return { rivals, rounds };
}

/** Takes the noise of a pattern for that of the comparisons that follow. Nothing is measured if the evaluator is exact. */
async function* measureNoise(trials: Trials, pattern: Pattern): AsyncGenerator<SearchEvent, void> {
  if (trials.losses.measurements(pattern) < 2) yield* trials.again(pattern, pattern);
  trials.noise = trials.losses.noise(pattern);
}

/**
 * Whether a pattern beats another one by more than a tie, both measured whole; again and again if noise hides it.
 * @param from the pattern that the step departs from
 */
export async function* isBetter(
  trials: Trials,
  from: Pattern,
  pattern: Pattern,
  known: Pattern,
): AsyncGenerator<SearchEvent, boolean> {
  const { losses } = trials;
  if (trials.repeats !== undefined) {
    yield* measureNoise(trials, known);
    const { rounds } = yield* settle(trials, from, [pattern, known], 1);
    trials.repetition = { noise: trials.noise, rounds, undecided: [] };
  }
  return improves(losses.evaluation(pattern), losses.evaluation(known), trials.margin(pattern, known));
}

/**
 * Compares the result with all other patterns of its size that were measured, until noise separates them. One that turns out to be better takes
 * its place.
 * @param found measured on all sequences
 */
export async function* contest(trials: Trials, found: Found): AsyncGenerator<SearchEvent, Found> {
  const { losses, space, measured } = trials;
  yield* measureNoise(trials, found.pattern);
  const size = fullLayers(found.pattern).length;
  const ofSize = measured.filter(
    (pattern) => fullLayers(pattern).length === size && losses.isComplete(pattern) && space.allows(pattern),
  );
  const distance = (pattern: Pattern): number =>
    Math.abs(losses.evaluation(pattern).loss - losses.evaluation(found.pattern).loss);
  const close = undecided(trials, ofSize, 1)
    .filter((pattern) => pattern !== found.pattern)
    .toSorted((left, right) => distance(left) - distance(right));
  const compared = [found.pattern, ...close.slice(0, MOST_RIVALS)];
  const { rivals, rounds } = yield* settle(trials, found.pattern, compared, 1);
  let best: Found = { ...found, evaluation: losses.evaluation(found.pattern) };
  if (rivals.length > 0 && !rivals.includes(found.pattern)) {
    const tried = rivals.map((pattern): Tried => ({ pattern, evaluation: losses.evaluation(pattern), dropped: false }));
    best = follow(trials, best, [chooseBest(tried, trials.tie)])[0] ?? best;
    yield* trials.commit(best);
  }
  const others = [...rivals, ...close.slice(MOST_RIVALS)].filter(
    (pattern) =>
      pattern !== best.pattern &&
      Math.abs(losses.evaluation(pattern).loss - losses.evaluation(best.pattern).loss) <=
        trials.margin(pattern, best.pattern),
  );
  const repetition: Repetition<Pattern> = { noise: trials.noise, rounds, undecided: others };
  return { ...best, repetition };
}

/** Those that the noise does not separate from the last of the `keep` best, and the best themselves. */
function undecided(trials: Trials, patterns: readonly Pattern[], keep: number): Pattern[] {
  if (trials.noise === 0) return [];
  const loss = (pattern: Pattern): number => trials.losses.evaluation(pattern).loss;
  const last = patterns.toSorted((left, right) => loss(left) - loss(right))[keep - 1];
  if (last === undefined) return [];
  return patterns.filter((pattern) => loss(pattern) - loss(last) <= trials.margin(pattern, last));
}
