/** Opens a suite by name, and lists what there is. */
import { UsageError } from "../base/errors.ts";
import type { EvalTask, Suite, TokenCounter } from "./item.ts";
import { loadSegmentation } from "./longbench/segmentation.ts";
import { openLongbench } from "./longbench/suite.ts";
import { longbenchTasks, needsSegmentation } from "./longbench/tasks.ts";
import { longbenchV2Task, openLongbenchV2 } from "./longbench/v2.ts";
import type { FillSteps } from "./ruler/generated-set.ts";
import { openPreparedRuler } from "./ruler/prepared.ts";
import { openGeneratedRuler } from "./ruler/suite.ts";
import { coreTasks, type RulerTask, rulerTasks } from "./ruler/tasks.ts";
import { requireKnownTasks, type TokenBudget, withBudget } from "./token-budget.ts";

export const suiteNames = ["ruler-core", "ruler", "longbench", "longbench-e", "longbench-v2"] as const;
export type SuiteName = (typeof suiteNames)[number];

export const DEFAULT_SUITE: SuiteName = "ruler-core";

export interface SuiteOptions {
  /** The model's tokenizer: RULER reaches its lengths with it, LongBench cuts with it. */
  counter: TokenCounter;
  /** Which tokenizer `counter` is (`Tokenizer.hash`): part of the key of cached sets. */
  tokenizerHash: string;
  /** Tokens that BOS and the chat template put around a prompt (`PromptAssembly.wrapperTokens`). Default 0. */
  wrapperTokens?: number;
  /** Only these tasks, by name. Default all. */
  tasks?: readonly string[];
  /** At most this many items of every task (and length). */
  limit?: number;
  /** Every random choice of a generated suite. Default 42, as RULER. */
  seed?: number;
  /**
   * RULER: target lengths in tokens, answer budget and wrapper included. Default [4096]; with `data` all that it has and
   * the window takes.
   */
  lengths?: readonly number[];
  /** RULER: samples of every task and length. Default 100. */
  samples?: number;
  /** Prepared records: a file, or a folder of files. LongBench needs it, RULER then generates nothing. */
  data?: string;
  /** Only files of this split of the data: `train`, `test`, `validation`. */
  split?: string;
  /** RULER's essays: PaulGrahamEssays.json, a folder of .txt, or any text file. */
  essays?: string;
  /** RULER's qa_1: dev-v2.0.json of SQuAD. */
  squad?: string;
  /** RULER's qa_2: hotpot_dev_distractor_v1.json of HotpotQA. */
  hotpotqa?: string;
  /** RULER's cwe beyond its pool of 8,166 words: english_words.json. Without it such prompts are not full, and marked. */
  englishWords?: string;
  /** RULER: "official" for the coarse steps of its own generator. Default "fine": prompts are full. */
  steps?: FillSteps;
  /**
   * LongBench's own max_length: rendered prompts of more tokens are cut in the middle to this many; wrapper and answer come
   * on top.
   */
  maxLength?: number;
  /**
   * Positions of the model. With `data` for several lengths, those are used that it takes. Without `maxLength` LongBench's
   * prompts are cut so that wrapper, prompt and answer fit. Default: nothing is cut.
   */
  window?: number;
  /** New tokens of answers, where they are not the tasks' own. */
  budget?: TokenBudget;
  /** LongBench v2: whether an empty output is wrong, or the item is left out as in the official code. Default wrong. */
  emptyOutputs?: EmptyOutputs;
  /** LongBench v2: think step by step, then answer in a second turn. */
  cot?: boolean;
  /** LongBench's code tasks: the ratio of the official set-up (difflib), or that of python-Levenshtein (indel). */
  codeRatio?: "difflib" | "indel";
  /** Leave bad records out and count them in `Suite.bad` instead of failing at the first. */
  skipBad?: boolean;
  /** Folder where RULER's generated sets are remembered; nothing is remembered without one. */
  cacheFolder?: string;
  signal?: AbortSignal;
}

export const emptyOutputs = ["wrong", "drop"] as const;
export type EmptyOutputs = (typeof emptyOutputs)[number];

/** What `eval --list` shows of a task. */
export interface ListedTask {
  suite: SuiteName;
  task: string;
  version: number;
  metric: string;
  scores: "binary" | "graded";
  maxNewTokens: number;
  /** What the user has to give: "nothing", "--essays", "--data"; for a person. */
  data: string;
}

