/** Config fields as a word of a shell command. */
import { quoteWord } from "../base/shell.ts";
import type { IndexFields } from "./index-fields.ts";

/** JSON with a blank after colons and commas, as engines' documentation writes it, quoted for the shell. */
export function jsonArgument(value: object): string {
  return quoteWord(spacedJson(value));
}

/** vLLM and those that follow it. */
export function hfOverrides(fields: IndexFields): string[] {
  return [`--hf-overrides ${jsonArgument(fields)}`];
}

function spacedJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(spacedJson).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([key, entry]) => `${JSON.stringify(key)}: ${spacedJson(entry)}`)
    .join(", ")}}`;
}
