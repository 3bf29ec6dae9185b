/** What `analyze` prints: heatmaps, the patterns side by side, what single layers cost. */
import type { AnalysisFile, Statistic } from "../formats/analysis-file.ts";
import { formatHeatmap } from "./heatmap.ts";
import { formatCount, formatDuration, formatError, formatLoss, formatLossChange } from "./quantities.ts";
import { formatFields, formatTable } from "./text-table.ts";

/** Pairs that are listed: those that interact most. */
const LISTED_PAIRS = 12;

export function formatAnalysisReport(file: AnalysisFile): string {
  return [
    formatFields([
      ["Model", `${file.model.name}, ${file.model.layers} layers, index_topk ${file.model.index_topk}`],
      ["Pattern", file.index_topk_pattern],
      [
        "Queries",
        `${formatCount(file.queries)} that see at least index_topk keys, of ${formatCount(file.calibration.tokens)} tokens in ${formatCount(file.calibration.sequences)} sequences`,
      ],
      ["Time", formatDuration(file.seconds)],
    ]),
    heatmap("Overlap: keys that both layers select, of 100", file.overlap, file.sources),
    heatmap(
      "Recall: attention mass of the row's layer on keys that the column's layer selects, of 100",
      file.recall,
      file.sources,
    ),
    heatmap(
      "Similarity: cosine x 100 of the row's attention output with its own and with the column's selection",
      file.similarity,
      file.sources,
    ),
    positions(file),
    patterns(file),
    sensitivity(file),
    ...(file.pairs === undefined ? [] : [pairs(file.pairs)]),
  ].join("\n\n");
}

function heatmap(title: string, { mean }: Statistic, sources: readonly number[]): string {
  return `${title}\n${formatHeatmap(mean, sources)}`;
}

/** Means over neighbouring layers, by position: the heatmaps in a few numbers. */
function positions({ overlap, recall, similarity, sources }: AnalysisFile): string {
  const neighbours = (matrix: Statistic["mean"]): string => {
    const values = sources.slice(1).map((layer, index) => matrix[layer]?.[index] ?? Number.NaN);
    return values.length === 0 ? "-" : (values.reduce((sum, value) => sum + value, 0) / values.length).toFixed(3);
  };
  const rows = overlap.by_position.map(({ from, to, queries, mean }, index) => [
    `${formatCount(from)} to ${formatCount(to)}`,
    formatCount(queries),
    ...[mean, recall.by_position[index]?.mean ?? [], similarity.by_position[index]?.mean ?? []].map(neighbours),
  ]);
  const all = ["all", formatCount(overlap.by_position.reduce((total, { queries }) => total + queries, 0))];
  rows.push([...all, ...[overlap, recall, similarity].map(({ mean }) => neighbours(mean))]);
  const right = (title: string) => ({ title, align: "right" as const });
  const columns = [{ title: "Visible keys" }, right("Queries"), right("Overlap"), right("Recall"), right("Similarity")];
  return `Each layer with the indexer before it, by position\n${formatTable(columns, rows)}`;
}

function patterns({ patterns: compared }: AnalysisFile): string {
  const rows = compared.map((pattern) => {
    const means = pattern.mean_of_shared_layers;
    return [
      pattern.origin,
      String(pattern.full_layers),
      formatLoss(pattern.loss),
      pattern.origin === "model" ? "" : formatLossChange(pattern.change),
      pattern.origin === "model" ? "" : formatError(pattern.change_standard_error),
      ...(means === null
        ? ["", "", ""]
        : [means.overlap, means.recall, means.similarity].map((mean) => mean.toFixed(3))),
      pattern.index_topk_pattern,
    ];
  });
  const right = (title: string) => ({ title, align: "right" as const });
  const columns = [
    { title: "By" },
    right("Full"),
    right("Loss"),
    right("Change"),
    right("+-"),
    right("Overlap"),
    right("Recall"),
    right("Similarity"),
    { title: "Pattern" },
  ];
  return `Patterns: loss on the calibration set, statistics of their Shared layers\n${formatTable(columns, rows)}`;
}

function sensitivity({ sensitivity: { base, flips } }: AnalysisFile): string {
  if (flips.length === 0) return `Sensitivity: ${base} has no Full layer to flip`;
  const rows = flips.map(({ layer, loss, change, change_standard_error: error }) => [
    String(layer),
    formatLoss(loss),
    formatLossChange(change),
    formatError(error),
  ]);
  const columns = ["Layer", "Loss", "Change", "+-"].map((title) => ({ title, align: "right" as const }));
  return `Sensitivity: one more Shared layer in ${base}\n${formatTable(columns, rows)}`;
}

function pairs(all: NonNullable<AnalysisFile["pairs"]>): string {
  const strongest = [...all].sort((a, b) => Math.abs(b.interaction) - Math.abs(a.interaction)).slice(0, LISTED_PAIRS);
  const rows = strongest.map(({ layers, change, interaction, interaction_standard_error: error }) => [
    layers.join(" + "),
    formatLossChange(change),
    formatLossChange(interaction),
    formatError(error),
  ]);
  const columns = ["Layers", "Change", "Interaction", "+-"].map((title) => ({ title, align: "right" as const }));
  const title = `Pairs: the ${strongest.length} of ${all.length} that interact most (change less the changes of both alone)`;
  return `${title}\n${formatTable(columns, rows)}`;
}
