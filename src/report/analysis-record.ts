/** The losses of an analysis as its file has them. */
import { type ComparedPattern, type PairStatisticsResult, sharedLayerMeans } from "../analyze/compared-patterns.ts";
import { lossChange, type MeasuredPattern, type measureFlips, type measurePairs } from "../analyze/loss-change.ts";
import { sum } from "../base/sum.ts";
import type { AnalysisFile, Statistic } from "../formats/analysis-file.ts";
import { fullLayers } from "../pattern/pattern.ts";

export interface AnalysisLosses {
  /** Of the model's own pattern, and of the one that single layers were flipped in. */
  own: MeasuredPattern;
  base: MeasuredPattern;
  compared: MeasuredPattern[];
  flips: Awaited<ReturnType<typeof measureFlips>>;
  pairs: Awaited<ReturnType<typeof measurePairs>> | undefined;
}

/** What the compared patterns lose, and how alike their Shared layers and those that they read from are. */
export function comparedPatterns(
  candidates: readonly ComparedPattern[],
  { own, compared }: AnalysisLosses,
  sources: readonly number[],
  statistics: PairStatisticsResult,
): AnalysisFile["patterns"] {
  const all: { origin: AnalysisFile["patterns"][number]["origin"]; measurement: MeasuredPattern }[] = [
    { origin: "model", measurement: own },
    ...candidates.map(({ origin }, index) => ({ origin, measurement: compared[index] as MeasuredPattern })),
  ];
  return all.map(({ origin, measurement }) => {
    const { change, standardError } = lossChange(measurement, own);
    return {
      origin,
      full_layers: fullLayers(measurement.pattern).length,
      index_topk_pattern: measurement.pattern,
      mean_of_shared_layers: sharedLayerMeans(measurement.pattern, sources, statistics),
      loss: measurement.loss,
      standard_error: measurement.standardError,
      change,
      change_standard_error: standardError,
    };
  });
}

/** Mean of a statistic over the layers with an indexer, each beside the indexer before it; "-" for a single one. */
export function besideIndexerBefore(matrix: Statistic["mean"], sources: readonly number[]): string {
  const values = sources.slice(1).map((layer, index) => matrix[layer]?.[index] ?? Number.NaN);
  return values.length === 0 ? "-" : (sum(values) / values.length).toFixed(3);
}

/** What single flips cost, and pairs of them. */
export function flipRecords({ base, flips, pairs }: AnalysisLosses): Pick<AnalysisFile, "sensitivity" | "pairs"> {
  return {
    sensitivity: {
      base: base.pattern,
      base_loss: base.loss,
      flips: flips.map(({ layer, measurement, change, standardError }) => ({
        layer,
        loss: measurement.loss,
        change,
        change_standard_error: standardError,
      })),
    },
    pairs: pairs?.map(({ layers, measurement, change, interaction }) => ({
      layers,
      loss: measurement.loss,
      change,
      interaction: interaction.change,
      interaction_standard_error: interaction.standardError,
    })),
  };
}
