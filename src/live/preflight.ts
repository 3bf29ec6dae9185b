/** What is found out before anything long: the noise of a repeated measurement, and whether patterns reach the model. */
import { RuntimeFailure } from "../base/errors.ts";
import { TIE_NATS } from "../base/near-tie.ts";
import { type Pattern, parsePattern } from "../pattern/pattern.ts";
import type { Measurement, PatternEvaluator, SequenceLoss } from "../runtime/measurement.ts";
import { type LiveModel, type Replica, serverLetters } from "./live-model.ts";

export interface Preflight {
  baseline: Measurement;
  /** Standard error, in nats per token, that the mean over the sequences has because a measurement repeats differently. */
  noise: number;
  sparsest: Pattern;
  /** What the loss rises by where only the first layers are Full. */
  change: number;
  tokens: number;
  seconds: number;
}

/** So many times the noise the sparsest pattern must move the loss by. */
const leastRatio = 6;

/**
 * Measures the server's own pattern twice and the sparsest one once.
 * @throws RuntimeFailure where the loss does not move, or other indexers run than the pattern says
 */
export async function preflight(
  served: LiveModel,
  losses: PatternEvaluator,
  sequences: readonly number[],
  indexTopk: number,
  signal?: AbortSignal,
): Promise<Preflight> {
  const own = served.ownPattern;
  // The first request compiles kernels: it is no measure of time, and may be none of noise.
  await losses.evaluate(own, { sequences: sequences.slice(0, 1), signal });
  const options = { sequences, signal };
  const baseline = await losses.evaluate(own, options);
  const again = await losses.evaluate(own, options);
  const noise = repeatNoise(baseline.sequences, again.sequences);
  const sparsest = sparsestPattern(served);
  for (const { adapter } of served.replicas) await adapter.count(true, signal);
  const sparse = await losses.evaluate(sparsest, options);
  for (const replica of served.replicas) await requireCalls(replica, sparsest, signal);
  const change = sparse.loss - baseline.loss;
  if (Math.abs(change) <= Math.max(leastRatio * noise, TIE_NATS)) {
    throw new RuntimeFailure(
      `Patterns do not reach the model: ${sparsest} moves the loss by ${change.toExponential(1)} nats, a repeated measurement by ${noise.toExponential(1)}`,
      {
        hint: `are CUDA graphs on (--enforce-eager is missing), or are the sequences hardly longer than index_topk (${indexTopk})?`,
      },
    );
  }
  return {
    baseline,
    noise,
    sparsest,
    change,
    tokens: baseline.tokens + sequences.length * indexTopk,
    seconds: (baseline.seconds + again.seconds) / 2,
  };
}

/** Root mean square of the differences of two measurements of the same, as an error of their mean. */
function repeatNoise(first: readonly SequenceLoss[], second: readonly SequenceLoss[]): number {
  const squares = first.map(({ loss }, at) => (loss - (second[at]?.loss ?? loss)) ** 2);
  // Each of the two has half of the variance of their difference; a paired difference of patterns has both again.
  return Math.sqrt(squares.reduce((total, square) => total + square, 0)) / first.length;
}

/** Only the first layers of ranks Full. */
export function sparsestPattern(served: LiveModel): Pattern {
  const full = new Set([0, ...served.pinned]);
  return parsePattern([...served.ownPattern].map((letter, layer) => (full.has(layer) ? letter : "S")).join(""));
}

/** Every rank has run the indexers of Full layers, all of them equally often, and no others. */
export async function requireCalls(
  { adapter, description }: Replica,
  pattern: Pattern,
  signal: AbortSignal | undefined,
): Promise<void> {
  const letters = serverLetters(pattern, description);
  for (const [rank, calls] of (await adapter.count(false, signal)).entries()) {
    const most = Math.max(0, ...calls.map((count) => count ?? 0));
    for (const [layer, count] of calls.entries()) {
      if (count === null || (letters[layer] === "F" ? count === most && count > 0 : count === 0)) continue;
      throw new RuntimeFailure(
        `Patterns do not reach the model: under ${letters} the indexer of layer ${layer} ran ${count} times on rank ${rank} of ${adapter.url}, those of other Full layers ${most} times`,
        { hint: "are CUDA graphs on (--enforce-eager is missing)?" },
      );
    }
  }
}
