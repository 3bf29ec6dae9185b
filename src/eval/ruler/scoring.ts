/** RULER's scores of one output (`scripts/eval`, Apache-2.0, NVIDIA). */

import { pythonStrip } from "../python-whitespace.ts";

/** Trims and turns control characters into line breaks; no cut at the first line. */
function cleaned(output: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: RULER's own rule
  const lines = pythonStrip(output).replace(/[\u0000-\u001f]/g, "\n");
  return pythonStrip(lines);
}

function found(output: string, reference: string): boolean {
  return output.includes(reference.toLowerCase());
}

/** The share of references that are substrings, case aside. */
export function stringMatchAll(output: string, references: readonly string[]): number {
  const text = cleaned(output).toLowerCase();
  return references.filter((reference) => found(text, reference)).length / references.length;
}

/** 1 if any reference is a substring, case aside. */
export function stringMatchPart(output: string, references: readonly string[]): number {
  const text = cleaned(output).toLowerCase();
  return references.some((reference) => found(text, reference)) ? 1 : 0;
}
