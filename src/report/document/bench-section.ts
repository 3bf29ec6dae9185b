/** What patterns gain in time and memory. */
import type { BenchFile, BenchMeasurement } from "../../formats/bench-file.ts";
import { benchTables } from "../bench/bench-report.ts";
import { formatCount } from "../quantities.ts";
import { type Chart, drawChart, levelLine, seriesEncoding } from "./chart.ts";
import type { BenchEvidence } from "./evidence.ts";
import { blocks, tabledBlock, text } from "./markdown.ts";
import { chartLine, type Section, type SectionNames } from "./section.ts";

const phases = ["prefill", "decode"] as const;

export async function benchSection({ file }: BenchEvidence, { suffix, label }: SectionNames): Promise<Section> {
  const charts = [];
  for (const phase of phases) {
    const measured = file[phase];
    if (measured.length > 0 && file.patterns.length > 1)
      charts.push(await speedChart(`${phase}${suffix}`, phase, measured));
  }
  return {
    heading: `Speed${label(": ")}`,
    body: blocks(
      conditions(file),
      charts.length === 0 ? undefined : chartLine(charts),
      "Amdahl's limit is the speed-up if Shared layers paid nothing for their indexers; the share that sets it was measured between the arms, with every layer's selection given. Bars are the lowest and highest of the repeats.",
      ...benchTables(file)
        .filter(({ rows }) => rows.length > 0)
        .map(tabledBlock),
    ),
    charts,
  };
}

function conditions({ model, machine, settings, tool }: BenchFile): string {
  const { geometry, random_weights: random } = model;
  const weights =
    random === null
      ? "its own weights"
      : `random weights (seed ${random.seed}${random.reduced.map(({ field, from, to }) => `, ${text(field)} ${from} made ${to}`).join("")})`;
  return `${text(model.name)}: ${model.layers} layers, ${geometry.num_attention_heads} heads, indexer ${geometry.index_n_heads} x ${geometry.index_head_dim}, top-k ${formatCount(geometry.index_topk)}, ${weights}. ${text(machine.cpu)}, ${machine.threads} threads, ${text(machine.platform)}, ${text(tool.device)}; medians of ${settings.repeats} repeats, arms interleaved, ${settings.clock === "cpu" ? "processor time" : "wall time"}.`;
}

/** Between the points of two patterns, as a factor of the context. */
const DODGE = 1.03;

/** Speed-up over the length of the context, beside Amdahl's limit. */
function speedChart(name: string, phase: "prefill" | "decode", measured: readonly BenchMeasurement[]): Promise<Chart> {
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
