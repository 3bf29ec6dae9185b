/** What layers select, and what sharing costs. */
import type { AnalysisFile } from "../../formats/analysis-file.ts";
import { besideIndexerBefore } from "../analysis-record.ts";
import { formatCount, formatError, formatLoss, formatLossChange } from "../quantities.ts";
import { left, right } from "../text-table.ts";
import { type Chart, drawChart, errorBar } from "./chart.ts";
import type { AnalysisEvidence } from "./evidence.ts";
import { heatmapChart, interactionChart } from "./heatmap-chart.ts";
import { bullets, code, table } from "./markdown.ts";
import { ink, seriesColors } from "./palette.ts";
import { blocks, chartLine, type Section, type SectionNames } from "./section.ts";

const statistics = [
  ["overlap", "top-k overlap"],
  ["recall", "attention-mass recall"],
  ["similarity", "similarity of outputs"],
] as const;

export async function layersSection({ file }: AnalysisEvidence, { suffix, label }: SectionNames): Promise<Section> {
  const searched = file.patterns.findLast(({ origin }) => origin === "searched")?.index_topk_pattern;
  const charts = [];
  for (const [field, name] of statistics) {
    charts.push(await heatmapChart(`${field}${suffix}`, name, file[field].mean, file.sources, searched));
  }
  const marked = searched === undefined ? "" : ` Rings: what the searched pattern ${code(searched)} shares.`;
  return {
    heading: `What layers select${label(": ")}`,
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

type Bucket = AnalysisFile["overlap"]["by_position"][number];
type Compared = AnalysisFile["patterns"][number];

/** How the statistics change with the number of keys. */
function positionTable(file: AnalysisFile): string | undefined {
  if (file.overlap.by_position.length < 2) return undefined;
  const columns = [
    left<Bucket>("Visible keys", ({ from, to }) => `${formatCount(from)} to ${formatCount(to)}`),
    right<Bucket>("Queries", ({ queries }) => formatCount(queries)),
    ...statistics.map(([field, name]) =>
      right<Bucket>(name, (_, index) => {
        const bucket = file[field].by_position[index];
        return bucket === undefined ? "" : besideIndexerBefore(bucket.mean, file.sources);
      }),
    ),
  ];
  return blocks(
    "Means over the layers with an indexer, each beside the indexer before it:",
    table(file.overlap.by_position, columns),
  );
}

export async function sharingSection({ file }: AnalysisEvidence, { suffix, label }: SectionNames): Promise<Section> {
  const flips = await sensitivityChart(`sensitivity${suffix}`, file.sensitivity.flips);
  const pairs =
    file.pairs === undefined || file.pairs.length === 0
      ? undefined
      : await interactionChart(`interaction${suffix}`, file.pairs, file.model.layers);
  const charts = [flips, ...(pairs === undefined ? [] : [pairs])];
  return {
    heading: `What sharing costs${label(": ")}`,
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
  return table(file.patterns, [
    left("Made by", ({ origin }) => origin),
    right("Full", ({ full_layers: full }) => String(full)),
    ...statistics.map(([field, name]) =>
      right<Compared>(name, ({ mean_of_shared_layers: local }) => local?.[field].toFixed(3) ?? ""),
    ),
    right("Loss change", ({ change, change_standard_error: error }) =>
      change === 0 ? "" : `${formatLossChange(change)} ± ${formatError(error)}`,
    ),
    left("Pattern", ({ index_topk_pattern: letters }) => code(letters)),
  ]);
}

/** The loss of making one layer Shared, layer by layer. */
function sensitivityChart(name: string, flips: AnalysisFile["sensitivity"]["flips"]): Promise<Chart> {
  const values = flips.map(({ layer, change, change_standard_error: error }) => ({
    layer,
    change,
    ...errorBar(change, error),
  }));
  const every = values.length > 24 ? 10 : 1;
  return drawChart(name, "Loss change of each single flip", {
    data: { values },
    width: 440,
    height: 200,
    encoding: {
      x: {
        field: "layer",
        type: "ordinal",
        title: "layer made Shared",
        axis: { labelAngle: 0, values: values.map(({ layer }) => layer).filter((layer) => layer % every === 0) },
      },
    },
    layer: [
      {
        mark: { type: "bar", color: seriesColors[0] },
        encoding: {
          y: { field: "change", type: "quantitative", title: "nats per token", axis: { format: "~g" } },
        },
      },
      {
        mark: { type: "rule", color: ink, strokeWidth: 1.5 },
        encoding: { y: { field: "low", type: "quantitative" }, y2: { field: "high" } },
      },
    ],
  });
}
