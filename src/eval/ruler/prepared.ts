/** RULER records that somebody else made: NVIDIA's validation.jsonl, the shapes of NeMo-Skills, lm-eval and KVPress. */
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { quotedList } from "../../base/quoted.ts";
import { describeLeftOut, type LeftOut } from "../../formats/records/data-folder.ts";
import { type DataRecord, openDataSet, type RecordFile } from "../../formats/records/record-files.ts";
import { requireWithinWindow } from "../generated/target-lengths.ts";
import type { EvalItem, Suite } from "../item.ts";
import { BadRecords, checkRecords } from "../records/checked-records.ts";
import type { RulerOptions } from "./options.ts";
import { goldAnswerAfter, RULER_VERSION, type RulerTask } from "./tasks.ts";

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
    task: record.task ?? undefined,
    targetLength: record.max_length ?? undefined,
    tokens: record.length ?? undefined,
    tokensBeforeAnswer: record.token_position_answer ?? undefined,
  }))
  .refine(({ outputs }) => outputs.length > 0, { message: "has no gold answer" });

type PreparedRecord = z.infer<typeof schema>;

interface PreparedFile {
  file: RecordFile;
  /** By the file's or its folder's name; undefined where every record names its own. */
  task: RulerTask | undefined;
  /** Target length by the name of a folder. */
  length: number | undefined;
  /** That folder is the one that was given, and not part of the data. */
  lengthOfPath: boolean;
}

/** What a first reading of all files has found. */
interface Survey {
  tasks: Set<RulerTask>;
  /** Target lengths that the data states. */
  lengths: Set<number>;
  /** Names in the column "task" that are none of the wanted tasks, with their records. */
  foreign: Map<string, number>;
}

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
  wanted: readonly RulerTask[],
  data: string,
  options: RulerOptions,
): Promise<Suite> {
  requireWithinWindow(options);
  const set = await openDataSet(data, { takesText: false, split: options.split });
  const files = set.files.map((file) => assign(file, data, wanted));
  const { tasks: present, lengths, foreign } = await survey(files, wanted, options.signal);
  const tasks = wanted.filter((task) => present.has(task));
  if (tasks.length === 0) {
    const found = foreign.size === 0 ? "" : `; its column "task" has ${quotedList([...foreign.keys()])}`;
    throw new InputError(`"${data}" has no record of ${wanted.map((task) => task.name).join(", ")}${found}`, {
      hint: 'files or their folders are named after their task, as NVIDIA\'s (4096/data/vt/validation.jsonl), or each record names it as "task"',
    });
  }
  const used = chooseLengths(data, lengths, options);
  const bad = new BadRecords(options.skipBad ?? false);
  return {
    name,
    version: RULER_VERSION,
    tasks,
    skipped: wanted
      .filter((task) => !tasks.includes(task))
      .map((task) => ({ task: task.name, reason: "--data has no records of it" })),
    notes: ["Prompts are those of --data, as they are", ...notesOn(set.leftOut, foreign, used, options)],
    bad: bad.list,
    items: () =>
      readItems(files, wanted, bad, used.lengths === undefined ? options : { ...options, lengths: used.lengths }),
  };
}

/** The task is a part of the path, the length a number in it; the path given counts too. */
function assign(file: RecordFile, data: string, wanted: readonly RulerTask[]): PreparedFile {
  const stem = (part: string): string => part.replace(/\.(jsonl?|ndjson|csv|tsv|parquet|pq|zip|gz|zst)\b.*$/, "");
  const inside = file.name.split("/").reverse().map(stem);
  const given = data.split(/[/\\]/).reverse().map(stem);
  const task = [...inside, ...given]
    .map((part) => wanted.find(({ name }) => name === (aliases[part] ?? part)))
    .find((found) => found !== undefined);
  const numberOf = (part: string): string | undefined => /^(?:ruler[._-])?(\d{3,7})$/.exec(part)?.[1];
  const own = inside.map(numberOf).find((found) => found !== undefined);
  const number = own ?? given.map(numberOf).find((found) => found !== undefined);
  return {
    file,
    task,
    length: number === undefined ? undefined : Number(number),
    lengthOfPath: own === undefined,
  };
}

