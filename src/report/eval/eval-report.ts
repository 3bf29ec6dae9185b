/** An evaluation as a table for a terminal and as Markdown; JSON is the result file itself. */
import type { EvalComparison, EvalResult, EvalRow } from "../../formats/eval-result.ts";
import { table } from "../document/markdown.ts";
import {
  counted,
  formatCount,
  formatDuration,
  formatPointChange,
  formatPoints,
  formatRate,
  formatScore,
} from "../quantities.ts";
import { type Column, formatTable, type Heading, left, right, wrapWords } from "../text-table.ts";
import { cannotTell, primaryRow } from "./eval-gate.ts";

/**
 * The whole report for a terminal: of intervals only that of the change, which the verdict is about.
 * @param width columns of the terminal; undefined for a file or pipe, where each row and arm is one line, however long
 */
export function formatEvalReport(result: EvalResult, width?: number): string {
  const labels = armLabels(result, width);
  const lines = remarks(result, labels);
  return [
    ...sectionsOf(result).flatMap(({ title, rows }) => [
      ...(title === undefined ? [] : [title, ""]),
      formatTable(rows.flatMap(linesOf), columnsOf(result, labels, result.arms.length === 1), width),
      "",
    ]),
    ...(width === undefined ? lines : lines.flatMap((line) => wrapWords(line, width))),
  ].join("\n");
}

/** The report as Markdown: the same table with every interval, and the same remarks. */
export function formatEvalMarkdown(result: EvalResult): string {
  const labels = armLabels(result, undefined);
  // A bar would end the cell.
  const columns = columnsOf(result, labels, true).map((column) => ({
    ...column,
    cell: (line: Line, index: number) => column.cell(line, index).replaceAll("|", "\\|"),
  }));
  return [
    ...sectionsOf(result).flatMap(({ title, rows }) => [
      ...(title === undefined ? [] : [`**${title}**`, ""]),
      table(rows.flatMap(linesOf), columns),
      "",
    ]),
    ...remarks(result, labels).map((remark) => `- ${remark}`),
  ].join("\n");
}

/** A longer name leaves no room for its numbers at 80 columns. */
const LONGEST_ARM_NAME = 24;

/** Names of the arms; where one is too long for the terminal, numbers that a line below the table explains. */
function armLabels({ arms }: EvalResult, width: number | undefined): string[] {
  const names = arms.map(({ name }) => name);
  if (width === undefined || names.every((name) => name.length <= LONGEST_ARM_NAME)) return names;
  return names.map((_, index) => (index === 0 ? "baseline" : `arm ${index}`));
}

/** All rows, or those of each joined suite and at last the means over all of them. */
function sectionsOf({ suite, rows }: EvalResult): { title?: string; rows: EvalRow[] }[] {
  const { sections = [] } = suite;
  if (sections.length === 0) return [{ rows }];
  const left = new Set(rows);
  const take = (rows: EvalRow[]): EvalRow[] => {
    for (const row of rows) left.delete(row);
    return rows;
  };
  const shown = sections.map(({ name, tasks }) => {
    const isOwn = ({ task, group }: EvalRow): boolean =>
      task === undefined ? group?.name === "suite" && group.value === name : tasks.includes(task);
    return { title: name, rows: take(rows.filter(isOwn)) };
  });
  return [...shown, { title: "all suites", rows: [...left] }].filter((section) => section.rows.length > 0);
}

/** A line of the table: a row under one arm. */
interface Line {
  row: EvalRow;
  arm: number;
  comparison: EvalComparison | undefined;
}

function linesOf(row: EvalRow): Line[] {
  return row.arms.map((_, arm) => ({ row, arm, comparison: row.comparisons.find((one) => one.arm === arm) }));
}

