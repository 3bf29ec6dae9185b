/** Options of `eval`. */

import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { InvalidArgumentError, Option } from "commander";
import { UsageError } from "../../base/errors.ts";
import type { StatisticsSettings } from "../../eval/run/rows.ts";
import { DEFAULT_SUITE, type SuiteValues, suiteNames } from "../../eval/suites.ts";
import type { TokenBudget } from "../../eval/token-budget.ts";
import { SMALLEST_ALPHA } from "../../formats/eval-result.ts";
import { gates } from "../../report/eval/eval-gate.ts";
import { choice, type DeclaredOption, type Flags, group, option, repeatable } from "../arguments/declared-option.ts";
import { journalOptions, requireLog } from "../arguments/journal-options.ts";
import { modelOptions } from "../arguments/opening.ts";
import {
  decimalNumber,
  deviceOption,
  devicesOption,
  dtypeOptions,
  jsonOptions,
  offsetOption,
  positiveNumber,
  verbosityOptions,
  wholeNumber,
  workerCount,
} from "../arguments/options.ts";
import { serverOptions } from "../live/server-options.ts";
import { suiteFlags } from "./suite-flags.ts";

/** Draws of a sign-flip test. */
const PERMUTATIONS = 10_000;

/** In points: less is not seen in a million items. */
const SMALLEST_MARGIN = 0.001;

/** The model as it was trained. */
const allFullBaseline = "full";

export const evalOptions = [
  ...modelOptions,
  ...group(
    "What is compared:",
    repeatable(
      "-p, --pattern <pattern>",
      "an arm: a pattern file, an F/S string, full, uniform:N or freq:N; may be given several times",
      "the baseline alone is scored",
    ),
    option("--baseline <pattern>", "what every arm is compared with", allFullBaseline),
    offsetOption(),
  ),
  ...group(
    "What is asked:",
    choice("--suite <name>", "what is asked", suiteNames, DEFAULT_SUITE),
    option("--tasks <names>", "only these tasks of the suite, with commas between", names),
    option("--limit <n>", "at most this many items of every task and length", positiveNumber),
    option(
      "--max-new-tokens <list>",
      "new tokens of an answer, thoughts included: 512, or by task: vt=64,512 (default: the task's own)",
      tokenBudget,
    ),
    option("--thinking", "chat models think first; the answer is what follows the closing tag"),
    option("--temperature <t>", "sample at this temperature (default: 0, the most likely token)", decimalNumber),
    option(
      "--allow-overlap",
      "score items too that share text with a pattern's calibration set or with what the indexers were trained on",
    ),
    option("--chat-template <name>", "auto (the checkpoint's), none, deepseek-v3.2 or a Jinja file", "auto"),
  ),
  ...group(
    "Statistics:",
    option("--seed <n>", "seed of every random choice, of prompts and of statistics", wholeNumber, 42),
    option("--margin <points>", "loss in points that an arm may have and still pass", margin, 1),
    option("--alpha <share>", "error probability of intervals and verdicts", probability, 0.05),
  ),
  ...suiteFlags,
  ...group(
    "Where it computes:",
    deviceOption("where to compute"),
    option(
      "--threads <n>",
      "CPU threads of each process (default: 1, or more where memory does not hold a process for each core)",
      positiveNumber,
    ),
    option(
      "--workers <n>",
      "processes that share the items (default: one for each core, as memory allows)",
      workerCount,
    ),
    devicesOption("several devices share the items, a process each"),
  ),
  ...dtypeOptions,
  ...serverOptions,
  ...group(
    "Files and resuming:",
    new Option(
      "--cache <folder>",
      "where generated sets are remembered (default: the user's cache folder)",
    ) as DeclaredOption<{ cache: string | boolean }>,
    new Option("--no-cache", "remember no generated sets"),
    option("--dry-run", "say what would run, and after one item about how long"),
    option("--list", "list suites, tasks, metrics, versions and the data that each one needs"),
    repeatable(
      "--from <file>",
      "no model: score a samples file again, those of several models side by side, or print a result file",
    ),
    option("-o, --output <file>", "write the result as JSON here, exactly"),
    option("--samples-file <file>", "write samples here as they are made (default: FILE.samples.jsonl of -o FILE)"),
    option("--junit <file>", "write the verdicts as JUnit XML"),
    choice("--fail-on <verdict>", "exit with 1 where an arm is so", gates),
    ...journalOptions("samples file"),
  ),
  ...jsonOptions,
  ...group("What it prints:", option("--markdown", "print the table as Markdown").conflicts("json")),
  ...verbosityOptions,
] as const;

