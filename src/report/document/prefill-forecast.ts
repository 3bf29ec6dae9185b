/**
 * What a pattern gains at prompt lengths that nobody has timed, from the costs of layers at those that somebody has. A
 * prefill's time per token is taken as linear in the length, a line through the two nearest lengths that were timed: a layer
 * has parts that grow with the prompt and parts, the indexer's above all, that grow with its square.
 */
import type { LayerCosts } from "../../pattern/latency.ts";
import { predictLatency, predictSpeedup } from "../../pattern/latency.ts";
import { fullPattern, type Pattern } from "../../pattern/pattern.ts";

/** Costs of layers in the prefill of a whole prompt. */
export interface TimedLength {
  context: number;
  costs: LayerCosts;
}

/** Lengths of a user's prompts, with how often they come. */
export interface PromptLengths {
  /** Ascending; weights as they were given. */
  entries: readonly { tokens: number; weight: number }[];
}

export interface PrefillForecast {
  lengths: {
    tokens: number;
    /** Of all prompts; they sum to 1. */
    share: number;
    speedup: number;
    /** Outside the lengths that were timed. */
    extrapolated: boolean;
  }[];
  /** Seconds of all prompts with every indexer over seconds with the pattern: long prompts count for what they take. */
  speedup: number;
  /** What the weights summed to before they were made to sum to 1. */
  weightSum: number;
}

/** @param timed at least one length */
export function forecastPrefill(
  pattern: Pattern,
  timed: readonly TimedLength[],
  { entries }: PromptLengths,
): PrefillForecast {
  const known = [...timed].sort((a, b) => a.context - b.context);
  const [shortest, longest] = [known[0], known.at(-1)];
  if (shortest === undefined || longest === undefined) throw new RangeError("no length was timed");
  const weightSum = entries.reduce((total, { weight }) => total + weight, 0);
  const full = fullPattern(pattern.length);
  let [before, after] = [0, 0];
  const lengths = entries.map(({ tokens, weight }) => {
    const costs = costsAt(known, tokens);
    const share = weight / weightSum;
    before += share * predictLatency(full, costs);
    after += share * predictLatency(pattern, costs);
    const extrapolated = tokens < shortest.context || tokens > longest.context;
    return { tokens, share, speedup: predictSpeedup(pattern, costs), extrapolated };
  });
  return { lengths, speedup: before / after, weightSum };
}

/** @param known ascending by length */
function costsAt(known: readonly TimedLength[], tokens: number): LayerCosts {
  const above = known.findIndex(({ context }) => context >= tokens);
  const to = above === -1 ? known.length - 1 : above;
  const high = known[Math.min(known.length - 1, Math.max(to, 1))] as TimedLength;
  const low = known[Math.max(0, Math.max(to, 1) - 1)] as TimedLength;
  const at = (part: keyof LayerCosts): number => {
    const [perLow, perHigh] = [low.costs[part] / low.context, high.costs[part] / high.context];
    // Below the shortest length per token as there: the line might fall to nothing.
    if (tokens < low.context) return perLow * tokens;
    const slope = high.context === low.context ? 0 : (perHigh - perLow) / (high.context - low.context);
    return Math.max(0, perLow + slope * (tokens - low.context)) * tokens;
  };
  return {
    otherSeconds: at("otherSeconds"),
    fullLayerSeconds: at("fullLayerSeconds"),
    sharedLayerSeconds: at("sharedLayerSeconds"),
  };
}
