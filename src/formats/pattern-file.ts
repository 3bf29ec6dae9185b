/** The pattern file: what `search` writes and everything else reads. */
import { InputError } from "../base/errors.ts";
import { writeFileAtomically } from "../base/files.ts";
import { type Pattern, parsePattern } from "../pattern/pattern.ts";
import { requireConsistency, requireConsistentLosses } from "./pattern-consistency.ts";
import { type ModelIdentityRecord, type PatternFile, patternFileSchema } from "./pattern-schema.ts";
import { readText } from "./text-file.ts";
import { parseJson } from "./validation.ts";

/**
 * Reads a pattern file of a search and checks that it agrees with itself.
 * @throws InputError naming the file and the field
 */
export async function readPatternFile(path: string): Promise<CheckedPatternFile> {
  return parsePatternFile(await readPatternText(path), path);
}

/** A pattern file that agrees with itself. */
export type CheckedPatternFile = PatternFile & { index_topk_pattern: Pattern };

/** As `readPatternFile`, for a text that was read from `path`. */
export function parsePatternFile(text: string, path: string): CheckedPatternFile {
  const what = `Pattern file "${path}"`;
  const file = parseJson(text, patternFileSchema, what, "docs/pattern-format.md describes the file");
  requireConsistency(file, what);
  requireConsistentLosses(file, what);
  return { ...file, index_topk_pattern: parsePattern(file.index_topk_pattern, what) };
}

/** The text of a file that should hold a pattern. */
export async function readPatternText(path: string): Promise<string> {
  return readText(path, `pattern file "${path}"`, {
    hint: "a pattern is a file, letters F and S, full, uniform:N or freq:N",
  });
}

/** Writes a pattern file, all or nothing. What would not be readable again is a defect and throws before writing. */
export async function writePatternFile(path: string, file: PatternFile): Promise<void> {
  await writeFileAtomically(path, formatPatternFile(file));
}

/** The text of a pattern file: the search's trajectory one candidate list a line, so that a diff stays readable. */
export function formatPatternFile(file: PatternFile): string {
  requireConsistency(patternFileSchema.parse(file), "Pattern file");
  const text = JSON.stringify(file, null, 2);
  const flat = (whole: string): string => whole.replace(/\s+/g, " ");
  return `${text.replace(/\{\s+"layer": \d+,[^{}]*\}|(?<="full": )\[[^[\]]*\]/g, flat)}\n`;
}

/**
 * Refuses a pattern that was searched on another model: the same letters on other weights mean nothing.
 * The name is not compared, a folder may be renamed.
 */
export function requireSameModel(file: PatternFile, model: ModelIdentityRecord, path: string): void {
  const compared = ["architecture", "layers", "index_topk", "config_hash", "weight_hash"] as const;
  const differing = compared.filter(
    (field) => file.model[field] !== model[field] && file.model[field] !== undefined && model[field] !== undefined,
  );
  if (differing.length === 0) return;
  const details = differing.map((field) => `${field} ${short(file.model[field])} against ${short(model[field])}`);
  throw new InputError(
    `Pattern file "${path}" is of model "${file.model.name}", not of "${model.name}": ${details.join(", ")}`,
    { hint: `to try its letters on this model all the same, give them as --pattern ${file.index_topk_pattern}` },
  );
}

function short(value: string | number | undefined): string {
  return typeof value === "string" && value.length === 64 ? `${value.slice(0, 12)}...` : String(value);
}
