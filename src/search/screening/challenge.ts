/**
 * Measuring a pattern against the best one known of its size, no further than it takes to see that it loses: block by
 * block, until a paired t test says so, or until what it has lost exceeds what the best one loses (objectives without
 * negative terms). One that wins has been measured on every sequence.
 */
import { TIE_NATS } from "../../base/near-tie.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import type { Found, SearchEvent } from "../events.ts";
import type { Trials } from "../trials.ts";
import { isWorse } from "./raced.ts";
import { isBetter } from "./repeated.ts";
import { blocksOf } from "./screening.ts";

/** Error rate of a test. A winner that it drops is lost, and nothing else: what is known does not get worse. */
const ALPHA = 0.1;
/** Blocks that the sequences are measured in. */
const BLOCKS = 8;

/** Sequences in a block. */
export const challengeBlock = (sequences: number): number => Math.ceil(sequences / BLOCKS);

/**
 * @param from the pattern whose states are reused
 * @returns whether the pattern is better than `best` by more than a tie
 */
export async function* challenge(
  trials: Trials,
  pattern: Pattern,
  from: Pattern,
  best: Found,
): AsyncGenerator<SearchEvent, boolean> {
  const { losses, screening } = trials;
  const { sequences } = losses;
  // Some of the sequences say nothing of the worst source, but what they have lost bounds it.
  const isBounded = screening.name === "bounded";
  const inBlocks = losses.across === "mean" || isBounded;
  for (const block of blocksOf(sequences, inBlocks ? challengeBlock(sequences.length) : sequences.length)) {
    if (losses.missing(pattern, block).length === 0) continue;
    yield* trials.evaluate(pattern, from, { sequences: block });
    if (losses.isComplete(pattern)) break;
    if (isBounded && losses.lowerBound(pattern) > best.evaluation.loss + TIE_NATS) return false;
    if (losses.across === "mean" && isWorse(losses.difference(pattern, best.pattern), ALPHA)) return false;
  }
  return yield* isBetter(trials, from, pattern, best.pattern);
}