/** Every file to its end: what is cut off is found before anything is computed. */
async function survey(
  files: readonly PreparedFile[],
  wanted: readonly RulerTask[],
  signal: AbortSignal | undefined,
): Promise<Survey> {
  const found: Survey = { tasks: new Set(), lengths: new Set(), foreign: new Map() };
  for (const { file, task, length, lengthOfPath } of files) {
    for await (const record of file.records()) {
      signal?.throwIfAborted();
      const own = task ?? taskNamed(fieldOf(record, "task"), wanted);
      if (own === undefined) {
        const name = fieldOf(record, "task");
        if (typeof name === "string") found.foreign.set(name, (found.foreign.get(name) ?? 0) + 1);
        continue;
      }
      found.tasks.add(own);
      const stated = fieldOf(record, "max_length");
      if (typeof stated === "number") found.lengths.add(stated);
      else if (length !== undefined && !lengthOfPath) found.lengths.add(length);
    }
    if (task !== undefined) found.tasks.add(task);
  }
  return found;
}

/** The records of the wanted tasks; what is no record is for the reader to judge. */
async function* recordsOf(file: RecordFile, wanted: readonly RulerTask[]): AsyncGenerator<DataRecord> {
  for await (const record of file.records()) {
    if ("problem" in record || taskNamed(fieldOf(record, "task"), wanted) !== undefined) yield record;
  }
}

function taskNamed(name: unknown, wanted: readonly RulerTask[]): RulerTask | undefined {
  return typeof name === "string" ? wanted.find((task) => task.name === (aliases[name] ?? name)) : undefined;
}

function fieldOf(record: DataRecord, name: string): unknown {
  if ("problem" in record || record.value === null || typeof record.value !== "object") return undefined;
  return Object.hasOwn(record.value, name) ? (record.value as Record<string, unknown>)[name] : undefined;
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
  leftOut: readonly LeftOut[],
  foreign: ReadonlyMap<string, number>,
  { tooLong }: { tooLong: readonly number[] },
  { window }: RulerOptions,
): string[] {
  const notes: string[] = [];
  const files = describeLeftOut(leftOut);
  if (files !== undefined) notes.push(files);
  if (tooLong.length > 0) {
    notes.push(`Records for ${tooLong.join(", ")} tokens are left out: the model's window is ${window} tokens`);
  }
  const others = [...foreign].map(([name, count]) => `${count} of "${name}"`);
  if (others.length > 0) notes.push(`Records of other tasks are left out: ${others.slice(0, 12).join(", ")}`);
  return notes;
}

async function* readItems(
  files: readonly PreparedFile[],
  wanted: readonly RulerTask[],
  bad: BadRecords,
  { data, limit = Number.POSITIVE_INFINITY, lengths, signal }: RulerOptions,
): AsyncGenerator<EvalItem> {
  bad.clear();
  const counts = new Map<string, number>();
  for (const { file, task: named, length: ofFolder } of files) {
    const records = named === undefined ? recordsOf(file, wanted) : file.records();
    for await (const { fields: record } of checkRecords(records, schema, fields, bad)) {
      signal?.throwIfAborted();
      const task = named ?? taskNamed(record.task, wanted);
      const length = record.targetLength ?? ofFolder;
      if (task === undefined || (lengths !== undefined && length !== undefined && !lengths.includes(length))) continue;
      const key = `${task.name}/${length ?? ""}`;
      const index = counts.get(key) ?? 0;
      if (index >= limit) continue;
      counts.set(key, index + 1);
      yield toItem(task, String(index), record, length);
    }
  }
  if (counts.size > 0) return;
  bad.refuseAll(`--data "${data}"`);
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
