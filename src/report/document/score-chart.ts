/** Scores of patterns against the baseline's, with the margin that a verdict asks about. */
import type { EvalResult } from "../../formats/eval-result.ts";
import { type Chart, drawChart, seriesEncoding } from "./chart.ts";
import { faintInk, rule } from "./palette.ts";

/** @returns undefined where there is nothing to compare */
export async function scoreChart(name: string, result: EvalResult): Promise<Chart | undefined> {
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
