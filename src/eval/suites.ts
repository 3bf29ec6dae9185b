/** The suites there are: a row for each. */
import { InputError, UsageError } from "../base/errors.ts";
import { quoted } from "../base/quoted.ts";
import { graphwalksSuite } from "./graphwalks/suite.ts";
import type { EvalItem, EvalTask, Suite } from "./item.ts";
import { longbenchESuite, longbenchSuite } from "./longbench/suite.ts";
import { longbenchV2Suite } from "./longbench/v2.ts";
import { mrcrSuite } from "./mrcr/suite.ts";
import { rulerOptions } from "./ruler/options.ts";
import { rulerCoreSuite, rulerSuite } from "./ruler/suite.ts";
import {
  type AnySuite,
  chooseTasks,
  defineSuite,
  generatedOptions,
  type OptionSet,
  type OptionValues,
  type SuiteContext,
  type SuiteOption,
} from "./suite-definition.ts";
import { requireKnownTasks, withBudget } from "./token-budget.ts";

const single = [
  rulerCoreSuite,
  rulerSuite,
  graphwalksSuite,
  longbenchSuite,
  longbenchESuite,
  longbenchV2Suite,
  mrcrSuite,
] as const;

/** Every suite for which nothing has to be given. */
const offline: readonly AnySuite[] = single.filter((suite: AnySuite) => suite.offline === true);

const allOfflineSuite = defineSuite({
  name: "all-offline",
  help: "every suite that needs no file: a section of the result for each",
  options: { ...generatedOptions, steps: rulerOptions.steps },
  list: () => [],
  tasks: () => offline.flatMap((suite) => suite.list().map(({ task }) => task)),
  open: (options) => openCombined("all-offline", offline, options),
});

const suites = [...single, allOfflineSuite] as const;

export type SuiteName = (typeof suites)[number]["name"];

export const suiteNames: readonly SuiteName[] = suites.map(({ name }) => name);

export const DEFAULT_SUITE: SuiteName = "ruler-core";

type Both<U> = (U extends unknown ? (one: U) => void : never) extends (all: infer I) => void ? I : never;
type AllOptions = Both<(typeof suites)[number]["options"]>;

/** Values of the options of all suites; each suite takes its own. */
export type SuiteValues = OptionValues<AllOptions>;
export type SuiteOptions = SuiteContext & SuiteValues;

/** Once for every option, with the suites that take it. */
export interface ListedOption {
  attribute: string;
  option: SuiteOption;
  suites: SuiteName[];
}

/** What `eval --list` shows of a task. */
export interface ListedTask extends Pick<EvalTask, "version" | "metric" | "scores" | "maxNewTokens"> {
  suite: SuiteName;
  task: string;
  data: string;
}

/** The options of all suites, in the order of the suites. */
export function suiteOptions(): ListedOption[] {
  const found = new Map<string, ListedOption>();
  for (const { name, options } of suites) {
    for (const [attribute, option] of Object.entries<SuiteOption>(options)) {
      const known = found.get(attribute);
      if (known === undefined) found.set(attribute, { attribute, option, suites: [name] });
      else known.suites.push(name);
    }
  }
  return [...found.values()];
}

/** A line of help for each suite. */
export function suiteHelp(): { name: SuiteName; help: string }[] {
  return suites.map(({ name, help }) => ({ name, help }));
}

/** @throws UsageError for a name that no suite has */
export function suiteNamed(name: string): SuiteName {
  const found = suiteNames.find((known) => known === name);
  if (found !== undefined) return found;
  throw new UsageError(`There is no suite ${quoted(name)}`, { hint: `suites are ${suiteNames.join(", ")}` });
}

function definitionOf(name: SuiteName): AnySuite {
  return suites.find((suite) => suite.name === name) as AnySuite;
}

/** The options that a suite takes, by attribute. */
export function optionsOf(name: SuiteName): OptionSet {
  return definitionOf(name).options;
}

/**
 * @throws UsageError for an unknown suite or task and for options that do not go together
 * @throws InputError for data that cannot be read, and for a length in which even the smallest prompt does not fit
 */
export async function openSuite(name: SuiteName, options: SuiteOptions): Promise<Suite> {
  const definition = definitionOf(suiteNamed(name));
  requireWhole(options.limit, "--limit");
  const suite = await definition.open(options);
  requireKnownTasks(options.budget, suite);
  return { ...suite, tasks: suite.tasks.map((task) => withBudget(task, options)) };
}

function requireWhole(value: number | undefined, flag: string): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= 1)) return;
  throw new UsageError(`${flag} is ${value}: it must be a whole number from 1 up`);
}

/** The tasks of a suite without its data, to score outputs again. */
export async function suiteTasks(name: SuiteName, values: SuiteValues): Promise<EvalTask[]> {
  return definitionOf(name).tasks(values);
}

/** Every task of every suite, in the order of the tables. */
export function listSuites(): ListedTask[] {
  return suites.flatMap(({ name: suite, list }) =>
    list().map(({ task: { name, version, metric, scores, maxNewTokens }, data }) => {
      return { suite, task: name, version, metric, scores, maxNewTokens, data };
    }),
  );
}

/**
 * Several suites as one: each is a section of the result. Opens the parts that have tasks to run. One that does not fit, into the model's window for instance, is named as skipped.
 * @throws UsageError for a task that no part has
 * @throws InputError of the first part where none can be opened
 */
async function openCombined(name: string, parts: readonly AnySuite[], options: SuiteContext): Promise<Suite> {
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
