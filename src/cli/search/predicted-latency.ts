/** `--latency FILE` of `search`: per-layer costs that `bench` has measured, for targets and results that speak of speed. */
import Papa from "papaparse";
import { UsageError } from "../../base/errors.ts";
import { writeFileAtomically } from "../../base/files.ts";
import { costsAt, type LatencyPhase, latencyPhases, readLatencyFile } from "../../formats/latency-file.ts";
import type { PatternFile } from "../../formats/pattern-schema.ts";
import { fullLayersForSpeedup, type LayerCosts, predictLatency, predictSpeedup } from "../../pattern/latency.ts";
import { parsePattern } from "../../pattern/pattern.ts";
import { choice, type Flags, group, option } from "../arguments/declared-option.ts";
import { positiveNumber } from "../arguments/options.ts";

export const latencyOptions = group(
  "Speed:",
  option("--latency <file>", "costs of layers that bench --latency wrote: --retain takes 1.5x, results show speed-ups"),
  choice("--phase <name>", "what should be fast (default: prefill)", latencyPhases),
  option("--context <n>", "tokens of context (default: the longest of the latency file)", positiveNumber),
  option("--pareto <file>", "write loss against predicted latency of every size here, as CSV"),
);

export interface PredictedLatency {
  phase: LatencyPhase;
  context: number;
  costs: LayerCosts;
}

/**
 * @throws UsageError for options that need a latency file
 * @throws InputError for a file that is none, or has no such context
 */
export async function readPredictedLatency(flags: Flags<typeof latencyOptions>): Promise<PredictedLatency | undefined> {
  const { latency: path, phase = "prefill", context, pareto } = flags;
  if (path === undefined) {
    const given = pareto !== undefined ? "--pareto" : flags.phase !== undefined ? "--phase" : context && "--context";
    if (given)
      throw new UsageError(`${given} needs --latency FILE`, { hint: "indexcache bench --latency FILE writes one" });
    return undefined;
  }
  const file = await readLatencyFile(path);
  const longest = Math.max(0, ...file.costs.filter((entry) => entry.phase === phase).map((entry) => entry.context));
  const at = context ?? longest;
  return { phase, context: at, costs: costsAt(file, phase, at, path) };
}

/**
 * Full layers of a retention that is a speed-up, `1.5x`; undefined for another form.
 * @throws UsageError where there are no costs to predict by, or no pattern is that fast
 */
export function fullLayersOfSpeedup(
  text: string,
  layers: number,
  predicted: PredictedLatency | undefined,
): number | undefined {
  const speedup = /^(?<factor>\d+(?:\.\d+)?)x$/.exec(text)?.groups?.factor;
  if (speedup === undefined) return undefined;
  if (predicted === undefined) {
    throw new UsageError(`--retain ${text} is a speed-up: it needs --latency FILE`, {
      hint: "indexcache bench --latency FILE writes one",
    });
  }
  const full = fullLayersForSpeedup(Number(speedup), layers, predicted.costs);
  if (full !== undefined) return full;
  const most = predictSpeedup(parsePattern(`F${"S".repeat(layers - 1)}`), predicted.costs);
  throw new UsageError(
    `--retain ${text}: a single Full layer is predicted to give ${most.toFixed(2)}x ${predicted.phase} at ${predicted.context} tokens`,
  );
}

/** Adds what the costs predict to every pattern of the file. */
export function withSpeedups(file: PatternFile, predicted: PredictedLatency | undefined): PatternFile {
  if (predicted === undefined) return file;
  const speedup = (letters: string) => predictSpeedup(parsePattern(letters), predicted.costs);
  const add = <T extends { index_topk_pattern: string }>(one: T) => ({
    ...one,
    predicted_speedup: speedup(one.index_topk_pattern),
  });
  const { search, patterns } = file;
  return {
    ...file,
    patterns: patterns?.map(add),
    predicted: { phase: predicted.phase, context: predicted.context },
    search: { ...search, frontier: search.frontier?.map(add) },
  };
}

/** One line for each size that no other beats in both loss and predicted time. */
export async function writePareto(path: string, { search }: PatternFile, { costs }: PredictedLatency): Promise<void> {
  const points = (search.frontier ?? []).map(
    ({ index_topk_pattern: letters, full_layers, loss, change, change_error }) => {
      const pattern = parsePattern(letters);
      return {
        full_layers,
        index_topk_pattern: pattern,
        loss,
        change,
        change_error,
        predicted_seconds: predictLatency(pattern, costs),
        predicted_speedup: predictSpeedup(pattern, costs),
      };
    },
  );
  const best = points.filter(
    (one) => !points.some((other) => other.loss < one.loss && other.predicted_seconds <= one.predicted_seconds),
  );
  await writeFileAtomically(path, `${Papa.unparse(best, { newline: "\n" })}\n`);
}
