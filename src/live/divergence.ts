/** KL divergence between what two patterns predict, from a few tokens of each distribution and the mass of all others. */
import type { LikelyTokens } from "./engine-adapter.ts";

/** Sums of rounded probabilities come no closer to 1: as `graph/divergence-graph.ts` takes it. */
const leastMass = 1e-7;

/**
 * Mean KL over rows, in nats; never negative.
 * @param own the likeliest tokens of the model's own pattern, [rows, width]
 * @param scored of the other pattern: the row's own token, then the given ones, [rows, 1 + width]
 */
export function meanDivergence({ ids, logprobs, width }: LikelyTokens, scored: Float64Array): number {
  const rows = ids.length / width;
  let total = 0;
  for (let row = 0; row < rows; row++) {
    let ownMass = 0;
    let otherMass = 0;
    let divergence = 0;
    for (let column = 0; column < width; column++) {
      const at = row * width + column;
      if ((ids[at] as number) < 0) continue;
      const own = logprobs[at] as number;
      const other = scored[row * (width + 1) + 1 + column] as number;
      ownMass += Math.exp(own);
      otherMass += Math.exp(other);
      divergence += Math.exp(own) * (own - other);
    }
    const ownRest = Math.max(1 - ownMass, leastMass);
    const otherRest = Math.max(1 - otherMass, leastMass);
    total += Math.max(0, divergence + ownRest * Math.log(ownRest / otherRest));
  }
  return total / rows;
}
