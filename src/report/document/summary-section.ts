/** How a report opens: what is kept, what is gained, whether quality holds, with which risk. The evidence comes after it. */

import type { BenchMeasurement } from "../../formats/bench-file.ts";
import type { EvalComparison, EvalResult } from "../../formats/eval-result.ts";
import { layerCosts } from "../../formats/latency-file.ts";
import { fullLayers, type Pattern, parsePattern } from "../../pattern/pattern.ts";
import { isAboveLimit, isWithinNoise } from "../bench/bench-record.ts";
import { cannotTell, primaryRow } from "../eval/eval-gate.ts";
import {
  formatCount,
  formatError,
  formatLossChange,
  formatPointChange,
  formatPoints,
  formatScore,
} from "../quantities.ts";
import { isOptimum } from "../search/search-report.ts";
import { right } from "../text-table.ts";
import type { EvalEvidence, Evidence } from "./evidence.ts";
import { blocks, bullets, codeBlock, table, text } from "./markdown.ts";
import { forecastPrefill, type PrefillForecast, type PromptLengths, type TimedLength } from "./prefill-forecast.ts";

type Held = "held" | "not held" | "not shown" | "cannot tell";

/** Of one evaluation. */
interface QualityFinding {
  held: Held;
  suite: string;
  line: string;
}

/**
 * Says only what the files say. It is about one pattern: the first search's, or else the first arm that was evaluated or timed.
 * @returns Markdown, empty where no file has a pattern
 */
export function summarySection(evidence: Evidence, lengths?: PromptLengths): string {
  const subject = subjectOf(evidence);
  if (subject === undefined) return "";
  const { name, pattern } = subject;
  const full = fullLayers(pattern).length;
  const forecast = forecastOf(evidence, pattern, lengths);
  const findings = evidence.evaluations.flatMap((one) => qualityOf(one, pattern));
  const keeps = `${text(name)} keeps ${full} of ${pattern.length} indexers (${percent(full / pattern.length)})`;
  const opening = [keeps, speedHeadline(evidence, pattern, forecast), qualityHeadline(findings)];
  return blocks(
    `**${opening.filter((part) => part !== undefined).join(". ")}.**`,
    bullets([
      ...measuredLines(evidence, pattern),
      ...forecastLines(evidence, pattern, forecast),
      ...reducedLines(evidence),
      ...findings.map(({ line }) => line),
      ...otherArmLines(evidence, pattern),
      ...(findings.length === 0 ? [unshownLine(evidence)] : []),
      ...lossLines(evidence),
    ]),
    forecast !== undefined && forecast.lengths.length > 1 ? lengthsTable(forecast) : undefined,
    codeBlock("", strip(pattern)),
  );
}

function subjectOf({
  searches: [search],
  evaluations,
  benches,
}: Evidence): { name: string; pattern: Pattern } | undefined {
  const found =
    search === undefined
      ? (evaluations[0]?.file.arms[1] ?? benches[0]?.file.patterns[1])
      : { name: search.name, index_topk_pattern: search.file.index_topk_pattern };
  return found === undefined ? undefined : { name: found.name, pattern: parsePattern(found.index_topk_pattern) };
}

// What is gained.

/** Layer costs by which the pattern's speed is foretold, with whose they are. */
function timedLengths({ latencies, benches }: Evidence): { of: string; timed: TimedLength[] } | undefined {
  for (const { file } of latencies) {
    const timed = file.costs.flatMap((entry) =>
      entry.phase === "prefill" ? [{ context: entry.context, costs: layerCosts(entry) }] : [],
    );
    if (timed.length > 0) return { of: text(file.model.name), timed };
  }
  for (const { file } of benches) {
    const timed = file.prefill.map(({ context, costs }) => ({ context, costs: layerCosts(costs) }));
    if (timed.length > 0) return { of: text(file.model.name), timed };
  }
  return undefined;
}

function forecastOf(
  evidence: Evidence,
  pattern: Pattern,
  lengths: PromptLengths | undefined,
): PrefillForecast | undefined {
  const known = timedLengths(evidence);
  const measured = measuredSpeedups(evidence, pattern).some(({ phase }) => phase === "prefill");
  // What was measured need not be foretold.
  if (known === undefined || (lengths === undefined && measured)) return undefined;
  const longest = Math.max(...known.timed.map(({ context }) => context));
  return forecastPrefill(pattern, known.timed, lengths ?? { entries: [{ tokens: longest, weight: 1 }] });
}

