/** RULER records that somebody else made: NVIDIA's validation.jsonl, the shapes of NeMo-Skills, lm-eval and KVPress. */
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { requireWithinWindow } from "../generated/target-lengths.ts";
import type { EvalItem, Suite } from "../item.ts";
import { openRecordSuite } from "../records/record-suite.ts";
import type { RulerOptions } from "./options.ts";
import { goldAnswerAfter, RULER_VERSION, type RulerTask, rulerTasks } from "./tasks.ts";

const strings = z.union([z.array(z.string()), z.string().transform((text) => [text])]);
const count = z.int().min(1).nullish();

const fields = [
  ["input", "question"],
  ["outputs", "expected_answer", "answer"],
] as const;

/**
 * `answer_prefix` is NVIDIA's, `gen_prefix` lm-eval's, `generation` NeMo-Skills' name for the same. KVPress has the
 * prompt in two parts, `context` and `question`, and the task in a column.
 */
const schema = z
  .looseObject({
    input: z.string().optional(),
    context: z.string().optional(),
    question: z.string().optional(),
    outputs: strings.optional(),
    expected_answer: strings.optional(),
    answer: strings.optional(),
    answer_prefix: z.string().nullish(),
    gen_prefix: z.string().nullish(),
    generation: z.string().nullish(),
    task: z.string().nullish(),
    max_length: count,
    index: z.union([z.int(), z.string()]).nullish(),
    token_position_answer: z.int().min(0).nullish(),
    length: count,
  })
  .transform((record) => ({
    input: record.input ?? (record.context ?? "") + (record.question ?? ""),
    outputs: record.outputs ?? record.expected_answer ?? record.answer ?? [],
    answerPrefix: record.answer_prefix ?? record.gen_prefix ?? record.generation ?? "",
    targetLength: record.max_length ?? undefined,
    tokens: record.length ?? undefined,
    tokensBeforeAnswer: record.token_position_answer ?? undefined,
  }))
  .refine(({ outputs }) => outputs.length > 0, { message: "has no gold answer" });

type PreparedRecord = z.infer<typeof schema>;

/** lm-eval's names for some tasks. */
const aliases: Readonly<Record<string, string>> = {
  ruler_vt: "vt",
  ruler_cwe: "cwe",
  ruler_fwe: "fwe",
  ruler_qa_squad: "qa_1",
  ruler_qa_hotpot: "qa_2",
};

/** @throws InputError for data that cannot be read, that names none of the tasks, or that is for longer windows */
export async function openPreparedRuler(
  name: string,
  tasks: readonly RulerTask[],
  data: string,
  options: RulerOptions,
): Promise<Suite> {
  requireWithinWindow(options);
  const given = partsOf(data.split(/[/\\]/));
  const taskNamed = (part: string): string | undefined =>
    rulerTasks.find((task) => task.name === (aliases[part] ?? part))?.name;
  const lengthIn = (parts: readonly string[]): number | undefined => {
    const found = parts.map((part) => /^(?:ruler[._-])?(\d{3,7})$/.exec(part)?.[1]).find((one) => one !== undefined);
    return found === undefined ? undefined : Number(found);
  };
  /** Target lengths that the data states. */
  const stated = new Set<number>();
  let lengths = options.lengths;
  return await openRecordSuite(
    {
      name,
      version: RULER_VERSION,
      notes: ["Prompts are those of --data, as they are"],
      tasks,
      schema,
      required: fields,
      // The task is a part of the path, the length a number in it; the path given counts too.
      taskOfFile: (file) =>
        [...partsOf(file.name.split("/")), ...given].map(taskNamed).find((one) => one !== undefined),
      taskOfRow: ({ task }) => (typeof task === "string" ? (aliases[task] ?? task) : undefined),
      taskField: "task",
      naming:
        'files or their folders are named after their task, as NVIDIA\'s (4096/data/vt/validation.jsonl), or each record names it as "task"',
      see({ max_length: own }, file) {
        const length = typeof own === "number" ? own : lengthIn(partsOf(file.name.split("/")));
        if (length !== undefined) stated.add(length);
      },
      notesOn({ others }) {
        const chosen = chooseLengths(data, stated, options);
        lengths = chosen.lengths;
        return notesOn(others, chosen, options);
      },
      lengths: () => lengths,
      lengthOf: ({ targetLength }, file) => targetLength ?? lengthIn([...partsOf(file.name.split("/")), ...given]),
      item: toItem,
    },
    data,
    options,
  );
}

/** The parts of a path from the last one up, without extensions. */
function partsOf(path: readonly string[]): string[] {
  return path.map((part) => part.replace(/\.(jsonl?|ndjson|csv|tsv|parquet|pq|zip|gz|zst)\b.*$/, "")).reverse();
}

/**
 * The lengths of --lengths, or else those that the model's window takes.
 * @throws InputError where that leaves nothing
 */
function chooseLengths(
  data: string,
  stated: ReadonlySet<number>,
  { lengths, window = Number.POSITIVE_INFINITY }: RulerOptions,
): { lengths: readonly number[] | undefined; tooLong: number[] } {
  const all = [...stated].sort((a, b) => a - b);
  if (all.length === 0 || lengths?.some((length) => stated.has(length)) === true) return { lengths, tooLong: [] };
  if (lengths !== undefined) {
    throw new InputError(
      `--data "${data}" has no record of --lengths ${lengths.join(", ")}: it is for ${all.join(", ")} tokens`,
    );
  }
  const fitting = all.filter((length) => length <= window);
  if (fitting.length > 0) return { lengths: fitting, tooLong: all.filter((length) => length > window) };
  throw new InputError(`--data "${data}" is for ${all.join(", ")} tokens, the model's window is ${window} tokens`, {
    hint: "use data for shorter prompts, or a model with a longer window",
  });
}

function notesOn(
  foreign: ReadonlyMap<string, number>,
  { tooLong }: { tooLong: readonly number[] },
  { window }: RulerOptions,
): string[] {
  const notes: string[] = [];
  if (tooLong.length > 0) {
    notes.push(`Records for ${tooLong.join(", ")} tokens are left out: the model's window is ${window} tokens`);
  }
  const others = [...foreign].map(([name, count]) => `${count} of "${name}"`);
  if (others.length > 0) notes.push(`Records of other tasks are left out: ${others.slice(0, 12).join(", ")}`);
  return notes;
}

function toItem(task: RulerTask, id: string, record: PreparedRecord, length: number | undefined): EvalItem {
  const { input, outputs, answerPrefix, tokens, tokensBeforeAnswer: before } = record;
  const prompt = { user: input, answerPrefix: leadPrefix(answerPrefix), chat: true };
  return {
    id,
    task: task.name,
    length,
    prompt,
    references: outputs,
    goldAnswer: goldAnswerAfter(input + prompt.answerPrefix, task, outputs),
    depth:
      before === undefined || tokens === undefined
        ? undefined
        : { tokens: before, share: Math.min(1, before / Math.max(1, tokens - task.maxNewTokens)) },
  };
}

/** NeMo-Skills strips the blank that begins the prefix. */
function leadPrefix(prefix: string): string {
  return prefix === "" || /^\s/.test(prefix) ? prefix : ` ${prefix}`;
}
