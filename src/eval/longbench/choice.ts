/** LongBench v2's prompts (`prompts/*.txt`, MIT, (c) THU-KEG & Zhipu AI) and how its answers are read. */
import { labels } from "./records.ts";

export interface ChoiceQuestion {
  document: string;
  question: string;
  /** Four. */
  choices: readonly string[];
}

const FORMAT = 'Format your response as follows: "The correct answer is (insert answer here)".';

/** The apostrophe is U+2019, as published. */
const STEP_BY_STEP = "Let’s think step by step:";

/** What leads the letter in the answer that the format asks for. */
export const ANSWER_LEAD = "The correct answer is (";

function ask({ question, choices }: ChoiceQuestion): string {
  const options = labels.map((label, i) => `(${label}) ${(choices[i] ?? "").trim()}`).join("\n");
  return `What is the correct answer to this question: ${question.trim()}\nChoices:\n${options}\n\n`;
}

function text(document: string): string {
  return `<text>\n${document.trim()}\n</text>\n\n`;
}

/** `0shot.txt` */
export function zeroShotPrompt(asked: ChoiceQuestion): string {
  return `Please read the following text and answer the question below.\n\n${text(asked.document)}${ask(asked)}${FORMAT}`;
}

/** `0shot_cot.txt` */
export function thoughtPrompt(asked: ChoiceQuestion): string {
  return `Please read the following text and answer the questions below.\n\n${text(asked.document)}${ask(asked)}${STEP_BY_STEP}`;
}

/** `0shot_cot_ans.txt` */
export function thoughtAnswerPrompt(asked: ChoiceQuestion, thought: string): string {
  return (
    "Please read the following text and answer the questions below.\n\nThe text is too long and omitted here.\n\n" +
    `${ask(asked)}${STEP_BY_STEP} ${thought.trim()}\n\n` +
    `Based on the above, what is the single, most likely answer choice? ${FORMAT}`
  );
}

/** The letter of an output, or null: in parentheses if anywhere, else bare; asterisks do not count. */
export function extractAnswer(output: string): string | null {
  const plain = output.replaceAll("*", "");
  return (
    /The correct answer is \(([A-D])\)/.exec(plain)?.[1] ?? /The correct answer is ([A-D])/.exec(plain)?.[1] ?? null
  );
}
