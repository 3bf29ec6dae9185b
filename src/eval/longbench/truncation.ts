/** LongBench's cut: the first and the last tokens of a prompt stay, the middle goes. */
import { InputError } from "../../base/errors.ts";
import type { EvalTask, TokenCounter } from "../item.ts";
import { withBudget } from "../token-budget.ts";
import type { CutOptions } from "./options.ts";

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
 * A rendered prompt as `--max-length` cuts it, or else as far as wrapper and answer leave it room in the window.
 * @throws InputError where the answer leaves no room for a prompt
 */
export function cutPrompt(
  text: string,
  edition: "v1" | "v2",
  task: Pick<EvalTask, "name" | "maxNewTokens">,
  { counter, maxLength, window, wrapperTokens = 0 }: CutOptions,
): Truncated {
  if (maxLength !== undefined) return truncateOfficially(text, maxLength, edition, counter);
  return window === undefined ? { text } : truncateMiddle(text, promptLimit(task, window, wrapperTokens), counter);
}

/** Says where answers may meet the window: `--max-length` leaves no room for them. */
export function describeRoom(tasks: readonly EvalTask[], options: CutOptions): string[] {
  const { maxLength, window, wrapperTokens = 0 } = options;
  if (maxLength === undefined || window === undefined) return [];
  const room = window - maxLength - wrapperTokens;
  const short = tasks.map((task) => withBudget(task, options)).filter(({ maxNewTokens }) => maxNewTokens > room);
  if (short.length === 0) return [];
  const names = short.map(({ name, maxNewTokens }) => `${name} (${maxNewTokens})`).join(", ");
  return [
    `--max-length ${maxLength} leaves ${Math.max(0, room)} tokens of the window of ${window} for answers, fewer than the longest prompts of these tasks may need: ${names}`,
  ];
}

function promptLimit({ name, maxNewTokens }: Pick<EvalTask, "name" | "maxNewTokens">, window: number, wrapper: number) {
  const limit = window - wrapper - maxNewTokens;
  if (limit >= 64) return limit;
  throw new InputError(
    `${name} does not fit into ${window} tokens: its answer may have ${maxNewTokens}, which leaves ${Math.max(0, limit)} for the prompt`,
    { hint: "leave the task out with --tasks, give it fewer --max-new-tokens, or use a model with a longer window" },
  );
}

/**
 * As the official code cuts a prompt that has more than `maxLength` tokens, those counted that the tokenizer puts before
 * any text. Wrapper and answer come on top. LongBench v1 decodes two halves, rounded down, each by itself; v2 decodes them
 * together, the second one rounded up.
 */
function truncateOfficially(text: string, maxLength: number, edition: "v1" | "v2", counter: TokenCounter): Truncated {
  const { specialTokens = 0 } = counter;
  const ends = encodeEnds(text, maxLength, counter);
  if (ends.total + specialTokens <= maxLength) return { text };
  const half = Math.floor(maxLength / 2);
  const head = ends.head.slice(0, Math.max(0, half - specialTokens));
  const tail = ends.tail.slice(edition === "v1" ? -half : half - maxLength);
  const cut =
    edition === "v2"
      ? counter.decode([...head, ...tail])
      : counter.decode(head) + (half === 0 ? "" : counter.decode(tail));
  return { text: cut, truncated: { before: ends.total, after: counter.encode(cut).length } };
}

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
