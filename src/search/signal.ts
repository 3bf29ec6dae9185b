/** Whether losses on this text differ between patterns at all. If they do not, the tie rule alone would choose, and any pattern would "win". */
import { GateFailure } from "../base/errors.ts";
import { TIE_NATS } from "../base/near-tie.ts";
import type { SearchEvent, SearchStep } from "./events.ts";
import type { Trials } from "./trials.ts";

/**
 * After the first step: when all its candidates lose what the start loses, the sparsest pattern is measured, which differs
 * most from it. A search that lasts days is not to find out at its end.
 * @throws GateFailure if that loses nothing either
 */
export async function* requireSignal(trials: Trials, { candidates }: SearchStep): AsyncGenerator<SearchEvent, void> {
  const { space } = trials;
  if (candidates.some(({ loss }) => !ties(trials, loss))) return;
  yield* trials.evaluate(space.sparsest, space.start);
  requireDifferences(trials);
}

/** @throws GateFailure if all that was measured agrees within a tie */
export function requireDifferences(trials: Trials): void {
  const { measured, losses } = trials;
  if (measured.length < 2 || measured.some((pattern) => !ties(trials, losses.evaluation(pattern).loss))) return;
  throw new GateFailure(
    `The losses of all ${measured.length} patterns that were measured agree within ${TIE_NATS} nats on these ${losses.sequences.length} sequences: ` +
      "there is nothing to choose by, and no pattern is written",
    { hint: "longer sequences (--sequence-length) and text that refers far back make indexers matter" },
  );
}

function ties({ losses, space }: Trials, loss: number): boolean {
  return Math.abs(loss - losses.evaluation(space.start).loss) <= TIE_NATS;
}
