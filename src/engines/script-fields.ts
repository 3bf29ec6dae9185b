/**
 * Sharing fields in text of any kind. A command line, a Python call, a dictionary, escaped JSON inside a quoted command and
 * a dotted argument all name the field and then its value; so that is what is looked for, and quoting is looked through.
 * One pass: the time is in proportion to the text, whatever it holds.
 */
import { InputError } from "../base/errors.ts";
import { quoted } from "../base/quoted.ts";
import { type IndexFields, indexFieldNames } from "./index-fields.ts";
import { parseReference, type Variables, variableLetters } from "./script-text.ts";

/** Fields that stand together: those of one object, of one call, of one command line. */
export interface FieldGroup {
  fields: IndexFields;
  line: number;
  /** The option before them: `--hf-overrides`. */
  flag: string | undefined;
  /** Keys of the objects around them, from the inside out. */
  wrappers: string[];
}

/** A field whose value the text does not say. */
export interface UnknownValue {
  field: string;
  line: number;
  variable?: string;
  /** What stands in place of the value. */
  shown: string;
}

export interface ScannedText {
  groups: FieldGroup[];
  unknown: UnknownValue[];
  /** The names occur, with a value or without. */
  mentioned: boolean;
  /** Braces were open at the end. */
  unclosed: boolean;
}

/** More than any script has. */
const MOST_FIELDS = 2000;

const fieldName = new RegExp(`(?<![A-Za-z0-9_])(?:${indexFieldNames.join("|")})(?![A-Za-z0-9_])`, "g");

type Value = { known: unknown } | { variable?: string; shown: string } | "none";

/**
 * Finds the fields of a text without comments.
 * @param what the text, for messages
 */
export function scanFields(text: string, variables: Variables, what: string): ScannedText {
  const names = [...text.matchAll(fieldName)];
  if (names.length > MOST_FIELDS) {
    throw new InputError(`${what} names the sharing fields ${names.length} times: that is no script of a server`);
  }
  const open: number[] = [];
  const groups = new Map<string, FieldGroup & { raw: Map<string, unknown> }>();
  const unknown: UnknownValue[] = [];
  let at = 0;
  let line = 1;
  for (const match of names) {
    for (; at < match.index; at++) {
      const character = text[at];
      if (character === "{") open.push(at);
      else if (character === "}") open.pop();
      else if (character === "\n") line++;
    }
    const [name] = match;
    const option = /(--?[A-Za-z][\w-]{0,99})\.$/.exec(text.slice(Math.max(0, at - 110), at))?.[1];
    const value = readValue(text, at + name.length, option !== undefined, variables);
    if (value === "none") continue;
    if (!("known" in value)) {
      unknown.push({ field: name, line, ...value });
      continue;
    }
    const key = option === undefined ? String(open.at(-1) ?? "text") : `${option} ${open.at(-1) ?? "text"}`;
    let group = groups.get(key);
    if (group === undefined) {
      const around = option === undefined ? surroundings(text, open) : { flag: option, wrappers: [] };
      group = { fields: {}, raw: new Map(), line, ...around };
      groups.set(key, group);
    }
    if (group.raw.has(name) && JSON.stringify(group.raw.get(name)) !== JSON.stringify(value.known)) {
      throw new InputError(`${what} holds two different patterns: ${name} is set again in line ${line}`, {
        hint: "leave one of them in it",
      });
    }
    group.raw.set(name, value.known);
  }
  for (; at < text.length; at++) {
    if (text[at] === "{") open.push(at);
    else if (text[at] === "}") open.pop();
  }
  return {
    groups: [...groups.values()].map(({ raw, ...group }) => ({ ...group, fields: Object.fromEntries(raw) })),
    unknown,
    mentioned: names.length > 0,
    unclosed: open.length > 0,
  };
}

/** The sentence for a field without a value. */
export function describeUnknown({ field, line, variable, shown }: UnknownValue, what: string): string {
  return variable === undefined
    ? `${what} has ${field} in line ${line}, and its value is not known here: ${quoted(shown, 60)} stands in its place`
    : `${what} has ${field} in line ${line}: the pattern is the variable ${variable}, whose value is not known here`;
}

