/**
 * Exchanges of layers in the wanted patterns, the most promising first, each measured only as far as it takes to see that
 * it loses. Made for a budget: with enough of it, it ends where no exchange helps.
 */
import { fullLayers, type Pattern } from "../pattern/pattern.ts";
import { challenge } from "./challenge.ts";
import type { Found, SearchEvent } from "./events.ts";
import { differences } from "./space.ts";
import { follow } from "./step.ts";
import type { Trials } from "./trials.ts";

/** Exchanges of one pattern that are tried before another's: every change of base is a pass over all layers. */
const BATCH = 12;

interface Exchange {
  from: Found;
  pattern: Pattern;
  /** The lower, the sooner. */
  rank: number;
}

/**
 * @param walked the way that greedy went: what flips cost there says which exchanges are worth a look
 * @param size layers of each kind that are exchanged at once
 */
export async function* exchangeLayers(trials: Trials, walked: Found, size: number): AsyncGenerator<SearchEvent, void> {
  const { losses } = trials;
  const inOrder = (exchanges: readonly Exchange[]) => exchanges.toSorted((left, right) => left.rank - right.rank);
  let queue = inOrder(trials.targets.flatMap((retain) => exchangesOf(trials, walked, retain, size)));
  for (;;) {
    const [next] = queue;
    if (next === undefined) return;
    const batch = queue.filter(({ from }) => from === next.from).slice(0, BATCH);
    queue = queue.filter((one) => !batch.includes(one));
    let best = next.from;
    for (const { from, pattern } of batch) {
      if (!(yield* challenge(trials, pattern, from.pattern, best))) continue;
      const tried = { pattern, evaluation: losses.evaluation(pattern), dropped: false };
      best = follow(trials, from, [tried])[0] ?? best;
    }
    if (best === next.from) continue;
    yield* trials.commit(1, best);
    const others = queue.filter(({ from }) => from !== next.from);
    queue = inOrder([...others, ...exchangesOf(trials, walked, fullLayers(best.pattern).length, size)]);
  }
}

/** An exchange is as good as the layers that become Shared were cheap, and those that become Full were dear. */
function exchangesOf({ space, frontier }: Trials, walked: Found, retain: number, size: number): Exchange[] {
  const from = frontier.at(retain);
  if (from === undefined) return [];
  const prices = flipPrices(walked, retain);
  const price = (layer: number): number => (from.pattern[layer] === "F" ? 1 : -1) * (prices.get(layer) ?? 0);
  return space.exchanges(from.pattern, size).map((pattern) => {
    const rank = differences(from.pattern, pattern).reduce((sum, layer) => sum + price(layer), 0);
    return { from, pattern, rank };
  });
}

/** What each layer cost when greedy last tried to share it, on its way to one Full layer less than `size`. */
function flipPrices({ steps }: Found, size: number): Map<number, number> {
  const prices = new Map<number, number>();
  let before: number | undefined;
  for (const { candidates, evaluation, pattern } of steps) {
    if (fullLayers(pattern).length < size - 1) break;
    before ??= evaluation.loss - evaluation.change;
    for (const { layer, loss } of candidates) prices.set(layer, loss - before);
    before = evaluation.loss;
  }
  return prices;
}
