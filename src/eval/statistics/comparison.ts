/** One row of a comparison: the same items under a baseline and a candidate, from scores to a verdict. */
import { normalQuantile } from "../../base/distributions.ts";
import { sum } from "../../base/sum.ts";
import type { EvalComparison } from "../../formats/eval-result.ts";
import { type Interval, studentInterval } from "./intervals.ts";
import { minimumDetectableEffect, type PowerSettings } from "./power.ts";
import { BoundedMean, type DifferenceRule, PairedShares } from "./rule.ts";
import { mcnemar, signFlipTest } from "./significance.ts";
import { macroMean, type Stratum, stratumOf } from "./strata.ts";
import { verdict } from "./verdict.ts";

/** One item under both arms. Scores are 0 to 1. */
export interface PairedItem {
  baseline: number;
  candidate: number;
  cluster?: string | undefined;
  /** Nats per token of the gold answer; undefined where it was not measured. */
  baselineLoss: number | undefined;
  candidateLoss: number | undefined;
  sameOutput: boolean;
  /** What guessing scores: a quarter where four choices are offered. Default 0. */
  chance?: number;
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

/** A comparison as result files have it, but for what depends on other arms and rows. */
export type Comparison = Omit<EvalComparison, "arm" | "first_divergence" | "p_holm">;

/** Strata by what they were made of: rows share them. */
const cache = new WeakMap<PairedStratum, Stratum>();

/** @param samePattern both arms run the same letters, so that they may be alike in everything */
export function compare(
  strata: readonly PairedStratum[],
  { margin, power, permutations, seed }: ComparisonSettings,
  samePattern = false,
): Comparison {
  const items = strata.flatMap((stratum) => stratum.items);
  const scores = strata.map(scoreStratum);
  const binary = independentPairs(strata);
  const { lost, gained } = changedItems(items);
  const rule = differenceRule(strata);
  const bounds = boundsOf(rule, 1 - power.alpha);
  const difference = macroMean(scores);
  const sameOutputs = items.filter(({ sameOutput }) => sameOutput).length;
  const alike =
    sameOutputs === items.length &&
    items.every((item) => item.baseline === item.candidate && item.baselineLoss === item.candidateLoss);
  // Losses move with any change of what is computed; equal answers without them may be equal by chance.
  const noEffect = alike && !samePattern && items.some(({ baselineLoss }) => baselineLoss !== undefined);
  const floor = hasNothingToLose(strata, margin, power.alpha);
  const test = binary ? mcnemar(lost, gained) : undefined;
  const p = test?.exact ?? signFlipTest(scores, { permutations, seed });
  const discordance = sum(items.map((item) => (item.candidate - item.baseline) ** 2)) / items.length;
  return {
    items: items.length,
    difference,
    interval: boundsOf(rule, 1 - power.alpha / 2),
    interval_method: rule.name,
    bounds,
    p,
    test: binary ? "mcnemar" : "sign-flip",
    mid_p: test?.midP,
    lost,
    gained,
    same_outputs: sameOutputs,
    minimum_detectable: minimumDetectableEffect(discordance, items.length, power),
    gold_loss: compareLosses(strata, 1 - power.alpha),
    ...verdict({
      rule,
      difference,
      bounds,
      p,
      margin,
      strata: scores.length,
      identical: alike && samePattern,
      blind: noEffect || floor,
      power,
    }),
    note: noEffect
      ? "no effect"
      : items.every(({ baseline, candidate }) => baseline === 1 && candidate === 1)
        ? "ceiling"
        : floor
          ? "floor"
          : undefined,
  };
}

/** The baseline scores at most the margin; where one can guess, no more than guessing does, tested one-sided. */
function hasNothingToLose(strata: readonly PairedStratum[], margin: number, alpha: number): boolean {
  const chances = strata.map(({ items }) => items.map(({ chance = 0 }) => chance));
  const mean = (values: readonly number[]) => sum(values) / values.length;
  const score = mean(strata.map(({ items }) => mean(items.map(({ baseline }) => baseline))));
  const variance =
    sum(chances.map((of) => sum(of.map((one) => one * (1 - one))) / of.length ** 2)) / strata.length ** 2;
  const guessed = mean(chances.map(mean));
  return score <= guessed + Math.max(margin, normalQuantile(1 - alpha) * Math.sqrt(variance));
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
function compareLosses(strata: readonly PairedStratum[], confidence: number): Comparison["gold_loss"] {
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