/** Which option or keyword an object belongs to, and which keys it is inside of. */
function surroundings(text: string, open: readonly number[]): { flag: string | undefined; wrappers: string[] } {
  const wrappers: string[] = [];
  for (const position of open.slice(-8).reverse()) {
    const before = text.slice(Math.max(0, position - 120), position);
    const flag = /(--[A-Za-z][\w-]{0,60})(?:[\s"'\\`,=:[(]|-(?=\s)){0,40}$/.exec(before)?.[1];
    if (flag !== undefined) return { flag, wrappers };
    const key = /(\w{1,60})["'\\\]]{0,8}\s{0,20}[:=]\s{0,20}["'\\`]{0,8}$/.exec(before)?.[1];
    if (key !== undefined) wrappers.push(key);
  }
  return { flag: undefined, wrappers };
}

/** The value after a name that ends at `at`; "none" where the name is only mentioned. */
function readValue(text: string, at: number, isOption: boolean, variables: Variables): Value {
  const separator = sticky(/["'\\`\]]{0,12}\s{0,200}(=>|[:=](?!=)|,)?[\s\\]{0,200}/y, text, at);
  const sign = separator?.[1];
  if (separator === null || (!isOption && (sign === undefined || sign === ","))) return "none";
  return valueAt(text, at + separator[0].length, variables, true);
}

function valueAt(text: string, at: number, variables: Variables, mayBeType: boolean): Value {
  const opening = sticky(/(?:[fFrRbBuU]{1,2}(?=["']))?[\\"'`]{0,12}/y, text, at)?.[0] ?? "";
  const start = at + opening.length;
  if (text[start] === "[") return listAt(text, start, variables);
  const rest = text.slice(start, start + 12_000);
  const reference = parseReference(rest);
  if (reference !== undefined) return referenced(reference, variables);
  const word = /^[A-Za-z]+(?:\\\n\s{0,200}[A-Za-z]+)*/.exec(rest)?.[0];
  if (word === undefined) return otherValue(rest, opening, variables);
  const letters = word.replace(/\\\n\s*/g, "");
  const next = rest.slice(word.length, word.length + 200);
  if (opening === "") return bareWord(letters, next, text, start + word.length, variables, mayBeType);
  const closing = /^[\\"'`]+/.exec(next)?.[0];
  if (closing === undefined) return { shown: rest.slice(0, 40) };
  const after = next.slice(closing.length);
  // "FF" * 30, "FF" + rest, "FF".join(...): what it comes to is for Python to say.
  if (/^\s*(?:[*+.%]|\bfor\b)/.test(after)) return { shown: rest.slice(0, 40) };
  // Adjacent strings of Python are one.
  const joined = /^\s+(["'])([FS]+)\1/.exec(after)?.[2];
  return { known: scalar(joined === undefined ? letters : letters + joined) };
}

/** A word without quotes: letters of an argument or of YAML, true and false, or a variable of Python. */
function bareWord(
  letters: string,
  next: string,
  text: string,
  end: number,
  variables: Variables,
  mayBeType: boolean,
): Value {
  const annotated = /^(?:\[\w+\])?\s*=\s*/.exec(next)?.[0];
  if (mayBeType && annotated !== undefined) return valueAt(text, end + annotated.length, variables, false);
  if (/^[\w.([{$%<*+-]/.test(next)) {
    const name = `${letters}${/^\w*/.exec(next)?.[0] ?? ""}`;
    const found = variableLetters(name, variables);
    return found === undefined ? { variable: name, shown: name } : { known: found };
  }
  if (/^(?:[FSfs]+|true|false|True|False|null|None)$/.test(letters)) return { known: scalar(letters) };
  const found = variableLetters(letters, variables);
  return found === undefined ? { variable: letters, shown: letters } : { known: found };
}

function referenced(reference: { name: string; fallback?: string }, variables: Variables): Value {
  const letters = variableLetters(reference.name, variables) ?? reference.fallback;
  return letters === undefined ? { variable: reference.name, shown: `$${reference.name}` } : { known: letters };
}

/** Numbers; `{name}` of a Python format string; anything else that is no value. */
function otherValue(rest: string, opening: string, variables: Variables): Value {
  const number = /^-?\d{1,9}(?![\w.])/.exec(rest)?.[0];
  if (number !== undefined) return { known: Number(number) };
  const formatted = /^\{(\w{1,99})\}/.exec(rest)?.[1];
  if (formatted !== undefined && !/^\d+$/.test(formatted)) {
    const found = variableLetters(formatted, variables);
    return found === undefined ? { variable: formatted, shown: `{${formatted}}` } : { known: found };
  }
  if (opening !== "" && rest === "") return { shown: "the end of the text" };
  return { shown: rest.slice(0, 40).split("\n")[0] ?? "" };
}

/** A list of words in quotes, or the comprehension over letters that `pattern --for transformers` prints. */
function listAt(text: string, at: number, variables: Variables): Value {
  const end = text.indexOf("]", at);
  const content = end === -1 ? undefined : text.slice(at + 1, end);
  if (content === undefined || content.length > 1_000_000) return { shown: text.slice(at, at + 40) };
  if (/^\s*\{/.test(content)) {
    const over = sticky(
      /\]\s*for\s+\w{1,60}\s+in\s+["']([A-Za-z]{1,9999})["']\s*\]/y,
      text,
      text.indexOf("]", text.indexOf("}", at)),
    );
    const letters = over?.[1];
    if (letters === undefined) return { shown: text.slice(at, at + 40) };
    return { known: [...letters].map((letter) => ({ F: "full", S: "shared" })[letter] ?? letter) };
  }
  if (/^\s*[*+]/.test(text.slice(end + 1, end + 40))) return { shown: text.slice(at, Math.min(end + 20, at + 60)) };
  const words = content.split(",").map((entry) => entry.replace(/^[\s\\"'`]+|[\s\\"'`]+$/g, ""));
  if (words.at(-1) === "") words.pop();
  const bad = words.find((word) => !/^\w+$/.test(word) || variableLetters(word, variables) !== undefined);
  return bad === undefined ? { known: words } : { shown: bad };
}

function scalar(word: string): unknown {
  if (/^(?:true|True)$/.test(word)) return true;
  if (/^(?:false|False)$/.test(word)) return false;
  if (/^(?:null|None)$/.test(word)) return null;
  return word;
}

function sticky(pattern: RegExp, text: string, at: number): RegExpExecArray | null {
  if (at < 0) return null;
  pattern.lastIndex = at;
  return pattern.exec(text);
}
