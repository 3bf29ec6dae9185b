/** What searches found: strips, losses against retention, the way there. */

import { knownSequences } from "../../formats/journal.ts";
import type { CheckedPatternFile } from "../../formats/pattern-file.ts";
import { countFull, parsePattern } from "../../pattern/pattern.ts";
import { counted, formatCount, formatDuration, formatError, formatLoss, formatLossChange } from "../quantities.ts";
import { patternLoss } from "../search/search-losses.ts";
import { formatStrategy, stabilityLines, stepsOf, stepsTable } from "../search/search-report.ts";
import { left, right } from "../text-table.ts";
import type { AnalysisEvidence, Evidence, SearchEvidence } from "./evidence.ts";
import { type LossPoint, lossChart } from "./loss-chart.ts";
import { blocks, code, table, tabledBlock, text } from "./markdown.ts";
import { chartLine, type Section } from "./section.ts";
import { stripChart } from "./strip-chart.ts";

/** A pattern with what it costs: a step, a point of the frontier, a result. */
interface Measured {
  index_topk_pattern: string;
  loss: number;
  /** Loss less that of the model's own pattern; older files leave it to the reader. */
  change?: number | undefined;
  change_error?: number | null | undefined;
}

/** @returns undefined without a search */
export async function patternSection({ searches }: Evidence): Promise<Section | undefined> {
  if (searches.length === 0) return undefined;
  const strip = await stripChart(
    searches.map(({ name, file }) => ({
      name,
      pattern: file.index_topk_pattern,
      full: file.patterns?.at(-1)?.stability?.full,
    })),
  );
  const isHeldOut = searches.some(({ file }) => file.patterns?.some(({ held_out: out }) => out !== undefined) === true);
  const results = searches.flatMap(({ name, file }) =>
    resultsOf(file).map((result, index) => ({ name, file, result, isFirst: index === 0 })),
  );
  const patterns = table(results, [
    left("File", ({ isFirst, name }) => (isFirst ? text(name) : "")),
    left("Strategy", ({ isFirst, file }) => (isFirst ? text(formatStrategy(file.search)) : "")),
    right("Full", ({ file, result }) => `${countFull(result.index_topk_pattern)} of ${file.model.layers}`),
    right("Loss", ({ result }) => formatLoss(result.loss)),
    right("Change", ({ file, result }) => changeWithError(file, result)),
    isHeldOut && right("Held out", ({ file, result }) => heldOutOf(file, result.index_topk_pattern) ?? ""),
    right("Evaluations", ({ isFirst, file: { search } }) =>
      isFirst ? `${formatCount(search.evaluations)} in ${formatDuration(search.seconds)}` : "",
    ),
    left("Pattern", ({ result }) => code(result.index_topk_pattern)),
  ]);
  return {
    heading: "Patterns",
    body: blocks(
      "A Full layer (F) runs its lightning indexer; a Shared layer (S) reads with the tokens that the nearest Full layer before it has chosen.",
      chartLine([strip]),
      patterns,
      "Losses are nats per token on the calibration set; changes are against every indexer of the model, ± one standard error, paired over sequences.",
      ...searches.map(describeStability),
      isHeldOut ? "Held out is the change on sequences that the search did not see." : undefined,
    ),
    charts: [strip],
  };
}

/** Whether other text would have led there: the row below a strip, and a line for each wanted retention. */
function describeStability({ name, file }: SearchEvidence): string | undefined {
  const lines = stabilityLines(file);
  if (lines.length === 0) return undefined;
  const resamples = file.patterns?.at(-1)?.stability?.resamples;
  const row =
    resamples === undefined
      ? ""
      : ` The row below its strip says in what percentage of the ${formatCount(resamples)} resamples each layer is Full.`;
  return `Would other text of this kind lead ${text(name)} to the same pattern? ${lines.map((line) => text(line)).join(". ")}.${row}`;
}

/** One chart for each calibration set: losses on different text are not compared. */
export async function lossSection({ searches, analyses }: Evidence): Promise<Section | undefined> {
  const sets = [...new Set([...searches, ...analyses].map(({ file }) => file.calibration.hash))];
  const parts: string[] = [];
  const charts: Section["charts"] = [];
  for (const [index, set] of sets.entries()) {
    const own = searches.filter(({ file }) => file.calibration.hash === set);
    const compared = analyses.filter(({ file }) => file.calibration.hash === set);
    const points = [...own.flatMap(searchPoints), ...compared.flatMap((one) => comparedPoints(one, own))];
    const tried = [...new Map(own.flatMap(triedPatterns)).values()];
    const first = (own[0] ?? compared[0])?.file;
    if (points.length < 2 || first === undefined) continue;
    const { calibration, model } = first;
    const chart = await lossChart(sets.length === 1 ? "loss" : `loss-${index + 1}`, points, tried, model.layers);
    charts.push(chart);
    parts.push(
      blocks(
        `${counted(calibration.sequences, "sequence")}, ${formatCount(calibration.tokens)} tokens of ${code(calibration.source)}.${tried.length === 0 ? "" : ` Grey: all ${formatCount(tried.length)} patterns that the searches measured on each of them.`}`,
        chartLine([chart]),
      ),
    );
  }
  if (charts.length === 0) return undefined;
  return {
    heading: "Loss against retention",
    body: blocks(
      "Bars are 95% intervals of the change, paired over sequences. The scale is linear up to 0.01 nats and logarithmic above.",
      ...parts,
      ...searches.map(stepsOfFile),
    ),
    charts,
  };
}

