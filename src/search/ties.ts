/**
 * Who wins if losses are equal: the lowest layer. Any fixed order would do; the lowest index is what the reference
 * search in Python takes.
 */

import { TIE_NATS } from "../base/near-tie.ts";

interface WithLoss {
  evaluation: { loss: number };
}

/**
 * The first among those that equal the lowest loss; `tried` is in ascending order of layers.
 * @param equals what a candidate may lose beyond the lowest and be equal all the same
 */
export function chooseBest<T extends WithLoss>(
  tried: readonly T[],
  equals: (one: T, lowest: T) => number = () => TIE_NATS,
): T {
  const [first] = tried;
  if (first === undefined) throw new Error("a step without candidates");
  const lowest = tried.reduce((least, one) => (one.evaluation.loss < least.evaluation.loss ? one : least), first);
  return tried.find((one) => one.evaluation.loss <= lowest.evaluation.loss + equals(one, lowest)) ?? lowest;
}

/** The best, then the best of the others, and so on: the tie rule is no order that could be sorted by. */
export function chooseBestOnes<T extends WithLoss>(
  tried: readonly T[],
  count: number,
  equals?: (one: T, lowest: T) => number,
): [T, ...T[]] {
  const first = chooseBest(tried, equals);
  const chosen: [T, ...T[]] = [first];
  let rest = tried.filter((one) => one !== first);
  while (chosen.length < count && rest.length > 0) {
    const next = chooseBest(rest, equals);
    chosen.push(next);
    rest = rest.filter((one) => one !== next);
  }
  return chosen;
}

/** Whether the new loss is lower by more than a tie. */
export function improves(candidate: { loss: number }, known: { loss: number }, tie = TIE_NATS): boolean {
  return candidate.loss < known.loss - tie;
}
