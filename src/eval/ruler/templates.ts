/**
 * RULER's prompts, byte for byte (`scripts/data/synthetic/constants.py`, Apache-2.0, (c) NVIDIA). The blank that begins
 * an answer prefix is part of it.
 */
import type { Random } from "../../base/random.ts";

/** The line that haystacks of noise repeat. */
export const noiseLine = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

export interface RulerPrompt {
  /** Instruction, context and question. */
  input: string;
  answerPrefix: string;
}

export type NeedleType = "numbers" | "words" | "uuids";

export interface Needle {
  key: string;
  value: string;
}

/** A number without a leading zero, `word`, or a UUID of version 4. */
export function makeNeedlePart(random: Random, type: NeedleType, word: (random: Random) => string): string {
  if (type === "numbers") return String(random.integer(1_000_000, 9_999_999));
  if (type === "words") return word(random);
  const hex = Array.from({ length: 32 }, () => random.integer(0, 15).toString(16));
  hex[12] = "4";
  hex[16] = (8 + random.integer(0, 3)).toString(16);
  return hex.join("").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** `a`, `a, and b`, `a, b, and c`: RULER's way of joining, with the comma also between two. */
export function joinWithAnd(items: readonly string[]): string {
  if (items.length < 2) return items.join("");
  return `${items.slice(0, -1).join(", ")}, and ${items.at(-1)}`;
}

/** `1. w 2. w`, as list and as answer. */
export function numberedWords(words: readonly string[]): string {
  return words.map((word, i) => `${i + 1}. ${word}`).join(" ");
}

/** The needle sentence; RULER keeps the plural here whatever the count. */
export function needleSentence(type: NeedleType, needle: Needle): string {
  return `One of the special magic ${type} for ${needle.key} is: ${needle.value}.`;
}

/** RULER's rewrite of the template for a single answer. */
function inSingular(text: string): string {
  return text.replace("Some", "A").replace("are all", "is").replaceAll("are", "is").replaceAll("answers", "answer");
}

/** The three template parts for `query`: opening, question, answer prefix. */
export function niahTemplate(type: NeedleType, query: string, single: boolean): [string, string, string] {
  const rewrite = single ? inSingular : (text: string) => text;
  const kind = single ? type.slice(0, -1) : type;
  return [
    rewrite(
      "Some special magic @ are hidden within the following text. Make sure to memorize it. I will quiz you about the @ afterwards.\n",
    ).replaceAll("@", kind),
    rewrite("\nWhat are all the special magic @ for ").replaceAll("@", kind) +
      `${query} mentioned in the provided text?`,
    ` The special magic ${kind} for ${query} mentioned in the provided text ${single ? "is" : "are"}`,
  ];
}

export function niahPrompt(type: NeedleType, query: string, context: string, single: boolean): RulerPrompt {
  const [opening, question, answerPrefix] = niahTemplate(type, query, single);
  return { input: opening + context + question, answerPrefix };
}

export function variableTrackingPrompt(context: string, value: string, names: number): RulerPrompt {
  return {
    input:
      `Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n${context}\n` +
      `Question: Find all variables that are assigned the value ${value} in the text above.`,
    answerPrefix:
      ` Answer: According to the chain(s) of variable assignment in the text above, ${names} variables are ` +
      `assigned the value ${value}, they are: `,
  };
}

/** RULER asks for 10 words. */
export function commonWordsPrompt(context: string, words = 10): RulerPrompt {
  return {
    input:
      "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that " +
      `appear most often.\n${context}\nQuestion: What are the ${words} most common words in the above list?`,
    answerPrefix: ` Answer: The top ${words} words that appear most often in the list are:`,
  };
}

export function frequentWordsPrompt(context: string): RulerPrompt {
  return {
    input:
      "Read the following coded text and track the frequency of each coded word. Find the three most frequently " +
      `appeared coded words. ${context}\nQuestion: Do not provide any explanation. Please ignore the dots ` +
      "'....'. What are the three most frequently appeared words in the above coded text?",
    answerPrefix: " Answer: According to the coded text above, the three most frequently appeared words are:",
  };
}

/** @param documents in order; they are numbered from 1 */
export function questionPrompt(documents: readonly string[], question: string): RulerPrompt {
  const instruction =
    "Answer the question based on the given documents. Only give me the answer and do not output any other words.";
  const context = documents.map((document, i) => `Document ${i + 1}:\n${document}`).join("\n\n");
  return {
    input:
      `${instruction}\n\nThe following are given documents.\n\n${context}\n\n${instruction}\n\n` +
      `Question: ${question}`,
    answerPrefix: " Answer:",
  };
}
