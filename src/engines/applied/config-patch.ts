/** A copy of config.json with a pattern in it; whatever else the file says stays byte for byte. */
import { applyEdits, modify } from "jsonc-parser";
import type { IndexFields } from "../index-fields.ts";

/** What is written into a config.json: fields that say which layers share, and any other. */
type PatchedFields = IndexFields & Readonly<Record<string, unknown>>;

/** Fields that would contradict a pattern for readers with another order of preference. */
const superseded = ["index_topk_freq", "index_skip_topk_offset", "index_topk_pattern", "indexer_types"] as const;

/**
 * Sets the dialect's fields and takes out those that the pattern supersedes.
 * @param text a config.json, checked before
 * @param kept superseded fields that stay as they are
 * @param dropped further fields to take out
 */
export function patchConfig(
  text: string,
  fields: PatchedFields,
  kept: readonly string[] = [],
  dropped: readonly (keyof IndexFields)[] = [],
): string {
  const present = new Set(Object.keys(JSON.parse(text)));
  const stale = [...superseded, ...dropped].filter(
    (name) => present.has(name) && !(name in fields) && !kept.includes(name),
  );
  let patched = text;
  for (const name of stale) patched = edit(patched, name, undefined);
  for (const [name, value] of Object.entries(fields)) patched = edit(patched, name, value);
  return patched.endsWith("\n") ? patched : `${patched}\n`;
}

function edit(text: string, name: string, value: unknown): string {
  const formattingOptions = { insertSpaces: true, tabSize: 2, eol: "\n" };
  return applyEdits(text, modify(text, [name], value, { formattingOptions }));
}
