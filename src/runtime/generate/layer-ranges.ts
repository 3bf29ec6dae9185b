/** Ranges of layers that two threads take turns with (`overlapped-decoder.ts`). */
import { sum } from "../../base/sum.ts";
import type { LayerRange } from "../../graph/exported/contract.ts";
import type { Pattern } from "../../pattern/pattern.ts";

/**
 * How much of the time each range takes, of four. A thread is idle while the first chunk is in the first range, and the other one
 * while the last chunk is in the last range: these are the small ones. Two halves take 1.16 times as long for 1,024 tokens; six
 * ranges gain nothing more, since each makes its buffers anew in a core's cache.
 */
const shares = [1, 2, 2, 1];

/**
 * Ranges that are by turns the one thread's and the other's, with about as much time spent in both: a Full layer takes twice as
 * long as a Shared one at 4K tokens.
 */
export function rangesInTurn(pattern: Pattern): LayerRange[] {
  const parts = pattern.length < shares.length ? [1, 1] : shares;
  const costs = [...pattern].map((letter) => (letter === "F" ? 2 : 1));
  const unit = sum(costs) / sum(parts);
  const due: [number, number] = [0, 0];
  const ranges: LayerRange[] = [];
  let from = 0;
  for (const [index, part] of parts.entries()) {
    const thread = index % 2 === 0 ? 0 : 1;
    due[thread] += part * unit;
    const misses = (to: number) => Math.abs(sum(costs.slice(from, to)) - due[thread]);
    // Each of the ranges after it has a layer at least.
    const most = pattern.length - (parts.length - 1 - index);
    let to = index === parts.length - 1 ? most : from + 1;
    while (to < most && misses(to + 1) <= misses(to)) to++;
    due[thread] -= sum(costs.slice(from, to));
    ranges.push({ from, to });
    from = to;
  }
  return ranges;
}
