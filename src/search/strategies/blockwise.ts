/**
 * The paper's variant for pipelines (section 3.1): layers in equal blocks, the first layer of each Full. A round goes
 * through the blocks and commits the best flip of each before the next, so that a step tries one block's layers and not
 * all: about as many evaluations fewer as there are blocks, and equally many flips in each.
 */
import { UsageError } from "../../base/errors.ts";
import { fullLayers } from "../../pattern/pattern.ts";
import type { Found } from "../events.ts";
import { differences } from "../space.ts";
import { tryFrom } from "../step.ts";
import type { Strategy } from "../strategy.ts";
import { chooseBest } from "../ties.ts";

/** First layers of `blocks` equal blocks; the first ones get what does not divide (78 in 4: 20, 20, 19, 19). */
function blockStarts(layers: number, blocks: number): number[] {
  return Array.from({ length: blocks }, (_, block) => Math.ceil((block * layers) / blocks));
}

export const blockwise: Strategy = {
  name: "blockwise",
  summary: "the paper's for pipelines: --blocks equal blocks in turn, the best flip of each",
  options: [{ name: "blocks", summary: "equal blocks of layers that blockwise goes through", initial: 4 }],
  mayRace: true,
  isNested: true,
  isAdaptive: false,
  pinned(start, { blocks = 1 }) {
    if (blocks > start.length) throw new UsageError(`--blocks is ${blocks}, the model has ${start.length} layers`);
    // A block that begins with a layer of the model's own sharing has nothing there to keep.
    return blockStarts(start.length, blocks).filter((layer) => start[layer] === "F");
  },
  async *run(trials, start, { blocks = 1 }) {
    const { space, targets } = trials;
    const retain = Math.min(...targets);
    const starts = blockStarts(start.pattern.length, blocks);
    const blockOf = (layer: number): number => starts.findLastIndex((first) => first <= layer);
    let current: Found = start;
    for (let block = 0; fullLayers(current.pattern).length > retain; block = (block + 1) % blocks) {
      const before = current.pattern;
      const flips = space
        .flips(before, "backward", retain)
        .filter((pattern) => blockOf(differences(before, pattern)[0] ?? 0) === block);
      // A block may have nothing left to share; another one has, as long as the target can be reached.
      if (flips.length === 0) continue;
      trials.step++;
      current = chooseBest(yield* tryFrom(trials, current, flips), trials.tie);
      yield* trials.commit(current);
    }
  },
};
