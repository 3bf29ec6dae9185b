/** One row of a comparison: the same items under a baseline and a candidate, from scores to a verdict. */
import { sum } from "../../base/sum.ts";
import { type Interval, studentInterval } from "./intervals.ts";
import { mcnemar } from "./mcnemar.ts";
import { signFlipTest } from "./permutation.ts";
import { minimumDetectableEffect, type PowerSettings } from "./power.ts";
import { BoundedMean, type DifferenceRule, PairedShares } from "./rule.ts";
import { macroMean, type Stratum, stratumOf } from "./strata.ts";
import { type Verdict, verdict } from "./verdict.ts";

/** One item under both arms. Scores are 0 to 1. */
export interface PairedItem {
  baseline: number;
  candidate: number;
  cluster?: string | undefined;
  /** Nats per token of the gold answer; undefined where it was not measured. */
  baselineLoss: number | undefined;
  candidateLoss: number | undefined;
  sameOutput: boolean;
}

/** The items of one task at one length. */
export interface PairedStratum {
  name: string;
  scores: "binary" | "graded";
  items: readonly PairedItem[];
}

export interface ComparisonSettings {
  /** Points as a share. */
  margin: number;
  power: PowerSettings;
  permutations: number;
  seed: number;
}

export interface Comparison {
  items: number;
  /** Candidate less baseline; of several strata the mean of their differences. */
  difference: number;
  /** Two-sided, of confidence 1 - alpha. */
  interval: Interval;
  intervalMethod: DifferenceRule["name"];
  /** One-sided bounds, each of confidence 1 - alpha: what the verdict looks at. */
  bounds: Interval;
  /** Two-sided, of no difference. */
  p: number;
  test: "mcnemar" | "sign-flip";
  midP: number | undefined;
  /** Items that the candidate does worse, and better. */
  lost: number;
  gained: number;
  sameOutputs: number;
  minimumDetectable: number | undefined;
  loss: { items: number; difference: number; interval: Interval | undefined } | undefined;
  ceiling: boolean;
  floor: boolean;
  verdict: Verdict;
}

/** Strata by what they were made of: rows share them. */
const cache = new WeakMap<PairedStratum, Stratum>();

export function compare(
  strata: readonly PairedStratum[],
  { margin, power, permutations, seed }: ComparisonSettings,
): Comparison {
  const items = strata.flatMap((stratum) => stratum.items);
  const scores = strata.map(scoreStratum);
  const binary = independentPairs(strata);
  const { lost, gained } = changedItems(items);
  const rule = differenceRule(strata);
  const bounds = boundsOf(rule, 1 - power.alpha);
  const difference = macroMean(scores);
  const loss = compareLosses(strata, 1 - power.alpha);
  const sameOutputs = items.filter(({ sameOutput }) => sameOutput).length;
  const floor = items.every(({ baseline, candidate }) => baseline === 0 && candidate === 0);
  const identical =
    sameOutputs === items.length &&
    items.every((item) => item.baseline === item.candidate && item.baselineLoss === item.candidateLoss);
  const test = binary ? mcnemar(lost, gained) : undefined;
  const p = test?.exact ?? signFlipTest(scores, { permutations, seed });
  const discordance = sum(items.map((item) => (item.candidate - item.baseline) ** 2)) / items.length;
  return {
    items: items.length,
    difference,
    interval: boundsOf(rule, 1 - power.alpha / 2),
    intervalMethod: rule.name,
    bounds,
    p,
    test: binary ? "mcnemar" : "sign-flip",
    midP: test?.midP,
    lost,
    gained,
    sameOutputs,
    minimumDetectable: minimumDetectableEffect(discordance, items.length, power),
    loss,
    ceiling: items.every(({ baseline, candidate }) => baseline === 1 && candidate === 1),
    floor,
    verdict: verdict({
      rule,
      difference,
      bounds,
      p,
      margin,
      strata: scores.length,
      identical,
      floor,
      power,
    }),
  };
}

/** How the difference of these items is bounded. */
export function differenceRule(strata: readonly PairedStratum[]): DifferenceRule {
  if (!independentPairs(strata)) return new BoundedMean(strata.map(scoreStratum));
  const items = strata.flatMap((stratum) => stratum.items);
  return new PairedShares({ ...changedItems(items), items: items.length });
}

/** Tango's score and McNemar's test are for independent pairs of right or wrong. */
function independentPairs(strata: readonly PairedStratum[]): boolean {
  const [first] = strata;
  return strata.length === 1 && first?.scores === "binary" && first.items.every(({ cluster }) => cluster === undefined);
}

function changedItems(items: readonly PairedItem[]): { lost: number; gained: number } {
  return {
    lost: items.filter(({ baseline, candidate }) => candidate < baseline).length,
    gained: items.filter(({ baseline, candidate }) => candidate > baseline).length,
  };
}

function scoreStratum(stratum: PairedStratum): Stratum {
  const known = cache.get(stratum);
  if (known !== undefined) return known;
  const made = stratumOf(
    stratum.name,
    stratum.items.map(({ baseline, candidate, cluster }) => ({ difference: candidate - baseline, cluster })),
  );
  cache.set(stratum, made);
  return made;
}

function boundsOf(rule: DifferenceRule, confidence: number): Interval {
  return { low: rule.lower(confidence), high: rule.upper(confidence) };
}

/** Losses are continuous, a handful of items gives their mean a Student interval. */
function compareLosses(strata: readonly PairedStratum[], confidence: number): Comparison["loss"] {
  const measured = strata.flatMap(({ name, items }) => {
    const differences = items.flatMap(({ baselineLoss, candidateLoss, cluster }) =>
      baselineLoss === undefined || candidateLoss === undefined
        ? []
        : [{ difference: candidateLoss - baselineLoss, cluster }],
    );
    return differences.length === 0 ? [] : [stratumOf(name, differences)];
  });
  if (measured.length === 0) return undefined;
  const items = sum(measured.flatMap(({ units }) => units.map((unit) => unit.items)));
  return { items, difference: macroMean(measured), interval: studentInterval(measured, confidence) };
}
