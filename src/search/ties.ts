/**
 * Who wins where losses are equal: the lowest layer. Any fixed order would do; the lowest index is what the reference
 * search in Python takes.
 */

import { TIE_NATS } from "../base/near-tie.ts";

interface WithLoss {
  evaluation: { loss: number };
}

/** The first among those within `TIE_NATS` of the lowest loss; `tried` is in ascending order of layers. */
export function chooseBest<T extends WithLoss>(tried: readonly T[]): T {
  const lowest = tried.reduce((least, { evaluation }) => Math.min(least, evaluation.loss), Number.POSITIVE_INFINITY);
  const best = tried.find(({ evaluation }) => evaluation.loss <= lowest + TIE_NATS);
  if (best === undefined) throw new Error("a step without candidates");
  return best;
}

/** The best, then the best of the others, and so on: the tie rule is no order that could be sorted by. */
export function chooseBestOnes<T extends WithLoss>(tried: readonly T[], count: number): [T, ...T[]] {
  const first = chooseBest(tried);
  const chosen: [T, ...T[]] = [first];
  let rest = tried.filter((one) => one !== first);
  while (chosen.length < count && rest.length > 0) {
    const next = chooseBest(rest);
    chosen.push(next);
    rest = rest.filter((one) => one !== next);
  }
  return chosen;
}

/** Whether the new loss is lower by more than a tie. */
export function improves(candidate: { loss: number }, known: { loss: number }): boolean {
  return candidate.loss < known.loss - TIE_NATS;
}
