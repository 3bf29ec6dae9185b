/** What `eval --list` prints: suites and their tasks. */
import type { ListedTask } from "../../eval/suites.ts";
import { formatTableWithin } from "../text-table.ts";

/** @param width columns of the terminal; undefined for a file or pipe */
export function formatTaskList(tasks: readonly ListedTask[], width?: number): string {
  return formatTableWithin(
    width,
    [
      { title: "Suite" },
      { title: "Task" },
      { title: "Version", align: "right" },
      { title: "Metric" },
      { title: "Scores" },
      { title: "New tokens", align: "right" },
      { title: "Data", fold: "below", label: "data:" },
    ],
    tasks.map(({ suite, task, version, metric, scores, maxNewTokens, data }) => [
      suite,
      task,
      String(version),
      metric,
      scores,
      String(maxNewTokens),
      data,
    ]),
  );
}

export function taskListRecord(tasks: readonly ListedTask[]): object[] {
  return tasks.map(({ maxNewTokens, ...task }) => ({ ...task, max_new_tokens: maxNewTokens }));
}
