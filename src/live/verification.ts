/** Whether a pattern acts on a running server, and from which position on. */
import { InputError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import type { Pattern } from "../pattern/pattern.ts";
import { type LiveModel, serverLetters } from "./live-model.ts";
import { requireCalls } from "./preflight.ts";

/** Positions between two powers of two of index_topk, and what the pattern changes there. */
interface PositionRange {
  from: number;
  /** The first position that is no longer in it. */
  to: number;
  /** Mean loss under the pattern less that under the server's own. */
  change: number;
  /** Mean size of what a token's log-probability changes by. */
  moved: number;
  /** The same between two measurements of the server's own pattern. */
  noise: number;
  acts: boolean;
}

/**
 * Below index_topk every key is selected, but in the order of a layer's own scores: sums come out in another order under
 * another pattern. The relative error of one number, by the coarsest type on the way.
 */
function roundingOf({ dtype, kvCacheDtype }: { dtype: string | undefined; kvCacheDtype: string | undefined }): number {
  const bits = (name: string): number => {
    if (/fp8|float8/.test(name)) return 4;
    if (name === "auto" || name.includes("bfloat16")) return 8;
    return name.includes("16") ? 11 : 24;
  };
  const known = [dtype, kvCacheDtype].filter((name) => name !== undefined);
  return 2 ** -Math.min(...(known.length === 0 ? ["auto"] : known).map(bits));
}

export interface Verification {
  pattern: Pattern;
  own: Pattern;
  prompts: number;
  ranges: PositionRange[];
  /** The first position whose log-probability moves, on any prompt, by far more than any does in a repeated measurement. */
  begins: number | undefined;
}

/** So many times the noise a change must be to count as one. */
const leastRatio = 3;
/** Of a single position: that of the whole prompt that repeats worst. */
const leastPositionRatio = 3;
/** A change below it is none, whatever the noise. */
const leastMoved = 1e-6;

/** Random tokens, for a server whose tokenizer nobody has given; the lowest ids, often special ones, are left out. */
export function randomPrompts(count: number, length: number, vocabSize: number): Int32Array[] {
  const random = Random.forPart(0, "prompts of a look at a server");
  const first = Math.min(256, Math.floor(vocabSize / 8));
  return Array.from({ length: count }, () => Int32Array.from({ length }, () => random.integer(first, vocabSize - 1)));
}

/**
 * Scores prompts under the server's own pattern, twice, and under another one.
 * @param prompts longer than index_topk
 * @throws InputError for prompts that no pattern changes
 */
export async function verify(
  served: LiveModel,
  pattern: Pattern,
  prompts: readonly Int32Array[],
  indexTopk: number,
  signal?: AbortSignal,
): Promise<Verification> {
  const longest = Math.max(...prompts.map(({ length }) => length));
  if (longest <= indexTopk) {
    throw new InputError(`Prompts of ${longest} tokens are not longer than index_topk (${indexTopk})`);
  }
  const [replica] = served.replicas;
  if (replica === undefined) throw new Error("no server");
  const { adapter, description } = replica;
  const own = served.ownPattern;
  const scoreAll = async (letters: Pattern): Promise<Float64Array[]> => {
    await adapter.set(serverLetters(letters, description), signal);
    await adapter.count(true, signal);
    const scores: Float64Array[] = [];
    // One after the other: what differs is then the pattern, not the company.
    for (const prompt of prompts) scores.push(await adapter.score({ ids: [...prompt], from: 1, signal }));
    await requireCalls(replica, letters, signal);
    return scores;
  };
  const rounding = roundingOf(description);
  // Compiles what has to be compiled.
  await scoreAll(own);
  const [first, second, other] = [await scoreAll(own), await scoreAll(own), await scoreAll(pattern)];
  const ranges = boundaries(indexTopk, longest).map(([from, to]): PositionRange => {
    // Score i is of the token at position i + 1, and ranges begin at position 1.
    const inRange = (scores: Float64Array): number[] => [...scores.subarray(from - 1, to - 1)];
    const all = (left: Float64Array[], right: Float64Array[]): number[] =>
      left.flatMap((scores, at) => inRange(scores).map((score, row) => score - (right[at]?.[from - 1 + row] ?? score)));
    const mean = (values: number[]): number => values.reduce((total, value) => total + value, 0) / values.length;
    const changes = all(first, other);
    const moved = mean(changes.map(Math.abs));
    const noise = mean(all(first, second).map(Math.abs));
    const least = Math.max(leastMoved, leastRatio * noise);
    const size = mean(first.flatMap(inRange).map(Math.abs));
    const acts = moved > (to <= indexTopk ? Math.max(least, rounding * size) : least);
    return { from, to, change: mean(changes), moved, noise, acts };
  });
  const sameBefore = ranges[0]?.acts === false ? indexTopk - 1 : 0;
  return { pattern, own, prompts: prompts.length, ranges, begins: firstMoved(first, second, other, sameBefore) };
}

/** @param sameBefore of so many scores at the beginning the movement is rounding: no later one counts unless it moves by more */
function firstMoved(
  first: Float64Array[],
  second: Float64Array[],
  other: Float64Array[],
  sameBefore: number,
): number | undefined {
  const moved = (scores: Float64Array[], prompt: number, row: number): number =>
    Math.abs((first[prompt]?.[row] ?? 0) - (scores[prompt]?.[row] ?? 0));
  let worst = leastMoved;
  for (const [prompt, { length }] of first.entries()) {
    for (let row = 0; row < length; row++) {
      worst = Math.max(worst, leastPositionRatio * moved(second, prompt, row));
      if (row < sameBefore) worst = Math.max(worst, moved(other, prompt, row));
    }
  }
  const longest = Math.max(...first.map(({ length }) => length));
  for (let row = 0; row < longest; row++) {
    if (first.some((scores, prompt) => row < scores.length && moved(other, prompt, row) > worst)) return row + 1;
  }
  return undefined;
}

/** [1, topk), [topk, 2 topk), [2 topk, 4 topk), ... up to the length. */
function boundaries(indexTopk: number, length: number): [number, number][] {
  const ranges: [number, number][] = [[1, indexTopk]];
  for (let from = indexTopk; from < length; from *= 2) ranges.push([from, Math.min(2 * from, length)]);
  return ranges;
}
