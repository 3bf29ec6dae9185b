/**
 * How a step finds its best candidates: measure all of them on every sequence (`complete`), or stop early (`bounded.ts`,
 * `raced.ts`).
 */
import type { Screening } from "../trials.ts";

/** The list in pieces of `size`. */
export function blocksOf(indices: readonly number[], size: number): number[][] {
  return Array.from({ length: Math.ceil(indices.length / size) }, (_, block) =>
    indices.slice(block * size, (block + 1) * size),
  );
}

/** Every candidate on every sequence: the paper's way. */
export const complete: Screening = {
  name: "complete",
  callsEach: () => 1,
  run: (trials, from, patterns) => trials.tryAll(patterns, from),
};