/** What belongs to the row stands on its first line. */
function columnsOf(result: EvalResult, labels: readonly string[], everyInterval: boolean): Column<Line>[] {
  const { alpha } = result.statistics;
  const confidence = `${percent(1 - alpha)} CI`;
  const compared = result.arms.length > 1;
  /** What the arm is compared by; empty for the baseline, and no column where there is nothing else. */
  const change = (title: string, cell: (comparison: EvalComparison) => string, layout: Partial<Heading> = {}) =>
    compared && right<Line>(title, ({ comparison }) => (comparison === undefined ? "" : cell(comparison)), layout);
  const late = (label: string): Partial<Heading> => ({ fold: "late", label });
  const columns: (Column<Line> | false)[] = [
    left("Task", ({ row, arm }) => (arm === 0 ? rowName(row) : ""), { fold: "above", label: "" }),
    right("n", ({ row, arm }) => (arm === 0 ? formatCount(row.items) : ""), { fold: "above" }),
    left("Arm", ({ arm }) => labels[arm] ?? ""),
    right("Score", ({ row, arm }) => (row.items === 0 ? "-" : formatScore(row.arms[arm]?.score))),
    everyInterval &&
      right(confidence, ({ row, arm }) => {
        const interval = row.arms[arm]?.interval;
        return row.items === 0 || interval === undefined ? "" : range(interval, formatScore);
      }),
    change("Change", ({ difference }) => formatPointChange(difference)),
    change(confidence, ({ interval }) => range(interval, formatPointChange)),
    change("p", ({ p, p_holm: corrected = 1 }) => `${formatP(p)}${corrected < alpha ? "*" : ""}`),
    right("Gold loss", ({ row, arm }) => row.arms[arm]?.gold_loss?.toFixed(4) ?? "-", late("gold loss")),
    change("Change", ({ gold_loss: loss }) => (loss === undefined ? "" : formatNats(loss.difference)), late("change")),
    everyInterval &&
      change(confidence, ({ gold_loss: loss }) => (loss?.interval && range(loss.interval, formatNats)) ?? ""),
    compared &&
      left("Verdict", ({ comparison }) => (comparison === undefined ? "" : verdictWords(comparison)), {
        fold: "below",
        label: "",
      }),
  ];
  return columns.filter((column) => column !== false);
}

function formatNats(value: number): string {
  return `${value < 0 ? "-" : "+"}${Math.abs(value).toFixed(4)}`;
}

/** `inconclusive: 1,200 more items needed`; ceilings are said, and what could not show any loss. */
export function verdictWords(comparison: EvalComparison): string {
  const { verdict, items_needed: needed, note } = comparison;
  if (cannotTell(comparison)) return `cannot tell (${note})`;
  const more = needed === undefined ? "" : `: ${counted(needed, "more item")} needed`;
  return `${verdict}${more}${note === undefined ? "" : ` (${note})`}`;
}

function rowName(row: EvalRow): string {
  return row.endpoint === "choices" ? `${row.name} (most likely choice)` : row.name;
}

/** What the table does not say: how it was made, and what is missing in it. */
function remarks(result: EvalResult, labels: readonly string[]): string[] {
  const { statistics, arms, rows } = result;
  const lines = arms.map((arm, index) => {
    const role = labels[index] === arm.name ? (index === 0 ? "baseline" : "arm") : `${labels[index]} is`;
    const what = `${role} ${arm.name}: ${arm.index_topk_pattern}, ${arm.full_layers} of ${arm.index_topk_pattern.length} layers Full`;
    // There the times are those of requests beside others, and no rate of the model.
    if (result.settings.device === "server") return what;
    const prefill = formatRate(arm.prompt_tokens, arm.prefill_seconds);
    const decode = formatRate(arm.generated_tokens, arm.decode_seconds);
    return `${what}; prefill ${prefill}, decode ${decode}`;
  });
  if (arms.length > 1) {
    lines.push(
      `Scores in points of 100, gold loss in nats per token of the gold answer. Verdict: margin ${formatPoints(statistics.margin)}, one-sided ${percent(1 - statistics.alpha)}; * p below ${statistics.alpha} after Holm's correction over tasks${resampling(statistics)}.`,
      ...neededRemark(result),
      ...blindRemarks(result),
    );
  }
  lines.push(...outputRemarks(rows, arms, labels));
  lines.push(...result.notes.map((note) => `${note}.`));
  for (const { task, reason } of result.skipped_tasks) lines.push(`Skipped ${task}: ${reason}`);
  const [bad] = result.bad_records;
  if (bad !== undefined) {
    lines.push(
      `Bad records left out: ${formatCount(result.bad_records.length)}; the first: ${bad.where}: ${bad.problem}`,
    );
  }
  if (result.wall_seconds > 0) lines.push(`Wall time ${formatDuration(result.wall_seconds)}.`);
  return lines;
}

/** Of files from before bounds were computed exactly. */
function resampling({ bootstrap, seed }: EvalResult["statistics"]): string {
  return bootstrap === undefined ? "" : `; ${formatCount(bootstrap)} resamples, seed ${seed}`;
}

