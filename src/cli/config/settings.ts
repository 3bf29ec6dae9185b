/**
 * Values of options that are not on the command line: from the environment, else from the config file, else commander's
 * defaults. All of it goes by commander's own table of options; no command knows of it.
 */
import type { EventEmitter } from "node:events";
import { type Command, InvalidArgumentError, type Option } from "commander";
import { z } from "zod";
import { InputError, UsageError } from "../../base/errors.ts";
import { quoted } from "../../base/quoted.ts";
import { checkShape } from "../../formats/validation.ts";
import { COMMON, type ConfigFile, configHint, seenFromHere } from "./config-file.ts";
import { parseSetting, readVariable, type Setting, type SettingValue, settingsOf, wordsOf } from "./settings-table.ts";

/** A value that was set outside the command line. */
export interface AppliedSetting {
  setting: Setting;
  value: SettingValue;
  /** As options take it. */
  parsed: unknown;
  source: "config" | "env";
  /** The file and section, or the variable. */
  from: string;
}

const applied = new WeakMap<Command, readonly AppliedSetting[]>();

/** What the file and the environment say for a command. The environment comes last: it counts more. */
export function settingsFor(
  command: Command,
  config: ConfigFile | undefined,
  environment: Readonly<Record<string, string | undefined>>,
): AppliedSetting[] {
  const settings = settingsOf(command);
  return [
    ...(config === undefined ? [] : configured(command, settings, config)),
    ...settings.flatMap((setting) => fromEnvironment(setting, environment)),
  ];
}

/** The name of a command's section: `search`, `search merge`. */
export function sectionOf(command: Command): string {
  const names: string[] = [];
  for (let one: Command | null = command; one?.parent != null; one = one.parent) names.unshift(one.name());
  return names.join(" ");
}

/** What the section of a command may hold. */
export function sectionSchema(settings: readonly Setting[]): z.ZodType<Record<string, SettingValue | undefined>> {
  return z.strictObject(Object.fromEntries(settings.map(({ key, schema }) => [key, schema.optional()]))) as z.ZodType<
    Record<string, SettingValue | undefined>
  >;
}

function configured(command: Command, settings: readonly Setting[], config: ConfigFile): AppliedSetting[] {
  const found: AppliedSetting[] = [];
  const own = sectionOf(command);
  // A command's own section counts more than what is common to all.
  for (const name of [COMMON, own]) {
    const section = config.sections.get(name);
    if (section === undefined) continue;
    const known = new Set(settings.map(({ key }) => key));
    const mine = Object.entries(section).filter(([key]) => name === own || known.has(key));
    const what = `Config file "${config.path}"`;
    const values = checkShape(
      { [name]: Object.fromEntries(mine) },
      z.object({ [name]: sectionSchema(settings) }),
      what,
      configHint,
    )[name] as Record<string, SettingValue>;
    for (const setting of settings) {
      const value = values[setting.key];
      if (value === undefined) continue;
      const here = seenFromHere(value, setting, config.path);
      const parsed = attempt(
        () => parseSetting(setting, here),
        (reason) => {
          throw new InputError(`${what}: "${name}.${setting.key}" is ${quoted(String(value))}: ${reason}`, {
            hint: configHint,
          });
        },
      );
      found.push({ setting, value: here, parsed, source: "config", from: `${config.path}, "${name}"` });
    }
  }
  return found;
}

function fromEnvironment(
  setting: Setting,
  environment: Readonly<Record<string, string | undefined>>,
): AppliedSetting[] {
  const text = environment[setting.variable];
  if (text === undefined || text === "") return [];
  return attempt(
    () => {
      const value = readVariable(setting, text);
      const parsed = parseSetting(setting, value);
      return [{ setting, value, parsed, source: "env", from: setting.variable }];
    },
    (reason) => {
      throw new UsageError(`The environment variable ${setting.variable} is ${quoted(text)}: ${reason}`);
    },
  );
}

/**
 * Sets the values on a command that is about to be parsed. What stands on the command line takes their place, lists
 * included, and so it does with options that it conflicts with.
 */
export function applySettings(command: Command, values: readonly AppliedSetting[]): void {
  for (const { setting, parsed, source } of values) {
    if (setting.argument !== undefined) setting.argument.default(parsed);
    else if (setting.option !== undefined) {
      command.setOptionValueWithSource(setting.option.attributeName(), parsed, source);
    }
  }
  applied.set(command, values);
  if (values.length === 0) return;
  for (const option of command.options) {
    const attribute = option.attributeName();
    const rivals = command.options.filter((other) => excludes(option, other) || excludes(other, option));
    // Commander's commands are emitters; its types know only `on`.
    (command as unknown as EventEmitter).prependListener(`option:${option.name()}`, () => {
      for (const name of [attribute, ...rivals.map((other) => other.attributeName())]) giveWay(command, name);
      if (attribute !== "model") return;
      for (const { setting } of values) setting.argument?.default(undefined);
    });
  }
}

/** What is in force of the values, once the command line is known: those that it did not replace. */
export function settingsInForce(command: Command): AppliedSetting[] {
  const last = new Map((applied.get(command) ?? []).map((one) => [one.setting.key, one]));
  return [...last.values()].filter(({ setting, source, parsed }) =>
    setting.option === undefined
      ? command.processedArgs[0] === parsed && command.args.length === 0
      : command.getOptionValueSource(setting.option.attributeName()) === source,
  );
}

/** The words that would say the same on the command line, for commands that results record. */
export function wordsInForce(command: Command): string[] {
  return settingsInForce(command).flatMap(({ setting, value }) => wordsOf(setting, value));
}

function giveWay(command: Command, attribute: string): void {
  if (!["config", "env"].includes(command.getOptionValueSource(attribute) ?? "")) return;
  const option = command.options.find((one) => one.attributeName() === attribute);
  command.setOptionValueWithSource(attribute, option?.negate ? true : option?.defaultValue, "default");
}

/** What `conflicts` was given; commander's types do not have it. */
function excludes(one: Option, other: Option): boolean {
  return (one as unknown as { conflictsWith: readonly string[] }).conflictsWith.includes(other.attributeName());
}

/** Does it; what an option's parser refuses is handed to `refuse`. */
function attempt<T>(action: () => T, refuse: (reason: string) => never): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof InvalidArgumentError) refuse(error.message);
    throw error;
  }
}
