/**
 * Difference of two paired shares of right answers. The statistic is Tango's score (Statistics in Medicine 17, 1998,
 * 891-908): of the difference, standardized by its deviation if the true difference were `difference`. Where discordant
 * pairs are rare its normal limit passes too much; there the p-value is the exact unconditional one, the largest over what
 * the discordant share may be (Hsueh, Liu and Chen, Biometrics 57, 2001, 478-483; Sidik, 2003).
 */
import { normalCdf, normalQuantile } from "../../base/distributions.ts";

/** Items that the arms judge differently. */
export interface Discordant {
  lost: number;
  gained: number;
}

/** Discordant pairs from which on the normal limit is as good: its error rate exceeds the nominal 5% by 0.3% at most. */
const NORMAL_FROM = 60;
/** Seen so many, a share that lets fewer than `NORMAL_FROM` be expected is out of the question. */
const SURELY_MANY = 180;
/** Shares of discordant pairs that are tried. */
const NUISANCE_STEPS = 24;
const TOLERANCE = 1e-7;

/** Tango's score; high where the observed difference lies above `difference`, which is candidate less baseline. */
export function tangoScore({ lost, gained }: Discordant, items: number, difference: number): number {
  const b = (2 * items - gained + lost) * difference - gained - lost;
  const c = -lost * difference * (1 - difference);
  const lostShare = (Math.sqrt(Math.max(b * b - 8 * items * c, 0)) - b) / (4 * items);
  const variance = items * (2 * lostShare + difference * (1 - difference));
  const excess = gained - lost - items * difference;
  if (Math.abs(excess) < 1e-12) return 0;
  return variance > 0 ? excess / Math.sqrt(variance) : excess * Number.POSITIVE_INFINITY;
}

/** One-sided p of the true difference being `difference` or less. */
export function exceedanceP(discordant: Discordant, items: number, difference: number): number {
  const score = tangoScore(discordant, items, difference);
  const tail = 1 - normalCdf(score);
  const many = discordant.lost + discordant.gained > SURELY_MANY;
  return many ? tail : Math.max(tail, largestTail(score, items, difference));
}

/** Lower bound of the difference, of one-sided `confidence`: the smallest difference that is not rejected. */
export function lowerBoundOfDifference(discordant: Discordant, items: number, confidence: number): number {
  const alpha = 1 - confidence;
  const estimate = (discordant.gained - discordant.lost) / items;
  const z = normalQuantile(confidence);
  const asymptotic = bisect(-1, estimate, (difference) => tangoScore(discordant, items, difference) >= z);
  let [low, high] = [asymptotic, asymptotic];
  for (let step = Math.max((estimate - asymptotic) / 4, 1e-4); low > -1; step *= 2) {
    if (low > -1 && exceedanceP(discordant, items, low) <= alpha) break;
    high = low;
    low = Math.max(-1, low - step);
  }
  if (low === high) return low;
  return bisect(low, high, (difference) => exceedanceP(discordant, items, difference) <= alpha);
}

export function upperBoundOfDifference({ lost, gained }: Discordant, items: number, confidence: number): number {
  return -lowerBoundOfDifference({ lost: gained, gained: lost }, items, confidence);
}

/** Chance that `more` pairs beside those seen reject `difference` at level alpha, each lost or gained with these shares. */
export function powerOfMore(
  seen: Discordant & { items: number },
  more: number,
  shares: Discordant,
  { difference, alpha }: { difference: number; alpha: number },
): number {
  const items = seen.items + more;
  const discordant = seen.lost + seen.gained + more * (shares.lost + shares.gained);
  const normal = normalQuantile(1 - alpha);
  const critical = discordant > SURELY_MANY ? normal : criticalScore(normal, items, difference, alpha);
  return chanceOfScore(
    critical,
    { lost: shares.lost, gained: shares.gained, pairs: more },
    { ...seen, items },
    difference,
  );
}

