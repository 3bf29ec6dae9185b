/**
 * A pattern in any of the forms that it is handed around in: letters, a named schedule, a pattern file, a config.json,
 * the command line of a server, an options file. Letters stay as they are written: what is wrong with them is for
 * `check.ts` to say.
 */
import { parse as parseWords } from "shell-quote";
import { parse as parseYaml } from "yaml";
import { InputError } from "../base/errors.ts";
import { type AnyPatternFile, parseAnyPatternFile } from "../formats/published-pattern.ts";
import { dialects } from "./engines.ts";
import { type IndexFields, indexFieldNames, indexFieldsSchema, saysSharing } from "./index-fields.ts";
import { parseServedModel, type ServedModel } from "./served-model.ts";

export type PatternSource =
  | { kind: "letters"; letters: string }
  | { kind: "schedule"; rule: "uniform" | "freq"; every: number }
  | { kind: "file"; path: string; file: AnyPatternFile }
  | { kind: "config"; model: ServedModel; fields: IndexFields }
  | OverrideSource;

/** Config fields on a command line or in an options file. */
export interface OverrideSource {
  kind: "override";
  fields: IndexFields;
  /** The option before them, where there is one: `--hf-overrides`. */
  flag: string | undefined;
  /** `text_config` where the fields are inside one. */
  nestedUnder: string | undefined;
}

/** Where overrides are put one level down: composite configs, TensorRT-LLM's options file. */
const wrappers = ["text_config", "model_kwargs"] as const;

/** For messages: what a pattern may be given as. */
export const patternForms =
  "a pattern is letters F and S, uniform:N, freq:N, a pattern file, a config.json, or a command line with an override of index_topk_pattern";

