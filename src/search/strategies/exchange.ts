/**
 * Exchanges of layers in the wanted patterns, the most promising first, each measured only as far as it takes to see that
 * it loses. Made for a budget: with enough of it, it ends when no exchange helps.
 */
import { fullLayers } from "../../pattern/pattern.ts";
import type { Found, SearchEvent } from "../events.ts";
import { challenge } from "../screening/challenge.ts";
import { follow } from "../step.ts";
import type { Trials } from "../trials.ts";
import { type RankedExchange, rankedExchanges } from "./ranked-exchanges.ts";

/** Exchanges of one pattern that are tried before another's: every change of base is a pass over all layers. */
const BATCH = 12;

/** What is left to try from one pattern. */
interface Exchanges {
  from: Found;
  /** The most promising one; undefined when all have been tried. */
  next: RankedExchange | undefined;
  rest: Iterator<RankedExchange, void>;
}

/**
 * @param walked greedy's way: what flips cost there shows which exchanges are worth a try
 * @param size layers of each kind that are exchanged at once
 */
export async function* exchangeLayers(trials: Trials, walked: Found, size: number): AsyncGenerator<SearchEvent, void> {
  const { losses, targets } = trials;
  let open = targets.flatMap((retain) => exchangesOf(trials, walked, retain, size));
  for (;;) {
    const current = mostPromising(open);
    if (current === undefined) return;
    const { from } = current;
    let best = from;
    for (const { pattern } of take(current, BATCH)) {
      if (!(yield* challenge(trials, pattern, from.pattern, best))) continue;
      const tried = { pattern, evaluation: losses.evaluation(pattern), dropped: false };
      best = follow(trials, from, [tried])[0] ?? best;
    }
    if (best === from) continue;
    yield* trials.commit(best);
    const others = open.filter((one) => one !== current);
    open = [...others, ...exchangesOf(trials, walked, fullLayers(best.pattern).length, size)];
  }
}

/** Those of the best pattern with `retain` Full layers. */
function exchangesOf({ space, frontier }: Trials, walked: Found, retain: number, size: number): Exchanges[] {
  const from = frontier.at(retain);
  if (from === undefined) return [];
  const prices = flipPrices(walked, retain);
  const rest = rankedExchanges(space, from.pattern, size, (layer) => prices.get(layer) ?? 0);
  return [{ from, next: rest.next().value ?? undefined, rest }];
}

/** The first of those that promise most. */
function mostPromising(open: readonly Exchanges[]): Exchanges | undefined {
  return open.reduce<Exchanges | undefined>((best, one) => {
    if (one.next === undefined) return best;
    return best?.next === undefined || one.next.rank < best.next.rank ? one : best;
  }, undefined);
}

function take(exchanges: Exchanges, count: number): RankedExchange[] {
  const taken: RankedExchange[] = [];
  while (exchanges.next !== undefined && taken.length < count) {
    taken.push(exchanges.next);
    exchanges.next = exchanges.rest.next().value ?? undefined;
  }
  return taken;
}

/** What each layer cost when greedy last tried to share it, on its way to one Full layer less than `size`. */
function flipPrices({ steps }: Found, size: number): Map<number, number> {
  const prices = new Map<number, number>();
  let before: number | undefined;
  for (const { candidates, evaluation, pattern } of steps) {
    if (fullLayers(pattern).length < size - 1) break;
    before ??= evaluation.loss - evaluation.change;
    for (const { flipped, loss } of candidates) prices.set(flipped[0] ?? 0, loss - before);
    before = evaluation.loss;
  }
  return prices;
}
