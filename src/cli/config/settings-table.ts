/** What of a command can be set outside the command line: its options, as commander has them, and its model. */
import { type Argument, type Command, InvalidArgumentError, type Option } from "commander";
import { z } from "zod";
import { RepeatableOption } from "../arguments/declared-option.ts";

/** Options that only ask for something: no file has them. */
const commandLineOnly = new Set(["--help-all", "--version"]);

/** A setting of a command. */
export interface Setting {
  /** As files spell it: the option's long name without dashes, without `no-`. */
  key: string;
  /** `INDEXCACHE_SEQUENCE_LENGTH`. */
  variable: string;
  /** Undefined for the model. */
  option?: Option;
  /** The model that a command takes as an argument. */
  argument?: Argument;
  /** `--no-cache` beside `--cache <folder>`. */
  negation?: Option;
  /** What it is, and what files may say. */
  schema: z.ZodType;
}

/** A value as it came from a file (JSON) or from the environment (text). */
export type SettingValue = string | number | boolean | readonly (string | number)[];

export function settingsOf(command: Command): Setting[] {
  const settings = new Map<string, Setting>();
  for (const argument of command.registeredArguments) {
    if (argument.name() !== "model") continue;
    const schema = z.string().min(1).describe(argument.description);
    settings.set("model", { key: "model", variable: variableOf("model"), argument, schema });
  }
  for (const option of command.options) {
    if (option.hidden || option.long === undefined || commandLineOnly.has(option.long)) continue;
    // Secrets, which have a variable of their own.
    if (option.envVar !== undefined) continue;
    const key = option.long.replace(/^--(no-)?/, "");
    const known = settings.get(key);
    if (known?.argument !== undefined) continue;
    if (known?.option !== undefined) {
      const [positive, negation] = option.negate ? [known.option, option] : [option, known.option];
      settings.set(key, { ...known, option: positive, negation, schema: schemaOf(positive, true) });
    } else {
      settings.set(key, { key, variable: variableOf(key), option, schema: schemaOf(option, false) });
    }
  }
  return [...settings.values()];
}

/**
 * The value as commander would have made it of the command line.
 * @throws InvalidArgumentError with what it must be
 */
export function parseSetting({ option, negation }: Setting, value: SettingValue): unknown {
  if (option === undefined) return String(value);
  if (typeof value === "boolean") {
    if (isSwitch(option) || (negation !== undefined && !value)) return value;
    if (option.optional && value) return true;
    if (option.optional) return undefined;
    throw new InvalidArgumentError("It must have a value.");
  }
  const parse = (text: string, previous: unknown): unknown =>
    option.parseArg === undefined ? text : option.parseArg(text, previous);
  if (!isMany(option)) return parse(Array.isArray(value) ? value.join(",") : String(value), option.defaultValue);
  const values = Array.isArray(value) ? value : [value as string | number];
  if (option.parseArg === undefined) return values.map(String);
  return values.reduce<unknown>((list, one) => parse(String(one), list), option.defaultValue);
}

/** What the environment's text says of a switch; other options take the text. */
export function readVariable({ option, variable }: Setting, text: string): SettingValue {
  if (option === undefined || !isSwitch(option)) return text;
  if (/^(1|true|yes|on)$/i.test(text)) return true;
  if (/^(0|false|no|off)$/i.test(text)) return false;
  throw new InvalidArgumentError(`It must be 1 or 0: ${variable} is a switch.`);
}

/** The words that say the same on a command line. */
export function wordsOf({ key, option, negation }: Setting, value: SettingValue): string[] {
  if (option === undefined) return [String(value)];
  if (value === false) return option.negate || negation !== undefined ? [`--no-${key}`] : [];
  if (value === true) return option.negate ? [] : [`--${key}`];
  if (isMany(option)) return (Array.isArray(value) ? value : [value]).map((one) => `--${key}=${one}`);
  return [`--${key}=${Array.isArray(value) ? value.join(",") : value}`];
}

/** Does the option name files, which stand relative to the file that names them? */
export function namesFiles({ option, argument }: Setting): boolean {
  return argument !== undefined || /[<[](file|folder|path|journals|pattern)\b/.test(option?.flags ?? "");
}

/** `[model]` and `--pattern` name a file, or something else: only what is there is one. */
export function mayNameFiles({ option, argument }: Setting): boolean {
  return argument !== undefined || /[<[]pattern\b/.test(option?.flags ?? "");
}

function variableOf(key: string): string {
  return `INDEXCACHE_${key.replaceAll("-", "_").toUpperCase()}`;
}

function isSwitch(option: Option): boolean {
  return !option.required && !option.optional;
}

function isMany(option: Option): boolean {
  return option.variadic || option instanceof RepeatableOption;
}

function schemaOf(option: Option, isNegatable: boolean): z.ZodType {
  return formOf(option, isNegatable).describe(option.description);
}

function formOf(option: Option, isNegatable: boolean): z.ZodType {
  if (isSwitch(option)) return z.boolean();
  const choices = option.argChoices;
  if (choices !== undefined) {
    const named = z.enum(choices as [string, ...string[]]);
    return option.optional ? z.union([named, z.boolean()]) : named;
  }
  const one = z.union([z.string(), z.number()], "must be a text, a number, or a list of them");
  const value = z.union([one, z.array(one).min(1)], "must be a text, a number, or a list of them");
  return option.optional || isNegatable
    ? z.union([value, z.boolean()], "must be a text, a number, a list of them, or true or false")
    : value;
}
