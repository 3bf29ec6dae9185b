/** What patterns gain in time and memory. */
import type { BenchFile, BenchMeasurement } from "../../formats/bench-file.ts";
import { isAboveLimit, isWithinNoise } from "../bench/bench-record.ts";
import { formatRateNumber, formatShare } from "../bench/bench-report.ts";
import { formatBytes, formatCount } from "../quantities.ts";
import type { BenchEvidence, Evidence } from "./evidence.ts";
import { code, table, text } from "./markdown.ts";
import { blocks, chartLine, type Section } from "./section.ts";
import { speedChart } from "./speed-chart.ts";

const phases = ["prefill", "decode"] as const;

export async function benchSections({ benches }: Evidence): Promise<Section[]> {
  const sections: Section[] = [];
  for (const bench of benches) sections.push(await benchSection(bench, benches.length > 1));
  return sections;
}

async function benchSection({ file, name }: BenchEvidence, isOneOfMany: boolean): Promise<Section> {
  const suffix = isOneOfMany ? `-${name}` : "";
  const charts = [];
  for (const phase of phases) {
    const measured = file[phase];
    if (measured.length > 0 && file.patterns.length > 1)
      charts.push(await speedChart(`${phase}${suffix}`, phase, measured));
  }
  return {
    heading: `Speed${isOneOfMany ? `: ${text(name)}` : ""}`,
    body: blocks(
      conditions(file),
      charts.length === 0 ? undefined : chartLine(charts),
      "Amdahl's limit is the speed-up if Shared layers paid nothing for their indexers; the share that sets it was measured between the arms, with every layer's selection given. Bars are the lowest and highest of the repeats.",
      ...phases.map((phase) => (file[phase].length === 0 ? undefined : timesTable(phase, file[phase]))),
      memoryTable(file),
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

function timesTable(phase: "prefill" | "decode", measured: readonly BenchMeasurement[]): string {
  const rows = measured.flatMap((measurement) => {
    const { context, arms, indexers } = measurement;
    const noise = isWithinNoise(measurement);
    return arms.map((arm, index) => [
      index === 0 ? formatCount(context) : "",
      text(arm.pattern),
      arm.seconds.median.toPrecision(3),
      formatRateNumber(arm.tokens_per_second),
      index === 0
        ? "1.00"
        : `${arm.speedup.median.toFixed(2)} (${arm.speedup.low.toFixed(2)} to ${arm.speedup.high.toFixed(2)})`,
      index === 0 ? "" : noise ? "?" : arm.limit.toFixed(2),
      index === 0 ? "" : noise ? "?" : `${formatShare(arm.of_limit)}${isAboveLimit(arm) ? " (noise)" : ""}`,
      index === 0 ? (noise ? "within noise" : formatShare(indexers.share)) : "",
    ]);
  });
  const columns = [
    { title: phase === "prefill" ? "Prefill, tokens" : "Decode behind", align: "right" as const },
    { title: "Pattern" },
    { title: "Seconds", align: "right" as const },
    { title: "tokens/s", align: "right" as const },
    { title: "Speed-up", align: "right" as const },
    { title: "Limit", align: "right" as const },
    { title: "Of it", align: "right" as const },
    { title: "Indexers", align: "right" as const },
  ];
  return table(columns, rows);
}

function memoryTable({ patterns }: BenchFile): string {
  const rows = patterns.map((pattern) => [
    text(pattern.name),
    String(pattern.full_layers),
    formatBytes(pattern.weight_bytes),
    formatBytes(pattern.latent_bytes_per_token),
    formatBytes(pattern.indexer_key_bytes_per_token),
    code(pattern.index_topk_pattern),
  ]);
  const columns = [
    { title: "Memory" },
    { title: "Full", align: "right" as const },
    { title: "Weights", align: "right" as const },
    { title: "Latent cache per token", align: "right" as const },
    { title: "Indexer keys per token", align: "right" as const },
    { title: "Pattern" },
  ];
  return table(columns, rows);
}