/** Is the text itself a pattern or a command, rather than the path of a file? */
export function isInlinePattern(text: string): boolean {
  return /^[FSfs]{2,}$|^[FS]$|^(uniform|freq):/.test(text) || /\s|[{}="]/.test(text);
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
  if (/^[A-Za-z]+$/.test(trimmed)) return { kind: "letters", letters: trimmed };
  return readOverride(trimmed, "The text");
}

/**
 * Reads the content of a file that holds a pattern.
 * @throws InputError naming the file
 */
export function readPatternText(text: string, path: string): PatternSource {
  const json = tryJson(text);
  if (isObject(json)) {
    if ("schema_version" in json) return { kind: "file", path, file: parseAnyPatternFile(text, path) };
    if ("model_type" in json) {
      const model = parseServedModel(text, path);
      return { kind: "config", model, fields: model.fields };
    }
  }
  const trimmed = text.trim();
  if (/^[A-Za-z]+$/.test(trimmed)) return { kind: "letters", letters: trimmed };
  return readOverride(text, `"${path}"`);
}

function readOverride(text: string, what: string): PatternSource {
  const found = [...overridesIn(text), ...pythonOverrides(text), ...yamlOverrides(text)];
  const [first, ...others] = found;
  if (first === undefined) {
    throw new InputError(`${what} holds no pattern: no index_topk_pattern, indexer_types or index_topk_freq is in it`, {
      hint: patternForms,
    });
  }
  const differing = others.find(({ fields }) => JSON.stringify(fields) !== JSON.stringify(first.fields));
  if (differing !== undefined) {
    throw new InputError(`${what} holds two different patterns`, { hint: "leave one of them in it" });
  }
  return first;
}

/** Overrides among the words of a command line, or of a script with comments, heredocs and commands inside quotes. */
function overridesIn(text: string): OverrideSource[] {
  const found: OverrideSource[] = [];
  // A dollar sign stays as it is: variables of a script are not known here.
  const words = parseWords(text.replaceAll(/\\\r?\n/g, " "), (name) => `$${name}`).flatMap((word) =>
    typeof word === "string" ? [word] : [],
  );
  let dotted: Record<string, unknown> = {};
  for (const [index, word] of words.entries()) {
    const option = /^(--?[\w-]+)(?:=|$)/.exec(word)?.[1];
    const pair = /^--?[\w-]+\.(\w+)(?:=(.*))?$/s.exec(word);
    if (pair?.[1] !== undefined && (indexFieldNames as string[]).includes(pair[1])) {
      // vLLM's other spelling: --hf-overrides.index_topk_pattern FFSS
      dotted = { ...dotted, [pair[1]]: scalar(pair[2] ?? words[index + 1] ?? "") };
      continue;
    }
    const start = word.indexOf("{");
    if (start === -1) continue;
    const json = tryJson(word.slice(start));
    const before = words[index - 1];
    // An environment variable (HF_OVERRIDES={...}) does not tell which option it ends up in.
    const flag = option ?? (start === 0 && before?.startsWith("--") === true ? before : undefined);
    if (isObject(json)) found.push(...overridesOf(json, flag));
    // A command inside quotes: bash -c '...'
    else if (word !== text && /index_topk|indexer_types/.test(word)) found.push(...overridesIn(word));
  }
  if (Object.keys(dotted).length > 0) found.push(...overridesOf(dotted, "--hf-overrides"));
  return found;
}

function overridesOf(json: Record<string, unknown>, flag: string | undefined, nestedUnder?: string): OverrideSource[] {
  const direct = indexFieldsSchema.safeParse(json);
  if (!direct.success) {
    const issue = direct.error.issues[0];
    throw new InputError(`The override has a wrong ${issue?.path.join(".") ?? "field"}: ${issue?.message ?? ""}`);
  }
  const own: OverrideSource[] = saysSharing(direct.data)
    ? [{ kind: "override", fields: withoutAbsent(direct.data), flag, nestedUnder }]
    : [];
  const inner = wrappers.flatMap((name) => {
    const value = json[name];
    return isObject(value) ? overridesOf(value, flag, name === "text_config" ? name : undefined) : [];
  });
  return [...own, ...inner];
}

/** Keyword arguments of a Python call. */
function pythonOverrides(text: string): OverrideSource[] {
  const comprehension =
    /indexer_types\s*=\s*\[[^\]]*\]\s*for\s+\w+\s+in\s+["'](\w+)["']\s*\]|indexer_types\s*=\s*\[\s*\{[^}]*\}\[\w+\]\s+for\s+\w+\s+in\s+["'](\w+)["']/.exec(
      text,
    );
  const letters = comprehension?.[1] ?? comprehension?.[2];
  if (letters !== undefined) {
    const types = [...letters].map((letter) => ({ F: "full", S: "shared" })[letter] ?? letter);
    return [{ kind: "override", fields: { indexer_types: types }, flag: undefined, nestedUnder: undefined }];
  }
  const list = /indexer_types\s*=\s*\[((?:\s*["']\w+["']\s*,?)+)\s*\]/.exec(text)?.[1];
  if (list !== undefined) {
    const types = [...list.matchAll(/\w+/g)].map(([type]) => type);
    return [{ kind: "override", fields: { indexer_types: types }, flag: undefined, nestedUnder: undefined }];
  }
  const pattern = /\bindex_topk_pattern\s*=\s*["'](\w+)["']/.exec(text)?.[1];
  if (pattern === undefined || /--?[\w-]+\.index_topk_pattern/.test(text)) return [];
  return [{ kind: "override", fields: { index_topk_pattern: pattern }, flag: undefined, nestedUnder: undefined }];
}

/** TensorRT-LLM's options file, or an override alone. JSON is YAML, too. */
function yamlOverrides(text: string): OverrideSource[] {
  if (!/^\s*[\w"'{]/.test(text)) return [];
  let value: unknown;
  try {
    value = parseYaml(text, { logLevel: "silent" });
  } catch {
    return [];
  }
  if (!isObject(value)) return [];
  const options = dialects["tensorrt-llm"].flag;
  return overridesOf(value, "model_kwargs" in value ? options : undefined);
}

function scalar(text: string): unknown {
  const json = tryJson(text);
  return json === undefined ? text : json;
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