/** What "N more items needed" promises; older files promise nothing. */
function neededRemark({ rows, statistics }: EvalResult): string[] {
  const asks = rows.some(({ comparisons }) => comparisons.some(({ items_needed: needed }) => needed !== undefined));
  if (!asks || statistics.power === undefined) return [];
  return [
    `N more items needed: that many in addition to these settle the verdict with a chance of ${percent(statistics.power)} if the arms do not differ (or differ as observed, where that is proven inferior sooner).`,
  ];
}

/** What "cannot tell" means, and how much of the mean over all tasks it is. */
function blindRemarks({ rows }: EvalResult): string[] {
  const blind = rows.filter(({ comparisons }) => comparisons.some(cannotTell));
  const has = (note: EvalComparison["note"]) =>
    blind.some(({ comparisons }) => comparisons.some((one) => cannotTell(one) && one.note === note));
  const overall = primaryRow(rows);
  const tasks = rows.filter(({ kind, endpoint }) => kind === "task" && endpoint === "generation");
  const blindTasks = tasks.filter((row) => blind.includes(row));
  const diluted = overall !== undefined && overall.kind === "overall" && !blind.includes(overall);
  return [
    ...(has("floor")
      ? [
          "Cannot tell (floor): the baseline scores no more there than the margin or than guessing, so that no loss could show.",
        ]
      : []),
    ...(has("no effect")
      ? [
          "Cannot tell (no effect): patterns differ, and every token, score and gold loss is the same to the last bit, as on prompts of at most index_topk tokens.",
        ]
      : []),
    ...(diluted && blindTasks.length > 0
      ? [
          `${formatCount(blindTasks.length)} of the ${formatCount(tasks.length)} tasks in the mean cannot tell, and make every change in it smaller.`,
        ]
      : []),
  ];
}

/** Counts over the task rows, each item once. */
function outputRemarks(rows: readonly EvalRow[], arms: EvalResult["arms"], labels: readonly string[]): string[] {
  const tasks = rows.filter(({ kind, endpoint }) => kind === "task" && endpoint === "generation");
  const total = (value: (row: EvalRow) => number) => tasks.reduce((before, row) => before + value(row), 0);
  const items = total((row) => row.items);
  const lines: string[] = [];
  const truncated = total((row) => row.counts.truncated);
  if (truncated > 0) lines.push(`Truncated in the middle: ${formatCount(truncated)} of ${formatCount(items)} prompts.`);
  const tooLong = total((row) => row.counts.too_long);
  if (tooLong > 0) lines.push(`Longer than the model's window, scored by no arm: ${formatCount(tooLong)} items.`);
  const dropped = total((row) => row.counts.dropped_empty ?? 0);
  if (dropped > 0) lines.push(`Left out because an arm's output is empty: ${formatCount(dropped)} items.`);
  lines.push(...fillRemarks(tasks));
  const perArm = (name: string, value: (arm: EvalRow["arms"][number]) => number) => {
    const counts = arms.map((_, index) => total((row) => value(row.arms[index] as EvalRow["arms"][number])));
    if (counts.every((one) => one === 0)) return;
    lines.push(
      `${name}: ${labels.map((label, index) => `${label} ${formatCount(counts[index] as number)}`).join(", ")}.`,
    );
  };
  perArm("Empty outputs", ({ empty }) => empty);
  perArm("Outputs that the token budget ended", ({ cut_off: cut }) => cut);
  perArm("Thoughts that never closed, counted as no answer", ({ unclosed = 0 }) => unclosed);
  return lines;
}

function fillRemarks(tasks: readonly EvalRow[]): string[] {
  const short = tasks.filter(({ counts }) => (counts.underfilled ?? 0) > 0);
  if (short.length === 0) return [];
  const each = short.map(({ name, counts, items }) => `${name} ${counts.underfilled} of ${formatCount(items)}`);
  return [`Prompts that fill less than 90% of the length asked for: ${each.join(", ")}.`];
}

function range({ low, high }: { low: number; high: number }, format: (value: number) => string): string {
  return `${format(low)} to ${format(high)}`;
}

function percent(value: number): string {
  return `${Number((100 * value).toFixed(2))}%`;
}

function formatP(p: number): string {
  return p < 0.0001 ? "<0.0001" : p.toFixed(4);
}
