/**
 * What a suite says about itself: its name, its options and how it is opened. A suite is a folder that exports one or more
 * of these, and a row in `suites.ts`; the command line, `--list`, `--from` and the journal read everything from here.
 */
import { UsageError } from "../base/errors.ts";
import type { EvalTask, Suite, TokenCounter } from "./item.ts";
import type { TokenBudget } from "./token-budget.ts";

/** What every suite is opened with, beside its own options. */
export interface SuiteContext {
  /** The model's tokenizer: generated prompts reach their lengths with it, LongBench cuts with it. */
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
  /** Positions of the model. Without it no prompt is too long. */
  window?: number;
  /** New tokens of answers, where they are not the tasks' own. */
  budget?: TokenBudget;
  /** Folder where generated sets are remembered; nothing is remembered without one. */
  cacheFolder?: string;
  signal?: AbortSignal;
}

interface OptionWords {
  /** As commander writes it: "--essays <path>". */
  flags: string;
  /** For the help of the command line. */
  help: string;
  /**
   * What an option decides, and so where it is kept. "prompts" and "scores" are settings, and a run that goes on needs the
   * same ones; `--from` takes those of scores. "source" is kept for the record alone: prompts are told apart by their hashes.
   */
  decides: "source" | "prompts" | "scores";
}

interface TextOption extends OptionWords {
  kind: "text";
}
interface SwitchOption extends OptionWords {
  kind: "switch";
}
/** A whole number from 1 up. */
interface CountOption extends OptionWords {
  kind: "count";
}
/** Whole numbers of tokens: 4096,8k. */
interface LengthsOption extends OptionWords {
  kind: "lengths";
}
interface ChoiceOption<T extends string> extends OptionWords {
  kind: "choice";
  choices: readonly T[];
  default: T;
}

export type SuiteOption = TextOption | SwitchOption | CountOption | LengthsOption | ChoiceOption<string>;

/** A suite's options by the name of their value, which is the flag's in camel case. */
export type OptionSet = Readonly<Record<string, SuiteOption>>;

type ValueOf<O> =
  O extends ChoiceOption<infer T>
    ? T
    : O extends TextOption
      ? string
      : O extends SwitchOption
        ? boolean
        : O extends CountOption
          ? number
          : readonly number[];

/** Values of options; what was not given is absent. */
export type OptionValues<Options extends OptionSet> = { -readonly [K in keyof Options]?: ValueOf<Options[K]> };

/** A task as `eval --list` shows it. */
interface TaskNeeds {
  task: EvalTask;
  /** What the user has to give: "nothing", "--essays", "--data"; for a person. */
  data: string;
}

export interface SuiteDefinition<Name extends string = string, Options extends OptionSet = OptionSet> {
  name: Name;
  /** One line for the help: what it asks, and what it needs. */
  help: string;
  options: Options;
  /** Nothing has to be given: `--suite all-offline` has it. */
  offline?: true;
  /** Every task, in the order of the tables. */
  list(): TaskNeeds[];
  /** The tasks without their data, to score outputs again. */
  tasks(values: OptionValues<Options>): EvalTask[] | Promise<EvalTask[]>;
  /**
   * @throws UsageError for an unknown task and for options that do not go together
   * @throws InputError for data that cannot be read, and for a length in which even the smallest prompt does not fit
   */
  open(options: SuiteContext & OptionValues<Options>): Promise<Suite>;
}

/** Any suite, its own options among those that it is opened with. */
export interface AnySuite {
  name: string;
  options: OptionSet;
  offline?: true;
  list(): TaskNeeds[];
  tasks(values: object): EvalTask[] | Promise<EvalTask[]>;
  open(options: SuiteContext): Promise<Suite>;
}

/** For its types alone: a definition keeps the names of its options. */
export function defineSuite<const Name extends string, const Options extends OptionSet>(
  definition: SuiteDefinition<Name, Options>,
): SuiteDefinition<Name, Options> {
  return definition;
}

/** Options of suites that read records of the user's. */
export const dataOptions = {
  data: {
    kind: "text",
    flags: "--data <path>",
    help: "prepared records: JSON, JSONL, CSV, TSV or Parquet, packed or not, or a folder or zip of them",
    decides: "source",
  },
  split: {
    kind: "text",
    flags: "--split <name>",
    help: "only the files of this split in a folder or zip: train, test or validation",
    decides: "source",
  },
  skipBad: {
    kind: "switch",
    flags: "--skip-bad",
    help: "leave bad records out and count them",
    decides: "source",
  },
} as const satisfies OptionSet;

/** Options of suites that make their prompts. */
export const generatedOptions = {
  lengths: {
    kind: "lengths",
    flags: "--lengths <list>",
    help: "target lengths of generated prompts in tokens: 4096,8k (default: 4096 or the window; with --data all that fit)",
    decides: "source",
  },
  samples: {
    kind: "count",
    flags: "--samples <n>",
    help: "generated samples of every task and length (default: 100)",
    decides: "source",
  },
} as const satisfies OptionSet;

/**
 * The tasks of `--tasks`, or all.
 * @throws UsageError for a name that is no task of the suite
 */
export function chooseTasks<T extends EvalTask>(
  all: readonly T[],
  suite: string,
  { tasks: wanted }: Pick<SuiteContext, "tasks">,
): T[] {
  if (wanted === undefined) return [...all];
  const names = all.map((task) => task.name);
  const unknown = wanted.find((task) => !names.includes(task));
  if (unknown !== undefined) {
    throw new UsageError(`Suite ${suite} has no task "${unknown}"`, { hint: `its tasks are ${names.join(", ")}` });
  }
  return all.filter((task) => wanted.includes(task.name));
}
