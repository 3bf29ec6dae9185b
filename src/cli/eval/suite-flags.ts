/** Options of the suites on the command line: how they are parsed, which suite takes them, how a record names them. */
import { InvalidArgumentError, Option } from "commander";
import { UsageError } from "../../base/errors.ts";
import type { SuiteOption } from "../../eval/suite-definition.ts";
import { optionsOf, type SuiteName, type SuiteValues, suiteOptions } from "../../eval/suites.ts";
import type { EvalResult } from "../../formats/eval-result.ts";
import { group } from "../arguments/declared-option.ts";
import type { GivenOption } from "../arguments/given-options.ts";
import { positiveNumber } from "../arguments/options.ts";

type Settings = EvalResult["settings"];

export const suiteFlags = group("Of the suites:", ...suiteOptions().map(({ option }) => toOption(option)));

function toOption(option: SuiteOption): Option {
  const added = new Option(option.flags, option.help);
  switch (option.kind) {
    case "choice":
      return added.choices(option.choices).default(option.default);
    case "count":
      return added.argParser(positiveNumber);
    case "lengths":
      return added.argParser(lengths);
    case "text":
    case "switch":
      return added;
  }
}

/**
 * The values of the options that the suite takes.
 * @throws UsageError for an option of another suite that stands on the command line: it would have no effect
 */
export function suiteValues(
  suite: SuiteName,
  flags: Readonly<Record<string, unknown>>,
  given: readonly GivenOption[],
): SuiteValues {
  const own = optionsOf(suite);
  for (const { attribute, suites } of suiteOptions()) {
    const written = given.find((option) => option.attribute === attribute)?.written;
    if (written === undefined || attribute in own) continue;
    throw new UsageError(`${written} is no option of suite ${suite}`, {
      hint: `it is one of ${suites.join(", ")}; see --suite`,
    });
  }
  const values = Object.keys(own).map((attribute) => [attribute, flags[attribute]]);
  return Object.fromEntries(values.filter(([, value]) => value !== undefined));
}

/** What decides prompts or scores, whether given or not: a run that goes on needs the same. */
export function suiteSettings(suite: SuiteName, values: SuiteValues): Settings {
  return settingsOf(suite, values, ({ decides }) => decides !== "source");
}

/** What was asked for beside that. */
export function suiteSources(suite: SuiteName, values: SuiteValues): Settings {
  return settingsOf(suite, values, ({ decides }) => decides === "source");
}

/** Of options that decide scores of outputs that are there. */
export function scoringAttributes(): string[] {
  return suiteOptions().flatMap(({ attribute, option }) => (option.decides === "scores" ? [attribute] : []));
}

/** The scoring options of a suite, for a record of samples that are scored again. */
export function scoringSettings(suite: SuiteName, values: SuiteValues): Settings {
  return settingsOf(suite, values, ({ decides }) => decides === "scores");
}

function settingsOf(
  suite: SuiteName,
  values: Readonly<Record<string, unknown>>,
  includes: (option: SuiteOption) => boolean,
): Settings {
  const settings: Settings = {};
  for (const [attribute, option] of Object.entries(optionsOf(suite))) {
    if (!includes(option)) continue;
    const value = values[attribute] ?? restOf(option);
    if (value === undefined) continue;
    const name = attribute.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    settings[name] = typeof value === "number" || typeof value === "boolean" ? value : String(value);
  }
  return settings;
}

/** What a record has where an option is not given; nothing of where data came from. */
function restOf({ decides, kind }: SuiteOption): false | "default" | undefined {
  if (decides === "source") return undefined;
  return kind === "switch" ? false : "default";
}

function lengths(text: string): number[] {
  const list = text.split(",").map((part) => {
    const match = /^([1-9]\d*)(k?)$/i.exec(part.trim());
    if (match === null)
      throw new InvalidArgumentError("It must be whole numbers with commas between, such as 4096,8k.");
    return Number(match[1]) * (match[2] === "" ? 1 : 1024);
  });
  return [...new Set(list)];
}
