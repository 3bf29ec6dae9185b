/**
 * A pattern in any of the forms that it is handed around in: letters, a named schedule, a pattern file, a config.json, a
 * script or command line of a server, an options file. Letters stay as they are written: what is wrong with them is for
 * `check.ts` to say.
 */
import { type ParseError, parse as parseJsonc } from "jsonc-parser";
import { InputError } from "../base/errors.ts";
import { type AnyPatternFile, parseAnyPatternFile } from "../formats/published-pattern.ts";
import { parseShallowYaml } from "../formats/shallow-yaml.ts";
import { looksLikeLetters } from "../pattern/pattern.ts";
import { dialects } from "./engines.ts";
import { type IndexFields, indexFieldNames, indexFieldsSchema, saysSharing } from "./index-fields.ts";
import { describeUnknown, type FieldGroup, type ScannedText, scanFields } from "./script-fields.ts";
import { addVariable, collectVariables, type Variables, withoutComments } from "./script-text.ts";
import { parseServedModel, type ServedModel } from "./served-model.ts";

export type PatternSource =
  | { kind: "letters"; letters: string }
  | { kind: "schedule"; rule: "uniform" | "freq"; every: number }
  | { kind: "file"; path: string; file: AnyPatternFile }
  | { kind: "config"; model: ServedModel; fields: IndexFields }
  | OverrideSource;

/** Config fields on a command line, in a script or in an options file. */
interface OverrideSource {
  kind: "override";
  fields: IndexFields;
  /** The option before them, where there is one: `--hf-overrides`. */
  flag: string | undefined;
  /** `text_config` where the fields are inside one. */
  nestedUnder: string | undefined;
  /** Every option of the text. */
  options: string[];
}

/** For messages: what a pattern may be given as. */
export const patternForms =
  "a pattern is letters F and S, uniform:N, freq:N, a pattern file or the name of a published one, a config.json, or a command line or script with an override of index_topk_pattern";

/** Characters of a script; no server is started by a longer one. */
const LONGEST_SCRIPT = 2_000_000;

/** Of YAML, whose parser takes seconds for more. */
const LONGEST_YAML = 300_000;

/** Keys of a pattern file beside its letters: a file with some of them is one, whatever it lacks. */
const filePart = ["calibration", "baseline_loss", "trajectory", "search", "tool", "published", "patterns"];

