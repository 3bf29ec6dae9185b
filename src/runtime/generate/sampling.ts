/** From logits to the next token. The order is transformers': temperature, then top-k, then top-p. */
import { RuntimeFailure, UsageError } from "../../base/errors.ts";
import { Random } from "../../base/random.ts";

export interface SamplingOptions {
  /** 0 is greedy. By default greedy, or 1 where `topK` or `topP` ask for sampling. */
  temperature?: number;
  /** Only the k most likely tokens. */
  topK?: number;
  /** Only the most likely tokens that together reach this probability; at least one. */
  topP?: number;
  seed?: number;
}

export type Sampler = (logits: Float32Array) => number;

/** @throws UsageError for values out of range */
export function createSampler(options: SamplingOptions = {}): Sampler {
  const { topK, topP } = options;
  const temperature = options.temperature ?? (topK === undefined && topP === undefined ? 0 : 1);
  if (!(temperature >= 0 && temperature < Number.POSITIVE_INFINITY)) {
    throw new UsageError(`--temperature is ${temperature}: it must be 0 or more`);
  }
  if (topK !== undefined && !(Number.isInteger(topK) && topK >= 1)) {
    throw new UsageError(`--top-k is ${topK}: it must be a whole number from 1 up`);
  }
  if (topP !== undefined && !(topP > 0 && topP <= 1)) {
    throw new UsageError(`--top-p is ${topP}: it must be above 0 and at most 1`);
  }
  if (temperature === 0) return mostLikely;
  const random = Random.forPart(options.seed ?? 0, "sampling");
  return (logits) => draw(nucleus(probabilities(logits, temperature), topK, topP), random);
}

/** The token with the highest logit, the lowest id among equals. */
export function mostLikely(logits: Float32Array): number {
  let best = -1;
  let highest = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id] ?? Number.NaN;
    if (logit > highest) {
      highest = logit;
      best = id;
    } else if (Number.isNaN(logit)) {
      throw new RuntimeFailure(`The logit of token ${id} is not a number`);
    }
  }
  if (best < 0) throw new RuntimeFailure("No token has a finite logit");
  return best;
}

/** Natural logarithm of the probability that softmax gives a token. */
export function logProbability(logits: Float32Array, id: number): number {
  const highest = logits[mostLikely(logits)] ?? 0;
  let total = 0;
  for (let other = 0; other < logits.length; other++) total += Math.exp((logits[other] ?? 0) - highest);
  return (logits[id] ?? Number.NaN) - highest - Math.log(total);
}

interface Choice {
  id: number;
  probability: number;
}

function probabilities(logits: Float32Array, temperature: number): Float64Array {
  const highest = logits[mostLikely(logits)] ?? 0;
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - highest) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

/** What top-k and top-p leave, most likely first where either is set; the probabilities need not add up to 1. */
function nucleus(distribution: Float64Array, topK: number | undefined, topP: number | undefined): Choice[] {
  const choices: Choice[] = [];
  const floor = lowestUseful(distribution, topK, topP);
  for (let id = 0; id < distribution.length; id++) {
    const probability = distribution[id] ?? 0;
    if (probability >= floor) choices.push({ id, probability });
  }
  if (topK === undefined && topP === undefined) return choices;
  choices.sort((left, right) => right.probability - left.probability || left.id - right.id);
  const kept = choices.slice(0, topK ?? choices.length);
  if (topP === undefined) return kept;
  const mass = topK === undefined ? 1 : kept.reduce((sum, { probability }) => sum + probability, 0);
  let reached = 0;
  const end = kept.findIndex(({ probability }) => {
    reached += probability;
    return reached >= topP * mass;
  });
  return end < 0 ? kept : kept.slice(0, end + 1);
}

/**
 * A probability below which no token can be chosen: with a vocabulary of 150,000, sorting the few that are left as
 * objects costs a fraction of sorting all. For top-k it is the k-th highest; for top-p alone (1 - p) / n, because all
 * tokens below that have less than 1 - p together.
 */
function lowestUseful(distribution: Float64Array, topK: number | undefined, topP: number | undefined): number {
  if (topK !== undefined) return distribution.toSorted().at(-topK) ?? 0;
  return topP === undefined ? 0 : (1 - topP) / distribution.length;
}

function draw(choices: readonly Choice[], random: Random): number {
  const total = choices.reduce((sum, { probability }) => sum + probability, 0);
  let left = random.unit() * total;
  for (const { id, probability } of choices) {
    left -= probability;
    if (left < 0) return id;
  }
  // Rounding may leave a sliver after the last choice.
  const last = choices.at(-1);
  if (last === undefined) throw new RuntimeFailure("No token is left to draw from");
  return last.id;
}

/**
 * Adds the log-probability of the token that follows each row, where `ids` has one.
 * @param logits of the rows of `ids` from `first` on, `[rows, vocab]`
 * @returns the logits of the last row
 */
export function scoreRows(
  logits: Float32Array,
  vocabularySize: number,
  ids: readonly number[],
  first: number,
  logProbabilities: number[],
): Float32Array {
  const rows = logits.length / vocabularySize;
  const at = (row: number) => logits.subarray(row * vocabularySize, (row + 1) * vocabularySize);
  for (let row = 0; row < rows; row++) {
    const next = ids[first + row + 1];
    if (next !== undefined) logProbabilities.push(logProbability(at(row), next));
  }
  return at(rows - 1);
}