/** Shapes that were made smaller to be timed: all but fewer layers make the indexers weigh more. */
function reducedLines({ latencies, benches }: Evidence): string[] {
  const lines = [...latencies, ...benches].flatMap(({ file: { model } }) => {
    const reduced = model.random_weights?.reduced ?? [];
    const fields = reduced.flatMap(({ field }) => (field === "num_hidden_layers" ? [] : [text(field)]));
    if (fields.length === 0) return [];
    const smaller =
      fields.length === 1 ? `smaller ${fields[0]}` : `smaller ${fields.slice(0, -1).join(", ")} and ${fields.at(-1)}`;
    return [
      `${text(model.name)} was timed with ${smaller}: indexers weigh more there than in the whole model, which gains less.`,
    ];
  });
  return [...new Set(lines)];
}

interface Measured {
  phase: "prefill" | "decode";
  context: number;
  speedup: BenchMeasurement["arms"][number]["speedup"];
  limit: number;
  /** `bench` calls it noise: it is faster than the limit, or there is none. */
  isNoise: boolean;
  /** Whose shapes were timed. */
  of: string;
}

/** Of the pattern itself, the longest context of each file and phase. */
function measuredSpeedups({ benches }: Evidence, pattern: Pattern): Measured[] {
  return benches.flatMap(({ file }) => {
    const names = new Set(
      file.patterns.flatMap(({ name, index_topk_pattern: letters }) => (letters === pattern ? [name] : [])),
    );
    return (["prefill", "decode"] as const).flatMap((phase): Measured[] => {
      const longest = file[phase].at(-1);
      const arm = longest?.arms.find(({ pattern: name }) => names.has(name));
      if (longest === undefined || arm === undefined) return [];
      const { speedup, limit } = arm;
      const isNoise = isWithinNoise(longest) || isAboveLimit(arm);
      return [{ phase, context: longest.context, speedup, limit, isNoise, of: text(file.model.name) }];
    });
  });
}

function speedHeadline(
  evidence: Evidence,
  pattern: Pattern,
  forecast: PrefillForecast | undefined,
): string | undefined {
  const measured = measuredSpeedups(evidence, pattern).find(({ phase }) => phase === "prefill");
  const parts: string[] = [];
  if (forecast !== undefined) parts.push(`${times(forecast.speedup)} predicted ${predictedAt(forecast)}`);
  if (measured !== undefined) {
    const doubt = measured.isNoise ? ", which is noise" : "";
    parts.push(`${times(measured.speedup.median)} measured at ${formatCount(measured.context)} tokens${doubt}`);
  }
  return parts.length === 0 ? undefined : `Prefill ${parts.join(", ")}`;
}

function predictedAt({ lengths }: PrefillForecast): string {
  const [only, ...others] = lengths;
  return only !== undefined && others.length === 0
    ? `at ${formatCount(only.tokens)} tokens`
    : "over the prompt lengths given";
}

function measuredLines(evidence: Evidence, pattern: Pattern): string[] {
  return measuredSpeedups(evidence, pattern).map(
    ({ phase, context, speedup: { median, low, high }, limit, isNoise, of }) => {
      const most = isNoise
        ? "noise is larger than what indexers take, and this says nothing: an idle machine, more --repeats or longer contexts would"
        : `without any work for indexers of Shared layers it would be ${times(limit)}`;
      const what = phase === "prefill" ? "prefill of" : "decode after";
      return `Measured: ${what} ${formatCount(context)} tokens ${times(median)} (${times(low)} to ${times(high)} over the repeats); ${most} (timed on ${of}).`;
    },
  );
}

