/**
 * Exchanges of layers in the order of what they promise, made one by one: at 78 layers there are 282,663 exchanges of two for
 * two, and a search measures a few thousand of them.
 */
import { type Pattern, withFull, withShared } from "../../pattern/pattern.ts";
import type { PatternSpace } from "../space.ts";

export interface RankedExchange {
  pattern: Pattern;
  /** The lower, the sooner. */
  rank: number;
}

interface Choice {
  layers: readonly number[];
  price: number;
}

/**
 * Allowed patterns with `size` layers of each kind exchanged, the lowest rank first; of one rank, the one with the lowest
 * changed layers first, to which ties go.
 * @param price of sharing a layer; the rank is the price of the layers that become Shared, less that of those that become Full
 */
export function* rankedExchanges(
  space: PatternSpace,
  from: Pattern,
  size: number,
  price: (layer: number) => number,
): Generator<RankedExchange, void> {
  const sum = (layers: readonly number[]): number => layers.reduce((total, layer) => total + price(layer), 0);
  const shared = inOrder(choose(space.shareable(from), size).map((layers) => ({ layers, price: sum(layers) })));
  const freed = inOrder(choose(space.sharedByChoice(from), size).map((layers) => ({ layers, price: -sum(layers) })));
  // Both lists ascend, so that each choice of layers to share has one candidate: with the next of the layers to free.
  const next: number[] = shared.map(() => 0);
  const rankOf = (index: number): number =>
    (shared[index]?.price ?? 0) + (freed[next[index] ?? 0]?.price ?? Number.POSITIVE_INFINITY);
  for (;;) {
    let rank = Number.POSITIVE_INFINITY;
    for (let index = 0; index < shared.length; index++) {
      rank = Math.min(rank, rankOf(index));
      // Nothing of this choice was taken: those after it rank no lower.
      if (next[index] === 0) break;
    }
    if (rank === Number.POSITIVE_INFINITY) return;
    const equals: { changed: number[]; out: Choice; back: Choice }[] = [];
    for (const [index, out] of shared.entries()) {
      for (let back = freed[next[index] ?? 0]; back !== undefined && rankOf(index) === rank; ) {
        equals.push({ changed: [...out.layers, ...back.layers].sort((left, right) => left - right), out, back });
        next[index] = (next[index] ?? 0) + 1;
        back = freed[next[index] ?? 0];
      }
      if (next[index] === 0) break;
    }
    for (const { out, back } of equals.sort((left, right) => compare(left.changed, right.changed))) {
      const pattern = back.layers.reduce(withFull, out.layers.reduce(withShared, from));
      if (space.allows(pattern)) yield { pattern, rank };
    }
  }
}

function inOrder(choices: Choice[]): Choice[] {
  return choices.sort((left, right) => left.price - right.price);
}

/** Every choice of `size` layers, ascending. */
function choose(layers: readonly number[], size: number): number[][] {
  if (size === 0) return [[]];
  return layers.flatMap((layer, index) => choose(layers.slice(index + 1), size - 1).map((rest) => [layer, ...rest]));
}

function compare(left: readonly number[], right: readonly number[]): number {
  const index = left.findIndex((layer, at) => layer !== right[at]);
  return index < 0 ? 0 : (left[index] ?? 0) - (right[index] ?? 0);
}
