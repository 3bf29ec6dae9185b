/** Thoughts of a model that thinks before it answers: the answer is what follows the closing tag. */

const OPENING = "<think>";
export const CLOSING = "</think>";

export interface SeparatedAnswer {
  /** Empty where the thought never closes. */
  answer: string;
  /** Undefined where the model did not think. */
  thought?: { text: string; tokens: number; closed: boolean };
}

/** Whether a rendered prompt leaves a thought open for the model to go on with. */
export function leavesThoughtOpen(rendered: string): boolean {
  return rendered.lastIndexOf(OPENING) > rendered.lastIndexOf(CLOSING);
}

/**
 * @param opened the prompt ends within a thought
 * @param closingId the closing tag's token, where it is one: decoded texts may leave it out
 * @param decode text of ids, special tokens left out
 */
export function separateThought(
  { tokens, text }: { tokens: readonly number[]; text: string },
  opened: boolean,
  closingId: number | undefined,
  decode: (ids: readonly number[]) => string,
): SeparatedAnswer {
  const at = closingId === undefined ? -1 : tokens.lastIndexOf(closingId);
  if (at >= 0) {
    const thought = { text: bare(decode(tokens.slice(0, at))), tokens: at, closed: true };
    return { answer: decode(tokens.slice(at + 1)).trimStart(), thought };
  }
  const tag = text.lastIndexOf(CLOSING);
  if (tag >= 0) {
    const thought = { text: bare(text.slice(0, tag)), tokens: tokens.length, closed: true };
    return { answer: text.slice(tag + CLOSING.length).trimStart(), thought };
  }
  if (!opened && !text.trimStart().startsWith(OPENING)) return { answer: text };
  return { answer: "", thought: { text: bare(text), tokens: tokens.length, closed: false } };
}

/** Without the opening tag that some models write themselves. */
function bare(thought: string): string {
  const text = thought.trim();
  return text.startsWith(OPENING) ? text.slice(OPENING.length).trimStart() : text;
}