function forecastLines(evidence: Evidence, pattern: Pattern, forecast: PrefillForecast | undefined): string[] {
  const known = timedLengths(evidence);
  if (known === undefined || forecast === undefined) {
    const [search] = evidence.searches;
    const predicted = search?.file.predicted;
    const found = search?.file.patterns?.find(({ index_topk_pattern: letters }) => letters === pattern);
    if (predicted === undefined || found?.predicted_speedup === undefined) {
      return evidence.benches.length > 0 ? [] : ["Speed: not shown. No file of bench or bench --latency was given."];
    }
    return [
      `Predicted: ${predicted.phase} at ${formatCount(predicted.context)} tokens ${times(found.predicted_speedup)}, from the search's latency file.`,
    ];
  }
  const beyond = forecast.lengths.filter(({ extrapolated }) => extrapolated);
  const contexts = known.timed.map(({ context }) => formatCount(context)).join(", ");
  const sum = forecast.weightSum;
  const normalised =
    Math.abs(sum - 1) < 1e-9 || forecast.lengths.length === 1
      ? ""
      : ` The weights given sum to ${Number(sum.toFixed(6))}, not 1: ${sum < 1 ? "prompts of other lengths are left out, and these" : "they"} are taken as shares of all.`;
  const outside =
    beyond.length === 0
      ? ""
      : ` ${beyond.map(({ tokens }) => formatCount(tokens)).join(", ")} ${beyond.length === 1 ? "lies" : "lie"} outside the lengths that were timed: extrapolated.`;
  return [
    `Predicted: prefill ${times(forecast.speedup)} ${predictedAt(forecast)}, from the cost of a Full and a Shared layer at ${contexts} tokens (timed on ${known.of}).${normalised}${outside}`,
  ];
}

function lengthsTable({ lengths }: PrefillForecast): string {
  return table(lengths, [
    right("Prompt, tokens", ({ tokens }) => formatCount(tokens)),
    right("Share of prompts", ({ share }) => percent(share)),
    right(
      "Prefill, predicted",
      ({ speedup, extrapolated }) => `${times(speedup)}${extrapolated ? " (extrapolated)" : ""}`,
    ),
  ]);
}

// Whether quality holds.

function heldBy(comparison: EvalComparison): Held {
  if (cannotTell(comparison)) return "cannot tell";
  if (comparison.verdict === "inferior") return "not held";
  return comparison.verdict === "inconclusive" ? "not shown" : "held";
}

function qualityOf({ file }: EvalEvidence, pattern: Pattern): QualityFinding[] {
  const arm = file.arms.findIndex(({ index_topk_pattern: letters }, index) => index > 0 && letters === pattern);
  const row = primaryRow(file.rows);
  const comparison = row?.comparisons.find((one) => one.arm === arm);
  if (row === undefined || comparison === undefined) return [];
  const { margin, alpha } = file.statistics;
  const held = heldBy(comparison);
  const change = `${formatPointChange(comparison.difference)} points of 100 over ${formatCount(row.items)} items`;
  const risk = {
    held: `a loss of more than ${formatPoints(margin)} is excluded; where there is one, this is said in at most ${percent(alpha)} of cases`,
    "not held": `a loss of more than ${formatPoints(margin)} is proven, with an error of at most ${percent(alpha)}`,
    "not shown": `neither a loss of more than ${formatPoints(margin)} nor its absence is proven; the loss may be as large as ${formatPoints(Math.max(0, -comparison.bounds.low))}${comparison.items_needed === undefined ? "" : `, and about ${formatCount(comparison.items_needed)} more items would settle it`}`,
    "cannot tell":
      comparison.note === "floor"
        ? `the model scores ${formatScore(row.arms[0]?.score ?? 0)} there with all its indexers, no more than the margin or than guessing, so that no loss could show`
        : "every token, score and gold loss is the same although the patterns differ, so that the pattern never acted: longer prompts are needed",
  }[held];
  const worst = losingTasks(file, arm);
  const losing = worst.length === 0 ? "" : ` Proven losses in tasks: ${worst.join(", ")}.`;
  const suite = text(file.suite.name);
  return [
    { held, suite, line: `Quality on ${suite}: **${held}**. ${change}; ${risk}.${losing}${blindTasks(file, arm)}` },
  ];
}

