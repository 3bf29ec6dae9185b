/** Speed-up over the length of the context, beside Amdahl's limit. */
import type { BenchMeasurement } from "../../formats/bench-file.ts";
import { type Chart, drawChart, levelLine, seriesEncoding } from "./chart.ts";

/** Between the points of two patterns, as a factor of the context. */
const DODGE = 1.03;

export function speedChart(
  name: string,
  phase: "prefill" | "decode",
  measured: readonly BenchMeasurement[],
): Promise<Chart> {
  const points = measured.flatMap(({ context, arms }) =>
    arms.slice(1).map(({ pattern, speedup, limit }) => ({ context, pattern, ...speedup, limit })),
  );
  const patterns = [...new Set(points.map(({ pattern }) => pattern))];
  const values = points.flatMap(({ limit, context, ...point }) => [
    // Bars of one context stand beside each other.
    { ...point, at: context * DODGE ** patterns.indexOf(point.pattern), kind: "measured" },
    { at: context, pattern: point.pattern, median: limit, kind: "Amdahl's limit" },
  ]);
  const contexts = [...new Set(points.map(({ context }) => context))];
  const y = {
    type: "quantitative" as const,
    title: "speed-up over every indexer",
    scale: { zero: false },
    axis: { format: ".1f" },
  };
  const { color, shape } = seriesEncoding("pattern", patterns);
  const x = {
    field: "at",
    type: "quantitative" as const,
    title: `tokens of context, ${phase}`,
    scale: { type: "log" as const, base: 2, nice: false, padding: 14 },
    axis: { values: contexts, format: ",", labelOverlap: true, grid: false },
  };
  const dash = {
    field: "kind",
    type: "nominal" as const,
    title: null,
    scale: {
      domain: ["measured", "Amdahl's limit"],
      range: [
        [1, 0],
        [5, 4],
      ],
    },
    legend: { orient: "bottom" as const, symbolType: "stroke" as const },
  };
  return drawChart(
    name,
    `Speed-up of ${patterns.join(", ")} at ${contexts.join(", ")} tokens of ${phase}, with Amdahl's limit`,
    {
      data: { values },
      width: 350,
      height: 260,
      encoding: { x },
      layer: [
        levelLine(1),
        {
          mark: { type: "line", strokeWidth: 1.8 },
          encoding: { y: { ...y, field: "median" }, color, strokeDash: dash },
        },
        {
          transform: [{ filter: "datum.kind === 'measured'" }],
          mark: { type: "rule", strokeWidth: 1.5 },
          encoding: { y: { ...y, field: "low" }, y2: { field: "high" }, color },
        },
        {
          transform: [{ filter: "datum.kind === 'measured'" }],
          mark: { type: "point", filled: true, size: 60, opacity: 1 },
          encoding: { y: { ...y, field: "median" }, color, shape },
        },
      ],
    },
  );
}
