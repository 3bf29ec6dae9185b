/** What `loss` prints: the measurement of one pattern. */

import { type Estimate, estimate } from "../base/estimate.ts";
import { sum } from "../base/sum.ts";
import { fullLayers } from "../pattern/pattern.ts";
import type { Measurement } from "../runtime/measurement.ts";
import {
  counted,
  formatCount,
  formatDuration,
  formatError,
  formatLoads,
  formatLoss,
  formatRate,
} from "./quantities.ts";
import { formatFields, formatTable, left, right } from "./text-table.ts";

/** What a source of the text adds to a loss. */
export interface SourceLoss {
  name: string;
  weight: number;
  loss: Estimate;
  tokens: number;
}

/** The loss on each source; of one source that is all there is. */
export function sourceLosses(
  { sources }: { sources: readonly { name: string; weight: number; sequences: readonly number[] }[] },
  { sequences }: Pick<Measurement, "sequences">,
): SourceLoss[] {
  return sources.map(({ name, weight, sequences: own }) => {
    const losses = own.flatMap((index) => sequences[index] ?? []);
    const tokens = losses.reduce((total, one) => total + one.tokens, 0);
    return { name, weight, loss: estimate(losses), tokens };
  });
}

/** The weighted mean of the sources' means, which are independent of each other. */
function mixed(sources: readonly SourceLoss[]): Pick<Estimate, "mean" | "standardError"> {
  const errors = sources.map(({ weight, loss }) => (loss.standardError === null ? null : weight * loss.standardError));
  return {
    mean: sum(sources.map(({ weight, loss }) => weight * loss.mean)),
    standardError: errors.includes(null) ? null : Math.hypot(...errors.map((error) => error ?? 0)),
  };
}

/** What came before the pass that is reported. */
export interface LossTiming {
  loadSeconds: number;
  /** Of the first runs, which are left out. */
  warmUpSeconds: number | undefined;
}

/** The `--json` form: nothing in it depends on the clock. */
export function lossRecord(measurement: Measurement, sources: readonly SourceLoss[] = []) {
  const { loads } = measurement.executions;
  const { mean, standardError } = totalOf(measurement, sources);
  return {
    index_topk_pattern: measurement.pattern,
    loss: mean,
    standard_error: standardError,
    perplexity: Math.exp(mean),
    tokens: measurement.tokens,
    sequences: measurement.sequences.map(({ loss, tokens }) => ({ loss, tokens })),
    /** Where layers were loaded in turn: how often, and bytes of weights in the files. */
    loads: loads && { passes: loads.passes, layers: loads.layers, bytes: loads.bytes },
    /** Where there are several: `loss` is the weighted mean of theirs. */
    sources:
      sources.length < 2
        ? undefined
        : sources.map(({ name, weight, loss, tokens }) => ({
            ...{ source: name, weight, loss: loss.mean, standard_error: loss.standardError, tokens },
          })),
  };
}

function totalOf(
  { loss, standardError }: Measurement,
  sources: readonly SourceLoss[],
): Pick<Estimate, "mean" | "standardError"> {
  return sources.length < 2 ? { mean: loss, standardError } : mixed(sources);
}

/** @param timing absent where a server had the model */
export function formatLossReport(
  measurement: Measurement,
  sources: readonly SourceLoss[] = [],
  timing?: LossTiming,
): string {
  const { pattern, tokens, sequences, seconds, executions } = measurement;
  const { loads } = executions;
  const { mean: loss, standardError } = totalOf(measurement, sources);
  const fields = formatFields([
    ["Pattern", pattern],
    ["Full layers", `${fullLayers(pattern).length} of ${pattern.length}`],
    ["Loss", `${formatLoss(loss)} nats per token, standard error ${formatError(standardError)}`],
    ["Perplexity", Math.exp(loss).toFixed(4)],
    ["Tokens", `${formatCount(tokens)} predicted, in ${counted(sequences.length, "sequence")}`],
    ["Time", `${formatDuration(seconds)}, ${formatRate(tokens, seconds)}`],
    ["Loading", loads && formatLoads(loads)],
    ["Before it", timing && describeTiming(timing)],
  ]);
  return sources.length < 2 ? fields : `${fields}\n\n${formatSources(sources)}`;
}

function formatSources(sources: readonly SourceLoss[]): string {
  return formatTable(sources, [
    right("Weight", ({ weight }) => weight.toFixed(2)),
    right("Loss", ({ loss }) => formatLoss(loss.mean)),
    right("+-", ({ loss }) => formatError(loss.standardError)),
    right("Tokens", ({ tokens }) => formatCount(tokens)),
    left("Source", ({ name }) => name),
  ]);
}

function describeTiming({ loadSeconds, warmUpSeconds }: LossTiming): string {
  const warmUp = warmUpSeconds === undefined ? "" : `, runs that warmed up ${formatDuration(warmUpSeconds)}`;
  return `loading ${formatDuration(loadSeconds)}${warmUp}`;
}
