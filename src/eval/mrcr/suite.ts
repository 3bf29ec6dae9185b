/**
 * MRCR as a suite (openai/mrcr): a long conversation in which the user asks several times for the same kind of text, and at
 * last for one of these texts again, word for word, after a random string. The data is the user's copy.
 */
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";
import { hashBytes } from "../../base/files.ts";
import type { EvalItem, EvalTask, ItemPrompt, Suite, TokenCounter } from "../item.ts";
import { openRecordSuite, type RecordOptions } from "../records/record-suite.ts";
import { sequenceRatio } from "../sequence-matcher.ts";
import { chooseTasks, dataOptions, defineSuite } from "../suite-definition.ts";

/** Changes whenever a prompt or a score does. */
const MRCR_VERSION = 1;

/** The texts asked for have a few hundred words. */
const ANSWER_TOKENS = 2048;

interface MrcrTask extends EvalTask {
  needles: number;
}

/** 0 for an answer that does not begin with the random string, and else how much of both texts stands in common blocks. */
export function mrcrScore(output: string, answer: string, start: string): number {
  if (!output.startsWith(start)) return 0;
  return sequenceRatio(output.slice(start.length), answer.startsWith(start) ? answer.slice(start.length) : answer);
}

const tasks: readonly MrcrTask[] = [2, 4, 8].map((needles) => ({
  needles,
  name: `mrcr_${needles}`,
  version: MRCR_VERSION,
  metric: "difflib_ratio",
  scores: "graded",
  maxNewTokens: ANSWER_TOKENS,
  stop: [],
  score: (output, { references, requiredStart = "" }) => mrcrScore(output, references[0] ?? "", requiredStart),
}));

export const mrcrSuite = defineSuite({
  name: "mrcr",
  help: "one of 2, 4 or 8 equal requests of a long conversation, again; openai/mrcr by --data",
  options: dataOptions,
  list: () => tasks.map((task) => ({ task, data: "--data" })),
  tasks: () => [...tasks],
  open: (options) => openMrcr(chooseTasks(tasks, "mrcr", options), options),
});

const turn = z.looseObject({ role: z.enum(["system", "user", "assistant"]), content: z.string() });

/** The messages are a column of JSON text, or a list where a copy has unpacked them. */
const conversation = z.preprocess(
  (value) => {
    if (typeof value !== "string") return value;
    try {
      return JSON.parse(value);
    } catch {
      return value;
    }
  },
  z
    .array(turn)
    .min(1)
    .refine((turns) => turns.at(-1)?.role === "user", { message: "the last message is not the user's" }),
);

const fields = [["prompt"], ["answer"], ["random_string_to_prepend"], ["n_needles"]] as const;

const schema = z.looseObject({
  prompt: conversation,
  answer: z.string().min(1),
  random_string_to_prepend: z.string().min(1),
  n_needles: z.coerce
    .number()
    .refine((asked) => tasks.some(({ needles }) => needles === asked), { message: "expected 2, 4 or 8" }),
});

type MrcrRecord = z.infer<typeof schema>;

/** @throws InputError for data that cannot be read or has no record of the tasks */
async function openMrcr(wanted: readonly MrcrTask[], options: RecordOptions): Promise<Suite> {
  const { data, counter } = options;
  if (data === undefined) throw new UsageError("Suite mrcr needs --data: the Parquet files of openai/mrcr, or a copy");
  return await openRecordSuite(
    {
      name: "mrcr",
      version: MRCR_VERSION,
      notes: [],
      tasks: wanted,
      schema,
      required: fields,
      taskOfRow: ({ n_needles: asked }) => tasks.find(({ needles }) => needles === Number(asked))?.name,
      item: (task, id, record) => toItem(task, id, record, counter),
    },
    data,
    options,
  );
}

function toItem(task: MrcrTask, id: string, record: MrcrRecord, counter: TokenCounter): EvalItem {
  const { prompt: turns, answer, random_string_to_prepend: requiredStart } = record;
  const earlier = turns.slice(0, -1).map(({ role, content }) => ({ role, content }));
  const prompt: ItemPrompt = { earlier, user: turns.at(-1)?.content ?? "", answerPrefix: "", chat: true };
  const context = earlier.map(({ content }) => content).join("\n");
  return {
    id,
    task: task.name,
    prompt,
    references: [answer],
    requiredStart,
    goldAnswer: answer,
    // Conversations are asked about more than once.
    cluster: hashBytes(context).slice(0, 16),
    groups: { tokens: lengthClass(counter.encode(`${context}\n${prompt.user}\n${answer}`).length) },
  };
}

/** The published classes: tokens of prompt and answer, here the model's own. */
function lengthClass(tokens: number): string {
  const thousands = 2 ** Math.max(3, Math.ceil(Math.log2(tokens / 1024)));
  return `${thousands / 2}K to ${thousands}K`;
}
