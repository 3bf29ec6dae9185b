/** What `loss` prints: the measurement of one pattern. */
import { fullLayers } from "../pattern/pattern.ts";
import type { Measurement } from "../runtime/measurement.ts";
import { formatCount, formatDuration, formatError, formatLoads, formatLoss, formatRate } from "./quantities.ts";
import { formatFields } from "./text-table.ts";

/** The `--json` form: nothing in it depends on the clock. */
export interface LossRecord {
  index_topk_pattern: string;
  loss: number;
  standard_error: number | null;
  perplexity: number;
  tokens: number;
  sequences: { loss: number; tokens: number }[];
  /** Where layers were loaded in turn: how often, and bytes of weights in the files. */
  loads?: { passes: number; layers: number; bytes: number };
}

/** What came before the pass that is reported. */
export interface LossTiming {
  loadSeconds: number;
  /** Of a first pass that was left out. */
  warmUpSeconds: number | undefined;
}

export function lossRecord(measurement: Measurement): LossRecord {
  const { loads } = measurement.executions;
  return {
    index_topk_pattern: measurement.pattern,
    loss: measurement.loss,
    standard_error: measurement.standardError,
    perplexity: Math.exp(measurement.loss),
    tokens: measurement.tokens,
    sequences: measurement.sequences.map(({ loss, tokens }) => ({ loss, tokens })),
    ...(loads === undefined ? {} : { loads: { passes: loads.passes, layers: loads.layers, bytes: loads.bytes } }),
  };
}

/** @param timing absent where a server had the model */
export function formatLossReport(measurement: Measurement, timing?: LossTiming): string {
  const { pattern, loss, standardError, tokens, sequences, seconds, executions } = measurement;
  const { loads } = executions;
  return formatFields([
    ["Pattern", pattern],
    ["Full layers", `${fullLayers(pattern).length} of ${pattern.length}`],
    ["Loss", `${formatLoss(loss)} nats per token, standard error ${formatError(standardError)}`],
    ["Perplexity", Math.exp(loss).toFixed(4)],
    ["Tokens", `${formatCount(tokens)} predicted, in ${formatCount(sequences.length)} sequences`],
    ["Time", `${formatDuration(seconds)}, ${formatRate(tokens, seconds)}`],
    ...(loads === undefined ? [] : [["Loading", formatLoads(loads)] as const]),
    ...(timing === undefined ? [] : [["Before it", describeTiming(timing)] as const]),
  ]);
}

function describeTiming({ loadSeconds, warmUpSeconds }: LossTiming): string {
  const warmUp = warmUpSeconds === undefined ? "" : `, a first pass that warmed up ${formatDuration(warmUpSeconds)}`;
  return `loading ${formatDuration(loadSeconds)}${warmUp}`;
}
