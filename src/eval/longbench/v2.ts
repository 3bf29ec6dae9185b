/**
 * LongBench v2 as a suite: 503 multiple choices over texts of up to two million words; its prompts (`prompts/*.txt`, MIT,
 * (c) THU-KEG & Zhipu AI) and how its answers are read.
 */
import { UsageError } from "../../base/errors.ts";
import { hashBytes } from "../../base/files.ts";
import { withoutUndefined } from "../../base/without-undefined.ts";
import type { EvalItem, EvalTask, Suite } from "../item.ts";
import { openRecordSuite } from "../records/record-suite.ts";
import { chooseTasks, defineSuite } from "../suite-definition.ts";
import { withBudget } from "../token-budget.ts";
import { type EmptyOutputs, type LongbenchV2Options, longbenchV2Options, requireRoomForPrompts } from "./options.ts";
import { type LongbenchV2Record, labels, longbenchV2Fields, longbenchV2Schema } from "./records.ts";
import { cutPrompt, describeRoom } from "./truncation.ts";

/** Changes whenever a prompt or a score does. */
const LONGBENCH_V2_VERSION = 2;

/** Items of the published file. */
const PUBLISHED_ITEMS = 503;
const ANSWER_TOKENS = 128;
const THOUGHT_TOKENS = 1024;

/** An output without an answer is wrong; the original leaves an empty one out of its count. */
function longbenchV2Task(cot: boolean, emptyOutputs: EmptyOutputs = longbenchV2Options.emptyOutputs.default): EvalTask {
  return {
    name: cot ? "longbench_v2_cot" : "longbench_v2",
    version: LONGBENCH_V2_VERSION,
    metric: "accuracy",
    scores: "binary",
    maxNewTokens: cot ? THOUGHT_TOKENS : ANSWER_TOKENS,
    stop: [],
    dropsEmpty: emptyOutputs === "drop",
    score: (output, { references }) => (extractAnswer(output) === references[0] ? 1 : 0),
  };
}

export const longbenchV2Suite = defineSuite({
  name: "longbench-v2",
  help: "LongBench v2, 503 multiple choices; needs --data",
  options: longbenchV2Options,
  list: () => [
    { task: longbenchV2Task(false), data: "--data" },
    { task: longbenchV2Task(true), data: "--data, --cot" },
  ],
  tasks: ({ emptyOutputs }) => [longbenchV2Task(false, emptyOutputs), longbenchV2Task(true, emptyOutputs)],
  open: (options) => openLongbenchV2("longbench-v2", options),
});

/** @throws InputError for data that cannot be read */
async function openLongbenchV2(name: string, options: LongbenchV2Options): Promise<Suite> {
  const { data, cot = false, emptyOutputs } = options;
  const task = longbenchV2Task(cot, emptyOutputs);
  chooseTasks([task], name, options);
  requireRoomForPrompts(options);
  if (data === undefined)
    throw new UsageError(`Suite ${name} needs --data: data.json of LongBench v2, or a copy of it`);
  return await openRecordSuite(
    {
      name,
      version: LONGBENCH_V2_VERSION,
      notes: [],
      tasks: [task],
      schema: longbenchV2Schema,
      required: longbenchV2Fields,
      taskOfRow: () => task.name,
      notesOn: ({ records }) => [
        ...describeRoom([task], options),
        ...(records === PUBLISHED_ITEMS ? [] : [`The data has ${records} items, LongBench v2 has ${PUBLISHED_ITEMS}`]),
      ],
      idOf: ({ id }) => id,
      item: (_, id, record) => toItem(task, id, record, options),
    },
    data,
    options,
  );
}

function toItem(task: EvalTask, id: string, record: LongbenchV2Record, options: LongbenchV2Options): EvalItem {
  const { cot = false } = options;
  const choices = record.choices.map((choice) => choice ?? "");
  const asked = { document: record.context, question: record.question, choices };
  const whole = cot ? thoughtPrompt(asked) : zeroShotPrompt(asked);
  const { text, truncated } = cutPrompt(whole, "v2", withBudget(task, options), options);
  const { domain, subDomain, difficulty, length, answer, context } = record;
  return {
    id,
    task: task.name,
    prompt: { user: text, answerPrefix: "", chat: true },
    references: [answer],
    goldAnswer: `\n${ANSWER_LEAD}${answer})`,
    // With a chain of thought the choice is made in the second turn, which depends on the first output.
    ...(cot ? { followUp: followUp(asked) } : { choices: labels, choiceLead: `\n${ANSWER_LEAD}` }),
    cluster: hashBytes(context).slice(0, 16),
    groups: withoutUndefined({ difficulty, length, domain, sub_domain: subDomain }),
    truncated,
  };
}

function followUp({
  question,
  choices,
}: {
  question: string;
  choices: readonly string[];
}): NonNullable<EvalItem["followUp"]> {
  // Without the document: a suite's items must not hold on to it.
  const asked = { document: "", question, choices };
  return {
    maxNewTokens: ANSWER_TOKENS,
    prompt: (thought) => ({ user: thoughtAnswerPrompt(asked, thought), answerPrefix: "", chat: true }),
  };
}

interface ChoiceQuestion {
  document: string;
  question: string;
  /** Four. */
  choices: readonly string[];
}

const FORMAT = 'Format your response as follows: "The correct answer is (insert answer here)".';

/** The apostrophe is U+2019, as published. */
const STEP_BY_STEP = "Let’s think step by step:";

/** What leads the letter in the answer that the format asks for. */
const ANSWER_LEAD = "The correct answer is (";

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
