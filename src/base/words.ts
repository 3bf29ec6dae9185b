/** Small matters of wording. */

/** The same with a capital first letter, for what begins a sentence. */
export function capitalized(text: string): string {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}`;
}
