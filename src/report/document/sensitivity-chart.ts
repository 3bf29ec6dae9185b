/** The loss of making one layer Shared, layer by layer. */
import type { AnalysisFile } from "../../formats/analysis-file.ts";
import { type Chart, drawChart, errorBar } from "./chart.ts";
import { ink, seriesColors } from "./palette.ts";

export function sensitivityChart(name: string, flips: AnalysisFile["sensitivity"]["flips"]): Promise<Chart> {
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