/** Of each wanted retention, the most Full layers first; older files have one. */
function resultsOf(file: CheckedPatternFile): Measured[] {
  return file.patterns ?? [file];
}

function heldOutOf({ patterns = [] }: CheckedPatternFile, pattern: string): string | undefined {
  const out = patterns.find((found) => found.index_topk_pattern === pattern)?.held_out;
  return out === undefined ? undefined : `${formatLossChange(out.change)} ± ${formatError(out.change_error)}`;
}

function searchPoints({ file, name }: SearchEvidence): LossPoint[] {
  // Steps of a search by KL say KL, those by the worst source what it changes there; only the results have mean losses.
  const { objective, settings } = file.search;
  const way = objective === "kl" || settings?.across === "worst" ? [] : stepsOf(file);
  const isWay = isMonotone(way.map((step) => countFull(step.index_topk_pattern)));
  const shown = isWay ? way : resultsOf(file);
  const points = shown.map((one) => ({
    series: name,
    full: countFull(one.index_topk_pattern),
    change: changeOf(file, one),
    error: one.change_error,
    joined: isWay,
  }));
  const start = file.trajectory[0];
  if (start === undefined || !isWay) return points;
  // Greedy sets out from the model's own pattern, at no change by definition.
  const full = countFull(start.index_topk_pattern) + 1;
  return [{ series: name, full, change: 0, error: undefined, joined: true }, ...points];
}

/** What a search has found is its own series, and not another one because the analysis has measured it too. */
function comparedPoints({ file }: AnalysisEvidence, searches: readonly SearchEvidence[]): LossPoint[] {
  const shown = new Set(searches.flatMap((search) => resultsOf(search.file).map((one) => one.index_topk_pattern)));
  const compared = file.patterns
    .slice(1)
    .filter(({ origin, index_topk_pattern: pattern }) => origin !== "searched" || !shown.has(pattern));
  return compared.map(({ origin, full_layers: full, change, change_standard_error: error }) => ({
    series: origin === "uniform" || origin === "searched" ? origin : `optimum of ${origin}`,
    full,
    change,
    error: error === 0 ? undefined : error,
    joined: false,
  }));
}

/** Every pattern that the journal has on as many sequences as the search judged by. */
function triedPatterns({ file, journal }: SearchEvidence): [pattern: string, { full: number; change: number }][] {
  if (journal === undefined) return [];
  const known = knownSequences(journal);
  const baseline = [...known.keys()].find((pattern) => countFull(pattern) === mostFull(known.keys()));
  if (baseline === undefined) return [];
  return [...known].flatMap(([pattern, sequences]) => {
    const indices = [...sequences.keys()].filter((index) => known.get(baseline)?.has(index) === true);
    if (indices.length < file.calibration.sequences || pattern === baseline) return [];
    const { change } = patternLoss(known, parsePattern(pattern), parsePattern(baseline), indices);
    return [[pattern, { full: countFull(pattern), change: change.mean }]];
  });
}

function stepsOfFile({ file, name }: SearchEvidence): string | undefined {
  const steps = stepsTable(file);
  return steps && blocks(`### Steps of ${text(name)}`, tabledBlock(steps));
}

function changeOf(file: CheckedPatternFile, { loss, change }: Measured): number {
  return change ?? loss - file.baseline_loss;
}

function changeWithError(file: CheckedPatternFile, measured: Measured): string {
  const change = formatLossChange(changeOf(file, measured));
  return measured.change_error === undefined ? change : `${change} ± ${formatError(measured.change_error)}`;
}

/** Does each step have fewer Full layers than the one before it, or each more? Only then a line shows a way. */
function isMonotone(counts: readonly number[]): boolean {
  const signs = new Set(counts.slice(1).map((count, index) => Math.sign(count - (counts[index] ?? 0))));
  return signs.size === 1 && !signs.has(0);
}

function mostFull(patterns: Iterable<string>): number {
  return Math.max(...[...patterns].map(countFull));
}
