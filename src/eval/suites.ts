/** Opens a suite by name, and lists what there is. */
import { UsageError } from "../base/errors.ts";
import type { EvalTask, Suite, TokenCounter } from "./item.ts";
import { openGeneratedRuler } from "./ruler/suite.ts";
import { coreTasks, rulerTasks } from "./ruler/tasks.ts";

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
  /** RULER: target lengths in tokens, answer budget and wrapper included. Default [4096]. */
  lengths?: readonly number[];
  /** RULER: samples of every task and length. Default 100. */
  samples?: number;
  /** Prepared records: a file, or a folder of files. LongBench needs it, RULER then generates nothing. */
  data?: string;
  /** RULER's essays: PaulGrahamEssays.json, a folder of .txt, or any text file. */
  essays?: string;
  /** RULER's qa_1: dev-v2.0.json of SQuAD. */
  squad?: string;
  /** RULER's qa_2: hotpot_dev_distractor_v1.json of HotpotQA. */
  hotpotqa?: string;
  /** LongBench: prompt with its wrapper and the answer budget together have at most this many tokens. Default: nothing is cut. */
  maxLength?: number;
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
  if (name === "ruler") return openGeneratedRuler(name, chooseTasks(rulerTasks, name, options), options);
  if (name === "ruler-core") return openGeneratedRuler(name, chooseTasks(coreTasks, name, options), options);
  throw new UsageError(`Suite "${name}" is not built yet`);
}

function chooseTasks<T extends EvalTask>(all: readonly T[], suite: string, { tasks: wanted }: SuiteOptions): T[] {
  if (wanted === undefined) return [...all];
  const names = all.map((task) => task.name);
  const unknown = wanted.find((task) => !names.includes(task));
  if (unknown !== undefined) {
    throw new UsageError(`Suite ${suite} has no task "${unknown}"`, { hint: `its tasks are ${names.join(", ")}` });
  }
  return all.filter((task) => wanted.includes(task.name));
}

/** Every task of every suite, in the order of the tables. */
export function listSuites(): ListedTask[] {
  return [];
}
