/** What layers select, and what sharing costs. */
import type { AnalysisFile } from "../../formats/analysis-file.ts";
import { patternsTable, positionsTable } from "../analysis-report.ts";
import { formatCount, formatLoss } from "../quantities.ts";
import { type Chart, drawChart, errorBar } from "./chart.ts";
import type { AnalysisEvidence } from "./evidence.ts";
import { heatmapChart, interactionChart } from "./heatmap-chart.ts";
import { blocks, bullets, code, tabledBlock } from "./markdown.ts";
import { ink, seriesColors } from "./palette.ts";
import { chartLine, type Section, type SectionNames } from "./section.ts";

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
      file.overlap.by_position.length < 2 ? undefined : tabledBlock(positionsTable(file)),
    ),
    charts,
  };
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
      tabledBlock(patternsTable(file)),
    ),
    charts,
  };
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
