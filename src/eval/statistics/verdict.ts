/**
 * What a comparison says about a pattern. "No significant difference" is not "no loss": a pattern passes when the data
 * exclude a loss of more than the margin, fails when they prove one, and everything else is said to be open.
 */
import type { EvalComparison } from "../../formats/eval-result.ts";
import type { Interval } from "./intervals.ts";
import type { PowerSettings } from "./power.ts";
import type { Claim, DifferenceRule, Future } from "./rule.ts";

/** The verdict, and of an inconclusive one how many more items settle it. */
type Verdict = Pick<EvalComparison, "verdict" | "items_needed">;

export interface VerdictQuestion {
  rule: DifferenceRule;
  difference: number;
  /** Bounds of the difference, each of one-sided confidence 1 - alpha. */
  bounds: Interval;
  /** Two-sided, of no difference. */
  p: number;
  /** Points as a share: 0.01. */
  margin: number;
  /** Tasks at lengths: items come to all of them alike. */
  strata: number;
  /** The same pattern, every output the same, every score and loss equal to the last bit. */
  identical: boolean;
  /** A loss of more than the margin could not be seen: the baseline has none to lose, or the pattern never acted. */
  blind: boolean;
  power: PowerSettings;
}

export function verdict(question: VerdictQuestion): Verdict {
  const { bounds, p, margin, identical, blind, power } = question;
  if (identical) return { verdict: "identical" };
  // What is worse than the margin is worse at all: the p beside it must say so too.
  if (bounds.high < -margin && p / 2 <= power.alpha) return { verdict: "inferior" };
  if (blind) return { verdict: "inconclusive" };
  if (bounds.low > -margin) return { verdict: "non-inferior" };
  return { verdict: "inconclusive", items_needed: itemsNeeded(question) };
}

/** Looking further ahead than this is of no use to anybody. */
const MOST_ITEMS = 1_000_000;

/** If there is no difference; or if it is the observed one, where that lies beyond the margin and is proven sooner. */
function itemsNeeded({ rule, difference, margin, strata, power }: VerdictQuestion): number | undefined {
  const enough = (claim: Claim, future: Future) =>
    fewest((rounds) => rule.provesWith(rounds * strata, claim, future, power), MOST_ITEMS / strata);
  const noDifference = margin === 0 ? undefined : enough({ side: "above", value: -margin }, "no difference");
  const observed = difference < -margin ? enough({ side: "below", value: -margin }, "as observed") : undefined;
  const rounds = Math.min(noDifference ?? Number.POSITIVE_INFINITY, observed ?? Number.POSITIVE_INFINITY);
  return Number.isFinite(rounds) ? rounds * strata : undefined;
}

/** The smallest count from 1 on that is enough, where more are enough too; undefined where `most` are not. */
function fewest(isEnough: (count: number) => boolean, most: number): number | undefined {
  let high = 1;
  while (!isEnough(high)) {
    if (high >= most) return undefined;
    high = Math.min(2 * high, Math.ceil(most));
  }
  let low = Math.floor(high / 2);
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (isEnough(middle)) high = middle;
    else low = middle;
  }
  return high;
}
