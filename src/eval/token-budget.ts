/** How many tokens an answer may have, where that is not the task's own number. */
import { UsageError } from "../base/errors.ts";
import { quoted } from "../base/quoted.ts";
import type { EvalTask, Suite } from "./item.ts";

/** RULER's advice for models of 128K: 112K for the prompt, 16K for thoughts and answer. */
const THOUGHT_TOKENS = 16_384;
const THOUGHT_SHARE = 1 / 8;

export interface TokenBudget {
  /** `--max-new-tokens N`: of every task that has no number of its own. */
  all?: number;
  /** `--max-new-tokens task=N` */
  tasks: ReadonlyMap<string, number>;
  /** On top of a task's own number where nothing is given: room for a thought. Default 0. */
  thought?: number;
}

/** @param window positions of the model */
export function usualThoughtTokens(window: number): number {
  return Math.min(THOUGHT_TOKENS, Math.floor(window * THOUGHT_SHARE));
}

/** The task with the number of new tokens that it may have in this run, thoughts included. */
export function withBudget<T extends Pick<EvalTask, "name" | "maxNewTokens">>(
  task: T,
  { budget }: { budget?: TokenBudget },
): T {
  if (budget === undefined) return task;
  const own = task.maxNewTokens + (budget.thought ?? 0);
  return { ...task, maxNewTokens: budget.tasks.get(task.name) ?? budget.all ?? own };
}

/** @throws UsageError for a budget of a task that the suite does not run */
export function requireKnownTasks(budget: TokenBudget | undefined, { name: suite, tasks, skipped }: Suite): void {
  const names = [...tasks.map(({ name }) => name), ...skipped.map(({ task }) => task)];
  for (const name of budget?.tasks.keys() ?? []) {
    if (names.includes(name)) continue;
    throw new UsageError(`--max-new-tokens names task ${quoted(name)}, which suite ${suite} does not run here`, {
      hint: `its tasks are ${names.join(", ")}`,
    });
  }
}
