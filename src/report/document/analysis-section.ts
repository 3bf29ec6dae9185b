/** What layers select, and what sharing costs. */
import type { AnalysisFile } from "../../formats/analysis-file.ts";
import { formatCount, formatError, formatLoss, formatLossChange } from "../quantities.ts";
import type { AnalysisEvidence, Evidence } from "./evidence.ts";
import { heatmapChart, interactionChart } from "./heatmap-chart.ts";
import { bullets, code, table, text } from "./markdown.ts";
import { blocks, chartLine, type Section } from "./section.ts";
import { sensitivityChart } from "./sensitivity-chart.ts";

const statistics = [
  ["overlap", "top-k overlap"],
  ["recall", "attention-mass recall"],
  ["similarity", "similarity of outputs"],
] as const;

export async function analysisSections({ analyses }: Evidence): Promise<Section[]> {
  const sections: Section[] = [];
  for (const analysis of analyses) {
    const suffix = analyses.length === 1 ? "" : `-${analysis.name}`;
    const title = analyses.length === 1 ? "" : `: ${text(analysis.name)}`;
    sections.push(await layersSection(analysis, suffix, title), await sharingSection(analysis, suffix, title));
  }
  return sections;
}

async function layersSection({ file }: AnalysisEvidence, suffix: string, title: string): Promise<Section> {
  const searched = file.patterns.findLast(({ origin }) => origin === "searched")?.index_topk_pattern;
  const charts = [];
  for (const [field, name] of statistics) {
    charts.push(await heatmapChart(`${field}${suffix}`, name, file[field].mean, file.sources, searched));
  }
  const marked = searched === undefined ? "" : ` Rings: what the searched pattern ${code(searched)} shares.`;
  return {
    heading: `What layers select${title}`,
    body: blocks(
      `Over ${formatCount(file.queries)} queries that see at least ${formatCount(file.model.index_topk)} keys, on the run of ${code(file.index_topk_pattern)}.${marked}`,
      bullets([
        "top-k overlap: the share of one layer's tokens that the other has chosen too",
        "attention-mass recall: how much of the dense attention of the row's layer falls on the column's tokens",
        "similarity of outputs: cosine of the row's attention output with its own and with the column's tokens",
      ]),
      chartLine(charts),
      positionTable(file),
    ),
    charts,
  };
}

/** How the statistics of neighbours change with the number of keys. */
function positionTable(file: AnalysisFile): string | undefined {
  if (file.overlap.by_position.length < 2) return undefined;
  const rows = file.overlap.by_position.map(({ from, to, queries }, index) => [
    `${formatCount(from)} to ${formatCount(to)}`,
    formatCount(queries),
    ...statistics.map(([field]) => {
      const bucket = file[field].by_position[index];
      return bucket === undefined ? "" : neighbourMean(bucket.mean, file.sources).toFixed(3);
    }),
  ]);
  const columns = [
    { title: "Visible keys" },
    { title: "Queries", align: "right" as const },
    ...statistics.map(([, name]) => ({ title: name, align: "right" as const })),
  ];
  return blocks("Means over pairs of a layer and the one before it:", table(columns, rows));
}

function neighbourMean(matrix: AnalysisFile["overlap"]["mean"], sources: readonly number[]): number {
  const values = matrix.flatMap((row, layer) => {
    const value = row[sources.indexOf(layer - 1)];
    return value == null ? [] : [value];
  });
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

async function sharingSection({ file }: AnalysisEvidence, suffix: string, title: string): Promise<Section> {
  const flips = await sensitivityChart(`sensitivity${suffix}`, file.sensitivity.flips);
  const pairs =
    file.pairs === undefined || file.pairs.length === 0
      ? undefined
      : await interactionChart(`interaction${suffix}`, file.pairs, file.model.layers);
  const charts = [flips, ...(pairs === undefined ? [] : [pairs])];
  return {
    heading: `What sharing costs${title}`,
    body: blocks(
      `Each layer made Shared alone, from ${code(file.sensitivity.base)} at ${formatLoss(file.sensitivity.base_loss)} nats${pairs === undefined ? "" : "; and what two flips cost beyond the sum of both"}. Bars are 95% intervals, paired over sequences.`,
      chartLine(charts),
      "Patterns that are best by a local statistic, beside the searched one:",
      patternsTable(file),
    ),
    charts,
  };
}

function patternsTable(file: AnalysisFile): string {
  const rows = file.patterns.map((entry) => {
    const local = entry.mean_of_shared_layers;
    return [
      entry.origin,
      String(entry.full_layers),
      ...statistics.map(([field]) => (local === null ? "" : local[field].toFixed(3))),
      entry.change === 0 ? "" : `${formatLossChange(entry.change)} ± ${formatError(entry.change_standard_error)}`,
      code(entry.index_topk_pattern),
    ];
  });
  const columns = [
    { title: "Made by" },
    { title: "Full", align: "right" as const },
    ...statistics.map(([, name]) => ({ title: name, align: "right" as const })),
    { title: "Loss change", align: "right" as const },
    { title: "Pattern" },
  ];
  return table(columns, rows);
}
