/**
 * The paper's variant for pipelines (section 3.1): layers in equal blocks, the first layer of each Full. A round goes
 * through the blocks and commits the best flip of each before the next, so that a step tries one block's layers and not
 * all: about as many evaluations fewer as there are blocks, and equally many flips in each.
 */
import { fullLayers } from "../../pattern/pattern.ts";
import type { Found } from "../events.ts";
import type { Selection } from "../screening/selection.ts";
import type { PatternSpace } from "../space.ts";
import { tryFrom } from "../step.ts";
import { chooseBest } from "../ties.ts";
import type { SearchPlan } from "../trials.ts";

/** First layers of `blocks` equal blocks; the first ones get what does not divide (78 in 4: 20, 20, 19, 19). */
export function blockStarts(layers: number, blocks: number): number[] {
  return Array.from({ length: blocks }, (_, block) => Math.ceil((block * layers) / blocks));
}

/** @param space has the first layer of each block pinned */
export function planBlockwise(
  space: PatternSpace,
  retain: number,
  blocks: number,
  selection: Selection,
  sequences: number,
): SearchPlan {
  const layers = space.start.length;
  const starts = blockStarts(layers, blocks);
  const blockOf = (layer: number): number => starts.findLastIndex((start) => start <= layer);
  const steps = space.size - retain;
  const perBlock = Math.ceil((space.size - space.pinned) / blocks);
  return {
    steps,
    evaluations: 1 + Math.ceil((steps * (perBlock + 1)) / 2) * selection.callsEach(sequences),
    async *run(trials, from) {
      let current: Found = from;
      let block = 0;
      let step = 0;
      while (fullLayers(current.pattern).length > retain) {
        const before = current.pattern;
        const flips = space
          .flips(before, "backward", retain)
          .filter((pattern) => blockOf([...pattern].findIndex((letter, layer) => letter !== before[layer])) === block);
        block = (block + 1) % blocks;
        // A block may have nothing left to share; another one has, as long as the target can be reached.
        if (flips.length === 0) continue;
        current = chooseBest(yield* tryFrom(trials, ++step, current, flips), trials.tie);
        yield* trials.commit(step, current);
      }
      return current;
    },
  };
}