/** What the same evaluations say of other patterns, in short. */
function otherArmLines({ evaluations }: Evidence, pattern: Pattern): string[] {
  return evaluations.flatMap(({ file }) => {
    const others = (primaryRow(file.rows)?.comparisons ?? []).flatMap((comparison) => {
      const found = file.arms[comparison.arm];
      if (found === undefined || found.index_topk_pattern === pattern) return [];
      const kept = `${found.full_layers} of ${found.index_topk_pattern.length} indexers`;
      return [
        `${text(found.name)} (${kept}) ${heldBy(comparison)}, ${formatPointChange(comparison.difference)} points`,
      ];
    });
    return others.length === 0 ? [] : [`Beside it on ${text(file.suite.name)}: ${others.join("; ")}.`];
  });
}

function losingTasks({ rows }: EvalResult, arm: number): string[] {
  return rows.flatMap(({ kind, endpoint, name, comparisons }) => {
    const found = comparisons.find((one) => one.arm === arm);
    if (kind !== "task" || endpoint !== "generation" || found?.verdict !== "inferior") return [];
    return [`${text(name)} (${formatPointChange(found.difference)})`];
  });
}

/** Tasks that cannot tell, where the mean that they are part of can. */
function blindTasks({ rows }: EvalResult, arm: number): string {
  const tasks = rows.filter(({ kind, endpoint }) => kind === "task" && endpoint === "generation");
  const blind = tasks.filter(({ comparisons }) => comparisons.some((one) => one.arm === arm && cannotTell(one)));
  if (blind.length === 0 || blind.length === tasks.length) return "";
  return ` ${blind.length} of ${tasks.length} tasks cannot tell: ${blind.map(({ name }) => text(name)).join(", ")}.`;
}

function qualityHeadline(findings: readonly QualityFinding[]): string {
  const of = (held: Held): string[] => findings.filter((one) => one.held === held).map(({ suite }) => suite);
  const parts = (["not held", "held", "not shown"] as const).flatMap((held) =>
    of(held).length === 0 ? [] : [`${held} on ${of(held).join(", ")}`],
  );
  const blind = of("cannot tell");
  const untold = blind.length === 0 ? [] : [`${blind.join(", ")} cannot tell`];
  if (parts.length === 0) return ["Quality not shown", ...untold].join(": ");
  return `Quality ${[...parts, ...untold].join("; ")}`;
}

function unshownLine({ evaluations }: Evidence): string {
  return evaluations.length === 0
    ? "Quality: **not shown**. No file of eval was given; loss on text does not tell what benchmarks lose."
    : "Quality: **not shown**. The evaluations given are of other patterns.";
}

/** The loss on text: a sign of what is lost, and no proof of what benchmarks lose. */
function lossLines({ searches: [search] }: Evidence): string[] {
  if (search === undefined) return [];
  const { loss, baseline_loss: baseline, index_topk_pattern: pattern, patterns, search: how } = search.file;
  const relative = (100 * (loss - baseline)) / baseline;
  const heldOut = patterns?.find(({ index_topk_pattern: letters }) => letters === pattern)?.held_out;
  const unseen =
    heldOut === undefined
      ? ""
      : `; on text that the search has not seen ${formatLossChange(heldOut.change)} ± ${formatError(heldOut.change_error)}`;
  return [
    `Found by ${text(how.strategy)}${isOptimum(how) ? ", every pattern of its size measured" : ""}; loss ${formatLossChange(loss - baseline)} nats per token (${relative < 0 ? "-" : "+"}${Math.abs(relative).toFixed(2)}%) on the calibration set${unseen}.`,
  ];
}

// The pattern itself.

const LAYERS_OF_A_LINE = 20;
const LAYERS_OF_A_GROUP = 5;

/** The letters in lines of twenty, which a phone shows whole. */
function strip(pattern: Pattern): string[] {
  const width = String(pattern.length - 1).length;
  const lines: string[] = [];
  for (let from = 0; from < pattern.length; from += LAYERS_OF_A_LINE) {
    const letters = pattern.slice(from, from + LAYERS_OF_A_LINE);
    const groups = letters.match(new RegExp(`.{1,${LAYERS_OF_A_GROUP}}`, "g")) ?? [];
    lines.push(`${String(from).padStart(width)}  ${groups.join(" ")}`);
  }
  return lines;
}

function times(speedup: number): string {
  return `${speedup.toFixed(2)}x`;
}

function percent(share: number): string {
  return `${Number((100 * share).toFixed(1))}%`;
}