/**
 * @throws UsageError for an unknown suite or task and for options that do not go together
 * @throws InputError for data that cannot be read, and for a length in which even the smallest prompt does not fit
 */
export async function openSuite(name: SuiteName, options: SuiteOptions): Promise<Suite> {
  requireWhole(options.limit, "--limit");
  requireWhole(options.maxLength, "--max-length");
  const suite = await openNamed(name, options);
  requireKnownTasks(options.budget, suite);
  return { ...suite, tasks: suite.tasks.map((task) => withBudget(task, options)) };
}

async function openNamed(name: SuiteName, options: SuiteOptions): Promise<Suite> {
  switch (name) {
    case "ruler-core":
      return openRuler(name, choose(coreTasks, name, options), options);
    case "ruler":
      return openRuler(name, choose(rulerTasks, name, options), options);
    case "longbench":
      return openLongbench(name, "v1", (tasks) => choose(tasks, name, options), options);
    case "longbench-e":
      return openLongbench(name, "e", (tasks) => choose(tasks, name, options), options);
    case "longbench-v2": {
      const task = longbenchV2Task(options.cot ?? false, options.emptyOutputs);
      choose([task], name, options);
      return openLongbenchV2(name, task, options);
    }
    default:
      throw new UsageError(`There is no suite "${String(name)}"`, { hint: `suites are ${suiteNames.join(", ")}` });
  }
}

function openRuler(name: SuiteName, tasks: readonly RulerTask[], options: SuiteOptions): Promise<Suite> {
  return options.data === undefined
    ? openGeneratedRuler(name, tasks, options)
    : openPreparedRuler(name, tasks, options.data, options);
}

function requireWhole(value: number | undefined, flag: string): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= 1)) return;
  throw new UsageError(`${flag} is ${value}: it must be a whole number from 1 up`);
}

/** The tasks of `--tasks`, or all. */
function choose<T extends EvalTask>(all: readonly T[], suite: SuiteName, { tasks: wanted }: SuiteOptions): T[] {
  if (wanted === undefined) return [...all];
  const names = all.map((task) => task.name);
  const unknown = wanted.find((task) => !names.includes(task));
  if (unknown !== undefined) {
    throw new UsageError(`Suite ${suite} has no task "${unknown}"`, { hint: `its tasks are ${names.join(", ")}` });
  }
  return all.filter((task) => wanted.includes(task.name));
}

/**
 * The tasks of a suite without its data, to score outputs again.
 * @throws UsageError for an unknown suite
 */
export async function suiteTasks(
  name: string,
  { codeRatio, emptyOutputs }: Required<Pick<SuiteOptions, "codeRatio" | "emptyOutputs">>,
): Promise<EvalTask[]> {
  switch (name) {
    case "ruler-core":
    case "ruler":
      return [...rulerTasks];
    case "longbench":
    case "longbench-e": {
      const segment = await loadSegmentation();
      const tasks = longbenchTasks({ codeRatio, ...(segment === undefined ? {} : { segment }) });
      return tasks.filter((task) => segment !== undefined || !needsSegmentation(task));
    }
    case "longbench-v2":
      return [longbenchV2Task(false, emptyOutputs), longbenchV2Task(true, emptyOutputs)];
    default:
      throw new UsageError(`There is no suite "${name}"`, { hint: `suites are ${suiteNames.join(", ")}` });
  }
}

/** Every task of every suite, in the order of the tables. */
export function listSuites(): ListedTask[] {
  const list = (suite: SuiteName, tasks: readonly EvalTask[], data: (task: EvalTask) => string): ListedTask[] =>
    tasks.map((task) => {
      const { name, version, metric, scores, maxNewTokens } = task;
      return { suite, task: name, version, metric, scores, maxNewTokens, data: data(task) };
    });
  const longbench = longbenchTasks({ codeRatio: "difflib" });
  const dataOf = (task: EvalTask): string =>
    needsSegmentation(task) ? "--data (and the package @node-rs/jieba)" : "--data";
  return [
    ...list("ruler-core", coreTasks, () => "nothing"),
    ...rulerTasks.flatMap((task) => list("ruler", [task], () => task.flag ?? "nothing")),
    ...list("longbench", longbench, dataOf),
    ...list(
      "longbench-e",
      longbench.filter(({ inE }) => inE),
      dataOf,
    ),
    ...list("longbench-v2", [longbenchV2Task(false)], () => "--data"),
    ...list("longbench-v2", [longbenchV2Task(true)], () => "--data, --cot"),
  ];
}
