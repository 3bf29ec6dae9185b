/** What patterns do to benchmark scores, with verdicts. */

import type { EvalResult } from "../../formats/eval-result.ts";
import { formatEvalMarkdown } from "../eval/eval-report.ts";
import { type Chart, drawChart, seriesEncoding } from "./chart.ts";
import type { EvalEvidence } from "./evidence.ts";
import { blocks, text } from "./markdown.ts";
import { faintInk, rule } from "./palette.ts";
import { chartLine, type Section, type SectionNames } from "./section.ts";

export async function evalSection({ file }: EvalEvidence, { suffix, label }: SectionNames): Promise<Section> {
  const chart = await scoreChart(`scores${suffix}`, file);
  return {
    heading: `Quality: ${text(file.suite.name)}${label(", ")}`,
    body: blocks(
      chart === undefined ? undefined : chartLine([chart]),
      chart === undefined
        ? undefined
        : "Lines are the intervals of the change; the dashed line is the margin that a pattern has to stay above.",
      formatEvalMarkdown(file),
    ),
    charts: chart === undefined ? [] : [chart],
  };
}

/**
 * Scores against the baseline's, with the margin that a verdict asks about.
 * @returns undefined where there is nothing to compare
 */
async function scoreChart(name: string, result: EvalResult): Promise<Chart | undefined> {
  const rows = result.rows.filter(
    ({ kind, endpoint }) => (kind === "task" || kind === "overall") && endpoint === "generation",
  );
  const values = rows.flatMap(({ name: task, comparisons }) =>
    comparisons.map(({ arm, difference, interval }) => ({
      task,
      arm: result.arms[arm]?.name ?? `arm ${arm}`,
      difference: 100 * difference,
      low: 100 * interval.low,
      high: 100 * interval.high,
    })),
  );
  if (values.length === 0) return undefined;
  const margin = -100 * result.statistics.margin;
  const x = { type: "quantitative" as const, title: "change of the score, points of 100" };
  const arms = [...new Set(values.map(({ arm }) => arm))];
  const offset = { field: "arm", type: "nominal" as const, sort: arms };
  const y = {
    field: "task",
    type: "nominal" as const,
    sort: rows.map(({ name: task }) => task),
    title: null,
    axis: { labelLimit: 300, ticks: false, domain: false },
  };
  const { color, shape } = seriesEncoding("arm", arms);
  return drawChart(
    name,
    `Change of scores against ${result.arms[0]?.name ?? "the baseline"}, with intervals and the margin`,
    {
      data: { values },
      width: 320,
      height: { step: 18 },
      layer: [
        { mark: { type: "rule", color: rule }, encoding: { x: { ...x, datum: 0 } } },
        { mark: { type: "rule", color: faintInk, strokeDash: [4, 4] }, encoding: { x: { ...x, datum: margin } } },
        {
          mark: { type: "rule", strokeWidth: 2 },
          encoding: { x: { ...x, field: "low" }, x2: { field: "high" }, y, yOffset: offset, color },
        },
        {
          mark: { type: "point", filled: true, size: 50, opacity: 1 },
          encoding: { x: { ...x, field: "difference" }, y, yOffset: offset, color, shape },
        },
      ],
    },
  );
}
