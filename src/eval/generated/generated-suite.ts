/** Suites whose samples are generated: what the options make of a task and length, and the items of all sets. */
import type { EvalItem, EvalTask, Suite } from "../item.ts";
import type { SuiteContext } from "../suite-definition.ts";
import { withBudget } from "../token-budget.ts";
import { generateSet, type SetSettings, sizeOf } from "./generated-set.ts";
import { type AskedLengths, DEFAULT_SAMPLES, DEFAULT_SEED } from "./target-lengths.ts";

/** What every generated suite is asked for. */
export type GeneratedOptions = SuiteContext & AskedLengths;

/** What of a set follows from these alone. */
type AskedSet<T extends EvalTask> = { task: T } & Pick<
  SetSettings,
  "length" | "samples" | "seed" | "counter" | "tokenizerHash" | "wrapperTokens" | "limit" | "cacheFolder" | "signal"
>;

/** Samples, seed and room of a task at a length. */
export function askedSet<T extends EvalTask>(task: T, length: number, options: GeneratedOptions): AskedSet<T> {
  const { counter, tokenizerHash, wrapperTokens = 0, limit, cacheFolder, signal } = options;
  const { seed = DEFAULT_SEED, samples = DEFAULT_SAMPLES, window = Number.POSITIVE_INFINITY } = options;
  // A thought is no part of the length asked for, but it has to have room in the window.
  const whole = Math.min(length - task.maxNewTokens, window - withBudget(task, options).maxNewTokens);
  return {
    task,
    length,
    samples: Math.min(samples, limit ?? samples),
    seed,
    counter,
    tokenizerHash,
    wrapperTokens,
    limit: whole - wrapperTokens,
    cacheFolder,
    signal,
  };
}

/** The items of all sets, in their order. */
export function itemsOf(sets: readonly SetSettings[]): Pick<Suite, "total" | "bad" | "items"> {
  return {
    total: sets.reduce((total, set) => total + sizeOf(set), 0),
    bad: [],
    async *items(): AsyncGenerator<EvalItem> {
      for (const set of sets) yield* generateSet(set);
    },
  };
}
