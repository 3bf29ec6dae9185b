/** What `eval --dry-run` prints: what would run, and about how long. */
import type { PlannedCell } from "../../eval/run/plan.ts";
import { formatCount, formatDuration } from "../quantities.ts";
import { formatTableWithin, wrapWords } from "../text-table.ts";

export interface EvalPlanRecord {
  suite: string;
  arms: { name: string; index_topk_pattern: string }[];
  cells: PlannedCell[];
  skipped_tasks: { task: string; reason: string }[];
  /** Items that the journal holds already are not counted out. */
  items: number;
  workers: number;
  /** Of every item at its full token budget, from one that was timed; most end earlier. */
  estimated_seconds: number | null;
}

/** @param width columns of the terminal; undefined for a file or pipe */
export function formatEvalPlan(plan: EvalPlanRecord, width?: number): string {
  const rows = plan.cells.map((cell) => [
    cell.length === undefined ? cell.task : `${cell.task} ${cell.length}`,
    formatCount(cell.items),
    formatCount(cell.prompt_tokens),
    formatCount(cell.longest_prompt),
    cell.too_long === 0 ? "" : formatCount(cell.too_long),
    formatCount(cell.max_new_tokens),
  ]);
  const right = (title: string) => ({ title, align: "right" as const });
  const columns = [
    { title: "Task" },
    right("Items"),
    right("Prompt tokens"),
    right("Longest"),
    right("Too long"),
    right("New tokens at most"),
  ];
  const time =
    plan.estimated_seconds === null ? "not known" : `at most about ${formatDuration(plan.estimated_seconds)}`;
  const lines = [
    ...plan.arms.map(
      ({ name, index_topk_pattern: pattern }, index) => `${index === 0 ? "baseline" : "arm"} ${name}: ${pattern}`,
    ),
    ...plan.skipped_tasks.map(({ task, reason }) => `Skipped ${task}: ${reason}`),
    `${formatCount(plan.items)} items under ${plan.arms.length} arms, ${plan.workers} at a time; time: ${time}`,
  ];
  return [
    formatTableWithin(width, columns, rows),
    "",
    ...(width === undefined ? lines : lines.flatMap((line) => wrapWords(line, width))),
  ].join("\n");
}
