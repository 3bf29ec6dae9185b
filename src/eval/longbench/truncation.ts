/** LongBench's cut: the first and the last tokens of a prompt stay, the middle goes. */
import type { TokenCounter } from "../item.ts";

export interface Truncated {
  text: string;
  /** Absent where the text fits. `before` is an estimate for texts many times too long. */
  truncated?: { before: number; after: number };
}

/** No tokenizer gives fewer than a token for so many characters of text. */
const CHARACTERS_OF_A_TOKEN = 12;
/** Further characters to tokenize, so that where the cut text ends does not change the tokens that stay. */
const SLACK_CHARACTERS = 4096;

/**
 * Keeps the first and last half of `limit` tokens, as text. Two halves may meet in a token more than they had apart;
 * then a little more is cut.
 */
export function truncateMiddle(text: string, limit: number, counter: TokenCounter): Truncated {
  const ends = encodeEnds(text, limit, counter);
  if (ends.total <= limit) return { text };
  let budget = limit;
  for (;;) {
    const half = Math.floor(budget / 2);
    const tail = budget - half;
    const cut = counter.decode(ends.head.slice(0, half)) + (tail === 0 ? "" : counter.decode(ends.tail.slice(-tail)));
    const after = counter.encode(cut).length;
    if (after <= limit || budget <= 2) return { text: cut, truncated: { before: ends.total, after } };
    budget -= Math.max(1, after - limit);
  }
}

interface Ends {
  head: readonly number[];
  tail: readonly number[];
  total: number;
}

/** Tokens at both ends. The middle of a text that is far too long is not tokenized: it may have millions of words. */
function encodeEnds(text: string, limit: number, counter: TokenCounter): Ends {
  const piece = limit * CHARACTERS_OF_A_TOKEN + SLACK_CHARACTERS;
  if (text.length <= 2 * piece) {
    const ids = counter.encode(text);
    return { head: ids, tail: ids, total: ids.length };
  }
  const head = counter.encode(text.slice(0, atBlank(text, piece)));
  const tail = counter.encode(text.slice(atBlank(text, text.length - piece)));
  const total = Math.round(((head.length + tail.length) / (2 * piece)) * text.length);
  return { head, tail, total: Math.max(total, limit + 1) };
}

/** The next blank from an offset on, or the offset itself where none is near. */
function atBlank(text: string, offset: number): number {
  const found = text.slice(offset, offset + 1000).search(/\s/u);
  return found === -1 ? offset : offset + found;
}