/** Smallest score from `normal` on that rejects at level alpha. */
function criticalScore(normal: number, items: number, difference: number, alpha: number): number {
  const holds = (score: number) => largestTail(score, items, difference) <= alpha;
  if (holds(normal)) return normal;
  let [low, high] = [normal, normal + 0.25];
  while (!holds(high)) [low, high] = [high, high + 0.5];
  for (let i = 0; i < 8; i++) {
    const middle = (low + high) / 2;
    if (holds(middle)) high = middle;
    else low = middle;
  }
  return high;
}

/** P(score >= `score`) of `items` pairs whose true difference is `difference`, the largest over rare discordance. */
function largestTail(score: number, items: number, difference: number): number {
  const least = Math.abs(difference);
  if (items * least > NORMAL_FROM) return 0;
  const most = Math.min((1 - least) / 2, (NORMAL_FROM / items - least) / 2);
  let largest = 0;
  for (let i = 0; i <= NUISANCE_STEPS; i++) {
    const both = most * (i / NUISANCE_STEPS) ** 2;
    const shares = { lost: both + Math.max(0, -difference), gained: both + Math.max(0, difference), pairs: items };
    largest = Math.max(largest, chanceOfScore(score, shares, { lost: 0, gained: 0, items }, difference));
  }
  return largest;
}

/**
 * P(score >= `score`) where `pairs` random pairs come to those that are seen already.
 * The score falls with every lost pair and rises with every gained one, so that each count of lost pairs has a least count
 * of gained ones.
 */
function chanceOfScore(
  score: number,
  { lost, gained, pairs }: Discordant & { pairs: number },
  seen: Discordant & { items: number },
  difference: number,
): number {
  const spread = 8 * Math.sqrt(pairs * lost * (1 - lost)) + 8;
  const first = Math.max(0, Math.floor(pairs * lost - spread));
  const last = Math.min(pairs, Math.ceil(pairs * lost + spread));
  const gainedGivenNotLost = Math.min(gained / (1 - lost), 1 - 1e-12);
  let least = 0;
  let chance = 0;
  for (let y = first; y <= last; y++) {
    const weight = binomial(y, pairs, lost);
    const left = pairs - y;
    while (
      least <= left &&
      tangoScore({ lost: seen.lost + y, gained: seen.gained + least }, seen.items, difference) < score - 1e-9
    ) {
      least++;
    }
    if (least > left) break;
    if (weight > 1e-14) chance += weight * atLeast(least, left, gainedGivenNotLost);
  }
  return Math.min(chance, 1);
}

/** P(X >= least) of a binomial X. */
function atLeast(least: number, trials: number, share: number): number {
  if (least <= 0) return 1;
  if (least > trials || share === 0) return 0;
  const mean = trials * share;
  const deviation = Math.sqrt(mean * (1 - share));
  if (least > mean + 9 * deviation + 9) return 0;
  if (least < mean - 9 * deviation - 9) return 1;
  // Sums the shorter way from `least`, until the terms vanish.
  const odds = share / (1 - share);
  const upward = least > mean;
  let k = upward ? least : least - 1;
  let term = binomial(k, trials, share);
  let total = 0;
  while (term > 1e-17 && k >= 0 && k <= trials) {
    total += term;
    term *= upward ? ((trials - k) / (k + 1)) * odds : k / (trials - k + 1) / odds;
    k += upward ? 1 : -1;
  }
  return upward ? total : 1 - total;
}

function binomial(k: number, trials: number, share: number): number {
  if (share === 0) return k === 0 ? 1 : 0;
  if (share === 1) return k === trials ? 1 : 0;
  return Math.exp(
    logFactorial(trials) -
      logFactorial(k) -
      logFactorial(trials - k) +
      k * Math.log(share) +
      (trials - k) * Math.log1p(-share),
  );
}

const logFactorials = [0];

function logFactorial(n: number): number {
  for (let k = logFactorials.length; k <= n; k++) logFactorials.push((logFactorials[k - 1] as number) + Math.log(k));
  return logFactorials[n] as number;
}

/** The largest value of [low, high] at which `rejected` holds, if it holds at `low` and not at `high`. */
function bisect(low: number, high: number, rejected: (value: number) => boolean): number {
  let [below, above] = [low, high];
  while (above - below > TOLERANCE) {
    const middle = (below + above) / 2;
    if (rejected(middle)) below = middle;
    else above = middle;
  }
  return below;
}
