/** What `eval --dry-run` prints: what would run, and about how long. */
import type { EvaluationPlan } from "../../eval/run/plan.ts";
import { counted, formatCount, formatDuration } from "../quantities.ts";
import { formatTable, left, right, wrapWords } from "../text-table.ts";

/** Items that the journal holds already are not counted out. */
interface EvalPlanRecord extends EvaluationPlan {
  suite: string;
  arms: { name: string; index_topk_pattern: string }[];
  skipped_tasks: { task: string; reason: string }[];
}

/** @param width columns of the terminal; undefined for a file or pipe */
export function formatEvalPlan(plan: EvalPlanRecord, width?: number): string {
  const table = formatTable(
    plan.cells,
    [
      left("Task", ({ task, length }) => (length === undefined ? task : `${task} ${length}`)),
      right("Items", ({ items }) => formatCount(items)),
      right("Prompt tokens", ({ prompt_tokens: tokens }) => formatCount(tokens)),
      right("Longest", ({ longest_prompt: tokens }) => formatCount(tokens)),
      right("Too long", ({ too_long: items }) => (items === 0 ? "" : formatCount(items)), {
        fold: "below",
        label: "too long:",
      }),
      right("New tokens at most", ({ max_new_tokens: tokens }) => formatCount(tokens), {
        fold: "late",
        label: "new tokens at most:",
      }),
    ],
    width,
  );
  const time =
    plan.estimated_seconds === null ? "not known" : `at most about ${formatDuration(plan.estimated_seconds)}`;
  const lines = [
    ...plan.arms.map(
      ({ name, index_topk_pattern: pattern }, index) => `${index === 0 ? "baseline" : "arm"} ${name}: ${pattern}`,
    ),
    ...plan.skipped_tasks.map(({ task, reason }) => `Skipped ${task}: ${reason}`),
    `${counted(plan.items, "item")} under ${counted(plan.arms.length, "arm")}, ${plan.workers} at a time; time: ${time}`,
  ];
  return [table, "", ...(width === undefined ? lines : lines.flatMap((line) => wrapWords(line, width)))].join("\n");
}
