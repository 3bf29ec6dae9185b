/** Several suites as one: each of them is a section of the result. */
import { InputError } from "../base/errors.ts";
import type { EvalItem, EvalTask, Suite } from "./item.ts";
import { type AnySuite, chooseTasks, type SuiteContext } from "./suite-definition.ts";

/**
 * Opens the parts that have tasks to run. One that does not fit, into the model's window for instance, is named as skipped.
 * @throws UsageError for a task that no part has
 * @throws InputError of the first part where none can be opened
 */
export async function openCombined(name: string, parts: readonly AnySuite[], options: SuiteContext): Promise<Suite> {
  const all = parts.flatMap((part) => part.list().map(({ task }) => task));
  const wanted = new Set(chooseTasks(all, name, options).map((task) => task.name));
  const opened: Suite[] = [];
  const failed: { tasks: EvalTask[]; error: InputError }[] = [];
  for (const part of parts) {
    const tasks = part.list().flatMap(({ task }) => (wanted.has(task.name) ? [task] : []));
    if (tasks.length === 0) continue;
    try {
      opened.push(await part.open({ ...options, tasks: tasks.map((task) => task.name) }));
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      failed.push({ tasks, error });
    }
  }
  const [first] = failed;
  if (opened.length === 0 && first !== undefined) throw first.error;
  return {
    name,
    version: versionOf(opened),
    tasks: opened.flatMap(({ tasks }) => tasks),
    sections: opened.map(({ name, version, tasks }) => ({ name, version, tasks: tasks.map((task) => task.name) })),
    skipped: [
      ...opened.flatMap(({ skipped }) => skipped),
      ...failed.flatMap(({ tasks, error }) => tasks.map((task) => ({ task: task.name, reason: error.message }))),
    ],
    notes: opened.flatMap(({ notes }) => notes),
    total: opened.reduce((total, suite) => total + (suite.total ?? 0), 0),
    bad: [],
    async *items(): AsyncGenerator<EvalItem> {
      for (const suite of opened) {
        for await (const item of suite.items()) yield { ...item, groups: { suite: suite.name, ...item.groups } };
      }
    },
  };
}

/** Changes whenever a part's does: parts in order, two digits each. */
function versionOf(parts: readonly Suite[]): number {
  return parts.reduce((version, part) => 100 * version + part.version, 0);
}
