/** The patterns that are set side by side at each retention: optima of the statistics, a fixed schedule, a searched one. */
import type { AnalysisFile, Statistic } from "../formats/analysis-file.ts";
import type { PatternFile } from "../formats/pattern-schema.ts";
import { fullLayers, type Pattern, parsePattern } from "../pattern/pattern.ts";
import { evenPattern } from "../pattern/schedule.ts";
import { bestSharing, meanSharing } from "./sharing-optimum.ts";

type Origin = AnalysisFile["patterns"][number]["origin"];

const statisticNames = ["overlap", "recall", "similarity"] as const;

export interface ComparedPattern {
  origin: Origin;
  pattern: Pattern;
}

export type PairStatisticsResult = Record<(typeof statisticNames)[number], Statistic>;

/**
 * Candidates with `full` Full layers.
 * @param indexers F if the model has an indexer there
 * @param searched of the same model; its pattern of this size, if it has one
 */
export function candidatesOf(
  full: number,
  indexers: Pattern,
  statistics: PairStatisticsResult,
  searched: PatternFile | undefined,
): ComparedPattern[] {
  const sources = fullLayers(indexers);
  const candidates: ComparedPattern[] = [{ origin: "uniform", pattern: evenPattern(full, indexers) }];
  for (const origin of statisticNames) {
    candidates.push({ origin, pattern: bestSharing({ sources, values: statistics[origin].mean }, full) });
  }
  const found = searched === undefined ? undefined : searchedPattern(searched, full);
  if (found !== undefined) candidates.push({ origin: "searched", pattern: found });
  return candidates;
}

/** The three statistics of a pattern's Shared layers; null without any. */
export function sharedLayerMeans(
  pattern: Pattern,
  sources: readonly number[],
  statistics: PairStatisticsResult,
): AnalysisFile["patterns"][number]["mean_of_shared_layers"] {
  const mean = (name: (typeof statisticNames)[number]) =>
    meanSharing({ sources, values: statistics[name].mean }, pattern);
  const [overlap, recall, similarity] = [mean("overlap"), mean("recall"), mean("similarity")];
  if (overlap === undefined || recall === undefined || similarity === undefined) return null;
  return { overlap, recall, similarity };
}

/** The pattern of `full` Full layers that a search went through, if it did. */
function searchedPattern(file: PatternFile, full: number): Pattern | undefined {
  // What was wanted, or met on the way: the frontier has the best pattern of each size.
  const steps = [...file.trajectory, ...(file.search.frontier ?? []), ...(file.patterns ?? []), file];
  const found = steps
    .filter(({ index_topk_pattern: letters }) => fullLayers(parsePattern(letters)).length === full)
    .at(-1);
  return found === undefined ? undefined : parsePattern(found.index_topk_pattern);
}
