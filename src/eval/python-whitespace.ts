/**
 * White space as Python's `str.split()`, `strip()` and `\s` know it: the official scorers are Python. Beside JavaScript's it
 * has the separators U+001C to U+001F and the next line U+0085, and it does not have the byte order mark U+FEFF.
 */

/** The inside of a character class, for regular expressions with the flag `u`. */
export const pythonSpace =
  "\\t-\\r\\u001c-\\u0020\\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

const spaces = new RegExp(`[${pythonSpace}]+`, "gu");
const ends = new RegExp(`^[${pythonSpace}]+|[${pythonSpace}]+$`, "gu");

/** `text.split()`: the words, none of them empty. */
export function pythonSplit(text: string): string[] {
  return text.split(spaces).filter((word) => word !== "");
}

/** `text.strip()` */
export function pythonStrip(text: string): string {
  return text.replace(ends, "");
}
