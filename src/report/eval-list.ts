/** What `eval --list` prints: suites and their tasks. */
import type { ListedTask } from "../eval/suites.ts";
import { formatTable } from "./text-table.ts";

export function formatTaskList(tasks: readonly ListedTask[]): string {
  return formatTable(
    [
      { title: "Suite" },
      { title: "Task" },
      { title: "Version", align: "right" },
      { title: "Metric" },
      { title: "Scores" },
      { title: "New tokens", align: "right" },
      { title: "Data" },
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
