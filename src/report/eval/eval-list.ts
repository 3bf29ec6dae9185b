/** What `eval --list` prints: suites and their tasks. */
import type { ListedTask } from "../../eval/suites.ts";
import { formatTable, left, right } from "../text-table.ts";

/** @param width columns of the terminal; undefined for a file or pipe */
export function formatTaskList(tasks: readonly ListedTask[], width?: number): string {
  return formatTable(
    tasks,
    [
      left("Suite", ({ suite }) => suite),
      left("Task", ({ task }) => task),
      right("Version", ({ version }) => String(version)),
      left("Metric", ({ metric }) => metric),
      left("Scores", ({ scores }) => scores),
      right("New tokens", ({ maxNewTokens }) => String(maxNewTokens), { fold: "late", label: "new tokens:" }),
      left("Data", ({ data }) => data, { fold: "below", label: "data:" }),
    ],
    width,
  );
}

export function taskListRecord(tasks: readonly ListedTask[]): object[] {
  return tasks.map(({ maxNewTokens, ...task }) => ({ ...task, max_new_tokens: maxNewTokens }));
}
