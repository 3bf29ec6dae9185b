/** What an evaluation would run, without running it: items are made and counted, one is timed. */
import type { EvalItem, EvalTask } from "../item.ts";
import { type Evaluation, evaluate } from "./evaluation.ts";

export interface EvaluationPlan {
  cells: PlannedCell[];
  items: number;
  workers: number;
  /** Of every item at its full token budget, from one that was timed; most end earlier. Null where no item fits. */
  estimated_seconds: number | null;
}

export interface PlannedCell {
  task: string;
  length?: number | undefined;
  items: number;
  prompt_tokens: number;
  longest_prompt: number;
  too_long: number;
  max_new_tokens: number;
}

/** Counts every item and times the longest one. */
export async function planEvaluation(evaluation: Evaluation): Promise<EvaluationPlan> {
  const { suite, assembly, window, runner } = evaluation;
  const cells = new Map<string, PlannedCell>();
  let longest: { item: EvalItem; tokens: number; budget: number } | undefined;
  for await (const item of suite.items()) {
    evaluation.signal?.throwIfAborted();
    const task = suite.tasks.find(({ name }) => name === item.task) as EvalTask;
    const tokens = assembly.prompt(item).ids.length;
    const cell = cellOf(cells, task, item);
    cell.items++;
    cell.prompt_tokens += tokens;
    cell.longest_prompt = Math.max(cell.longest_prompt, tokens);
    if (tokens >= window) cell.too_long++;
    else if (tokens > (longest?.tokens ?? 0)) longest = { item, tokens, budget: task.maxNewTokens };
  }
  const planned = [...cells.values()];
  const estimated =
    longest === undefined ? null : (await secondsFor(evaluation, longest.item, planned)) / runner.concurrency;
  const items = planned.reduce((total, cell) => total + cell.items, 0);
  return { cells: planned, items, workers: runner.concurrency, estimated_seconds: estimated };
}

function cellOf(cells: Map<string, PlannedCell>, task: EvalTask, { length }: EvalItem): PlannedCell {
  const key = `${task.name} ${length}`;
  let cell = cells.get(key);
  if (cell === undefined) {
    cell = {
      task: task.name,
      length,
      items: 0,
      prompt_tokens: 0,
      longest_prompt: 0,
      too_long: 0,
      max_new_tokens: task.maxNewTokens,
    };
    cells.set(key, cell);
  }
  return cell;
}

/** Time of all cells, prefill by the prompt token and decoding by the new one, as one item took them. */
async function secondsFor(evaluation: Evaluation, item: EvalItem, cells: readonly PlannedCell[]): Promise<number> {
  const one = { ...evaluation.suite, items: () => only(item) };
  let seconds = 0;
  // Twice: the first run pays for what the runtime allocates.
  for (let run = 0; run < 2; run++) {
    for await (const { samples } of evaluate({ ...evaluation, suite: one })) {
      const prompt = samples[0]?.prompt_tokens ?? 1;
      const prefill = samples.reduce((total, sample) => total + sample.prefill_seconds, 0) / prompt;
      const steps = samples.reduce((total, sample) => total + sample.output_tokens.length, 0);
      const decode = samples.reduce((total, sample) => total + sample.decode_seconds, 0) / Math.max(steps, 1);
      seconds = cells.reduce((total, cell) => {
        const fitting = cell.items - cell.too_long;
        return total + cell.prompt_tokens * prefill + fitting * cell.max_new_tokens * samples.length * decode;
      }, 0);
    }
  }
  return seconds;
}

async function* only(item: EvalItem): AsyncGenerator<EvalItem> {
  yield item;
}