export type EvalFlags = Flags<typeof evalOptions> & SuiteValues;

/** @throws UsageError for flags that do not go together */
export function requireSensibleEvalFlags(flags: EvalFlags): void {
  const { from, junit, failOn, pattern } = flags;
  requireLog(flags, samplesPath(flags), "-o FILE or --samples-file FILE");
  if (flags.cot === true && flags.thinking === true) {
    throw new UsageError("--cot has the prompt ask for thoughts, --thinking the template: they exclude each other");
  }
  if (flags.temperature !== undefined && flags.temperature < 0) {
    throw new UsageError(`--temperature is ${flags.temperature}: it must be 0 or more`);
  }
  if (from.length === 0 && pattern.length === 0 && (junit !== undefined || failOn !== undefined)) {
    throw new UsageError(
      `--${junit === undefined ? "fail-on" : "junit"} needs a --pattern to compare with the baseline`,
    );
  }
}

/** Where samples are written as they are made; undefined where nothing is. */
export function samplesPath({ output, samplesFile }: EvalFlags): string | undefined {
  return samplesFile ?? (output === undefined ? undefined : `${output}.samples.jsonl`);
}

export function statisticsOf({ margin, alpha, seed }: EvalFlags): StatisticsSettings {
  return { margin: margin / 100, alpha, permutations: PERMUTATIONS, seed };
}

/** Where generated sets are remembered. */
export function cacheFolder({ cache }: EvalFlags): string | undefined {
  if (typeof cache === "string") return cache;
  if (!cache) return undefined;
  const { XDG_CACHE_HOME: folder } = process.env;
  return join(folder === undefined || folder === "" ? join(homedir(), ".cache") : folder, "indexcache");
}

function names(text: string): string[] {
  const list = text.split(",").map((name) => name.trim());
  if (list.includes("")) throw new InvalidArgumentError("It must be names with commas between.");
  return [...new Set(list)];
}

/** `512`, `vt=64`, or several with commas between. */
function tokenBudget(text: string): Pick<TokenBudget, "all" | "tasks"> {
  const tasks = new Map<string, number>();
  let all: number | undefined;
  for (const part of text.split(",")) {
    const [, name, digits] = /^(?:([\w-]+)=)?([1-9]\d{0,8})$/.exec(part.trim()) ?? [];
    const repeated = name === undefined ? all !== undefined : tasks.has(name);
    if (digits === undefined || repeated) {
      throw new InvalidArgumentError("It must be a whole number from 1 up, or task=number with commas between.");
    }
    if (name === undefined) all = Number(digits);
    else tasks.set(name, Number(digits));
  }
  return { tasks, ...(all === undefined ? {} : { all }) };
}

function margin(text: string): number {
  const value = decimalNumber(text);
  if (value !== 0 && !(value >= SMALLEST_MARGIN && value <= 100)) {
    throw new InvalidArgumentError(`It must be 0, or points from ${SMALLEST_MARGIN} to 100.`);
  }
  return value;
}

function probability(text: string): number {
  const value = decimalNumber(text);
  if (!(value >= SMALLEST_ALPHA && value < 0.5)) {
    throw new InvalidArgumentError(`It must be 0.000001 or more and below 0.5.`);
  }
  return value;
}