/** Is the text itself a pattern or a command, rather than the path of a file? */
export function isInlinePattern(text: string): boolean {
  const isWord = text === "F" || text === "S" || (text.length > 1 && looksLikeLetters(text));
  return isWord || /^(uniform|freq):/.test(text) || /\s|[{}="]/.test(text);
}

/**
 * Reads a pattern that was given as text.
 * @throws InputError where no pattern is in it, or two that differ
 */
export function readInlinePattern(text: string): PatternSource {
  const trimmed = text.trim();
  const named = /^(uniform|freq):(\d+)$/.exec(trimmed);
  if (named !== null) {
    const every = Number(named[2]);
    if (every >= 1) return { kind: "schedule", rule: named[1] === "freq" ? "freq" : "uniform", every };
  }
  if (/^(uniform|freq):/.test(trimmed)) {
    throw new InputError(`The pattern is "${trimmed}": after the colon comes a whole number from 1 up, as in freq:4`);
  }
  const letters = lettersOf(trimmed);
  if (letters !== undefined) return { kind: "letters", letters };
  return readOverride(trimmed, "The text");
}

/**
 * Reads the content of a file that holds a pattern.
 * @throws InputError naming the file
 */
export function readPatternText(text: string, path: string): PatternSource {
  const json = tryJson(text);
  if (isPatternFile(text, json)) return { kind: "file", path, file: parseAnyPatternFile(text, path) };
  if (isObject(json)) {
    if ("model_type" in json) {
      const model = parseServedModel(text, path);
      return { kind: "config", model, fields: model.fields };
    }
  }
  const letters = lettersOf(text.trim()) ?? lettersOfList(json);
  if (letters !== undefined) return { kind: "letters", letters };
  return readOverride(text, `"${path}"`);
}

/** Layers of a pattern; no model comes near. */
const MOST_LETTERS = 10_000;

/** Letters in one word, or F and S only with blanks and line breaks among them, as a terminal or a mail folds them. */
function lettersOf(text: string): string | undefined {
  const letters = looksLikeLetters(text) ? text : /^[FS\s]+$/.test(text) ? text.replace(/\s+/g, "") : undefined;
  if (letters !== undefined && letters.length > MOST_LETTERS)
    throw new InputError(
      `The pattern has ${letters.length.toLocaleString("en-US")} letters: no model has so many layers`,
    );
  return letters;
}

/** A JSON list of layers: `["F", "S"]`, or the words of `indexer_types`. */
function lettersOfList(json: unknown): string | undefined {
  const letters: unknown = { F: "F", S: "S", full: "F", shared: "S" };
  if (!Array.isArray(json) || json.length === 0 || !isObject(letters)) return undefined;
  const layers = json.map((layer) =>
    typeof layer === "string" && Object.hasOwn(letters, layer) ? letters[layer] : "",
  );
  return layers.includes("") ? undefined : layers.join("");
}

/** A pattern file, or what is left of one: without its header, or cut off. */
function isPatternFile(text: string, json: unknown): boolean {
  if (isObject(json)) {
    return "schema_version" in json || ("index_topk_pattern" in json && filePart.some((key) => key in json));
  }
  return json === undefined && /^\s*\{\s*"schema_version"\s*:/.test(text.slice(0, 1000));
}

function readOverride(text: string, what: string): OverrideSource {
  if (text.length > LONGEST_SCRIPT) {
    throw new InputError(
      `${what} has ${text.length.toLocaleString("en-US")} characters: that is neither a pattern nor a script of a server`,
      {
        hint: patternForms,
      },
    );
  }
  const found = scan(text, what);
  const [unclear] = found.unknown;
  if (unclear !== undefined) {
    throw new InputError(describeUnknown(unclear, what), { hint: "give the letters themselves" });
  }
  const options = [...new Set([...text.matchAll(/(?<![\w-])--[A-Za-z][\w-]{0,99}/g)].map(([option]) => option))];
  const sources = found.groups.flatMap((group) => overrideOf(group, options));
  const [first, ...others] = sources;
  if (first === undefined) throw nothingIn(text, what, found);
  if (found.unclosed && /^\s*\{/.test(text)) {
    throw new InputError(`${what} is cut off: a brace is open at its end`);
  }
  const differing = others.find(({ fields }) => JSON.stringify(fields) !== JSON.stringify(first.fields));
  if (differing !== undefined) {
    throw new InputError(`${what} holds two different patterns`, { hint: "leave one of them in it" });
  }
  return first;
}

function nothingIn(text: string, what: string, found: ScannedText): InputError {
  const named = indexFieldNames.find((name) => name !== "use_index_cache" && text.includes(name));
  if (named === undefined) {
    return new InputError(
      `${what} holds no pattern: no index_topk_pattern, indexer_types or index_topk_freq is in it`,
      { hint: patternForms },
    );
  }
  return new InputError(
    `${what} names ${named}${found.mentioned ? "" : " in comments only"}, and gives it no value: there is no pattern in it`,
    { hint: patternForms },
  );
}

/** Structure is read where the whole text has one: JSON with or without comments, YAML. Everything else is scanned. */
function scan(text: string, what: string): ScannedText {
  const documents = structureOf(text);
  const variables: Variables = new Map();
  if (documents === undefined) {
    const plain = withoutComments(text);
    collectVariables(plain, variables);
    return scanFields(plain, variables, what);
  }
  const texts: { text: string; wrappers: string[] }[] = [];
  for (const document of documents) collect(document, [], texts, variables, 0);
  for (const { text: inner } of texts) collectVariables(inner, variables);
  const scanned = texts.map(({ text: inner, wrappers }) => {
    const part = scanFields(inner, variables, what);
    return { ...part, groups: part.groups.map((group) => ({ ...group, wrappers: [...group.wrappers, ...wrappers] })) };
  });
  return {
    groups: scanned.flatMap(({ groups }) => groups),
    unknown: scanned.flatMap(({ unknown }) => unknown),
    mentioned: scanned.some(({ mentioned }) => mentioned),
    unclosed: false,
  };
}

function structureOf(text: string): unknown[] | undefined {
  try {
    if (/^\s*(?:\/[/*]|[{[])/.test(text)) {
      const errors: ParseError[] = [];
      const json: unknown = parseJsonc(text, errors, { allowTrailingComma: true });
      if (errors.length === 0 && typeof json === "object" && json !== null) return [json];
    }
    if (text.length > LONGEST_YAML) return undefined;
    const documents = parseShallowYaml(text);
    if (documents.some(({ errors }) => errors.length > 0)) return undefined;
    const values: unknown[] = documents.map((document) => document.toJS({ maxAliasCount: 100 }));
    return values.length > 0 && values.every(isPlainStructure) ? values : undefined;
  } catch {
    // Nested too deeply, or no YAML after all: then it is scanned.
    return undefined;
  }
}

/** A mapping with keys that somebody would write: `vllm serve M --hf-overrides '{"a"` is one to YAML, too. */
function isPlainStructure(value: unknown): boolean {
  if (Array.isArray(value)) return value.some((entry) => typeof entry === "object");
  return isObject(value) && Object.keys(value).every((key) => /^[\w.$@/-]{1,100}$/.test(key));
}

/** Objects with sharing fields and texts that name some, as text again, with the keys that they are inside of. */
function collect(
  value: unknown,
  wrappers: string[],
  texts: { text: string; wrappers: string[] }[],
  variables: Variables,
  depth: number,
): void {
  if (depth > 60) return;
  if (typeof value === "string") {
    if (namesField(value)) texts.push({ text: withoutComments(value), wrappers });
    else collectVariables(value, variables);
  } else if (Array.isArray(value)) {
    const words = value.filter((entry) => typeof entry !== "object");
    const line = words.join("\n");
    if (namesField(line)) texts.push({ text: line, wrappers });
    else collectVariables(line, variables);
    for (const entry of value) if (typeof entry === "object") collect(entry, wrappers, texts, variables, depth + 1);
  } else if (isObject(value)) {
    const { name, value: named } = value;
    if (typeof name === "string" && typeof named === "string") addVariable(variables, name, named);
    const own = Object.entries(value).filter(([key]) => (indexFieldNames as string[]).includes(key));
    if (own.length > 0) texts.push({ text: JSON.stringify(Object.fromEntries(own)), wrappers });
    for (const [key, inner] of Object.entries(value)) {
      if ((indexFieldNames as string[]).includes(key)) continue;
      if (typeof inner === "string" && /^(?:[FSfs]{2,}|\$[{(]?\w+.*)$/.test(inner)) addVariable(variables, key, inner);
      collect(inner, [key, ...wrappers], texts, variables, depth + 1);
    }
  }
}

function namesField(text: string): boolean {
  return indexFieldNames.some((name) => text.includes(name));
}

function overrideOf({ fields: raw, flag, wrappers, line }: FieldGroup, options: string[]): OverrideSource[] {
  const parsed = indexFieldsSchema.safeParse(raw);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new InputError(
      `The override in line ${line} has a wrong ${issue?.path.join(".") ?? "field"}: ${issue?.message ?? ""}`,
    );
  }
  if (!saysSharing(parsed.data)) return [];
  const optionsFile = dialects["tensorrt-llm"].flag;
  return [
    {
      kind: "override",
      fields: withoutAbsent(parsed.data),
      flag: flag ?? (wrappers.includes("model_kwargs") ? optionsFile : undefined),
      nestedUnder: wrappers.includes("text_config") ? "text_config" : undefined,
      options,
    },
  ];
}

/** Fields that are absent or null are the same to every engine. */
function withoutAbsent(fields: IndexFields): IndexFields {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value != null));
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
