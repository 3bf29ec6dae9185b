/** What `bench` prints. */
import type { BenchFile, BenchMeasurement } from "../../formats/bench-file.ts";
import { formatBytes, formatCount } from "../quantities.ts";
import {
  type Columns,
  formatFields,
  formatTabled,
  type Heading,
  left,
  right,
  type Tabled,
  tabled,
} from "../text-table.ts";
import { isAboveLimit, isWithinNoise, timedArms } from "./bench-record.ts";

/** @param width columns of the terminal; undefined for a file or pipe */
export function formatBenchReport(file: BenchFile, width?: number): string {
  const { model, machine, settings } = file;
  const random = model.random_weights;
  const reduced = random?.reduced.map(({ field, from, to }) => `${field} ${from} -> ${to}`).join(", ");
  return [
    formatFields(
      [
        ["Model", `${model.name}, ${model.layers} layers, index_topk ${model.geometry.index_topk}`],
        [
          "Attention",
          `${model.geometry.num_attention_heads} heads; indexer ${model.geometry.index_n_heads} x ${model.geometry.index_head_dim}`,
        ],
        [
          "Weights",
          random === null ? undefined : `random, seed ${random.seed}${reduced === "" ? "" : `; smaller: ${reduced}`}`,
        ],
        ["Machine", `${machine.cpu}, ${machine.threads} threads, ${file.tool.device}`],
        [
          "Repeats",
          `${settings.repeats}; medians, lowest and highest${settings.clock === "cpu" ? "; seconds that the process computed" : ""}${settings.one_graph === true ? "; all patterns in one graph, for want of memory" : ""}`,
        ],
      ],
      width,
    ),
    ...benchTables(file).map((table) => formatTabled(table, width)),
  ].join("\n\n");
}

/** Times of prefill and decode, and memory. */
export function benchTables(file: BenchFile): Tabled[] {
  const { patterns, prefill, decode } = file;
  return [phase("Prefill", prefill, patterns), phase("Decode, one token", decode, patterns), memory(file)];
}

function phase(title: string, measurements: readonly BenchMeasurement[], patterns: BenchFile["patterns"]): Tabled {
  type Timed = ReturnType<typeof timedArms>[number];
  /** The first arm is what the others are compared with, and what is true of all of them stands beside it. */
  const compared = (name: string, cell: (one: Timed) => string, folding: Partial<Heading> = {}) =>
    right<Timed>(name, (one) => (one.isFirst ? "" : cell(one)), folding);
  const once = (name: string, cell: (one: Timed) => string, folding: Partial<Heading> = {}) =>
    right<Timed>(name, (one) => (one.isFirst ? cell(one) : ""), folding);
  const columns: Columns<Timed> = [
    once("Context", ({ context, chunks }) => formatCount(context) + (isSampled(chunks) ? "*" : "")),
    left("Pattern", ({ arm }) => arm.pattern),
    right("Full", ({ index }) => String(patterns[index]?.full_layers)),
    right("Seconds", ({ arm }) => seconds(arm.seconds.median)),
    right("Tokens/s", ({ arm }) => formatRateNumber(arm.tokens_per_second)),
    right("Speed-up", ({ arm }) => `${arm.speedup.median.toFixed(2)}x`),
    compared("Low to high", ({ arm: { speedup } }) => `${speedup.low.toFixed(2)} to ${speedup.high.toFixed(2)}`, {
      fold: "below",
      label: "speed-up, low to high:",
    }),
    compared("Limit", ({ arm, noise }) => (noise ? "?" : `${arm.limit.toFixed(2)}x`)),
    compared("Of limit", ({ arm, noise }) => (noise ? "?" : arm.of_limit.toFixed(2) + (isAboveLimit(arm) ? "!" : ""))),
    once(
      "Indexers (alone)",
      ({ indexers: { share, alone_share: alone }, noise }) => {
        return `${noise ? "noise" : formatShare(share)} (${formatShare(alone)})`;
      },
      { fold: "below", label: "indexers (alone):" },
    ),
  ];
  const sampled = measurements.filter(({ chunks }) => isSampled(chunks));
  const notes = sampled.map(
    ({ context, chunks }) =>
      `* ${formatCount(context)}: from ${chunks?.timed} of ${chunks?.all} query chunks, on caches of random rows`,
  );
  return tabled(title, timedArms(measurements), columns, [...notes, ...measurements.flatMap(doubts)]);
}

/** Were only some of the query chunks timed? */
function isSampled(chunks: BenchMeasurement["chunks"]): boolean {
  return chunks !== undefined && chunks.timed < chunks.all;
}

/** What of a measurement cannot be the indexers' doing. */
function doubts(measurement: BenchMeasurement): string[] {
  const { context, arms, indexers } = measurement;
  const { share, share_low: low = share, share_high: high = share } = indexers;
  if (isWithinNoise(measurement)) {
    return [
      `? ${formatCount(context)}: the indexers' share is ${formatShare(low)} to ${formatShare(high)} over the repeats: noise is larger than the signal,` +
        " and there is no limit to compare with; try longer contexts, more --repeats, or an idle machine",
    ];
  }
  const above = arms.slice(1).filter(isAboveLimit);
  if (above.length === 0) return [];
  return [
    `! ${formatCount(context)}: ${above.map(({ pattern }) => pattern).join(", ")} faster than indexers that cost nothing would allow: noise, not a result`,
  ];
}

function memory({ patterns, prefill, tool }: BenchFile): Tabled {
  const longest = Math.max(0, ...prefill.map(({ context }) => context));
  const title = `Memory, ${tool.dtype ?? "float32"}, caches at ${formatCount(longest)} tokens`;
  return tabled(title, patterns, [
    left("Pattern", ({ name }) => name),
    left("Layers", ({ index_topk_pattern: letters }) => letters, { isCode: true, fold: "below", label: "" }),
    right("Weights", ({ weight_bytes: bytes }) => formatBytes(bytes)),
    right("Latent cache", ({ latent_bytes_per_token: bytes }) => formatBytes(longest * bytes)),
    right("Indexer keys", ({ indexer_key_bytes_per_token: bytes }) => formatBytes(longest * bytes)),
  ]);
}

function seconds(value: number): string {
  return value < 1 ? value.toPrecision(3) : value.toFixed(2);
}

/** Tokens per second, without the unit. */
function formatRateNumber(value: number): string {
  return value < 100 ? value.toPrecision(3) : formatCount(value);
}

/** `12%`. */
function formatShare(share: number): string {
  return `${(100 * share).toFixed(0)}%`;
}
