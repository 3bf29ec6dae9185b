/** RULER records that somebody else made: NVIDIA's validation.jsonl, NeMo-Skills' and lm-eval's shapes. */
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { listRecordFiles, type RecordFile } from "../../formats/records/record-files.ts";
import type { EvalItem, Suite } from "../item.ts";
import { BadRecords, checkRecords } from "../records/checked-records.ts";
import type { SuiteOptions } from "../suites.ts";
import { goldAnswerBehind, RULER_VERSION, type RulerTask } from "./tasks.ts";

const strings = z.union([z.array(z.string()), z.string().transform((text) => [text])]);
const count = z.int().min(1).nullish();

const fields = [
  ["input", "question"],
  ["outputs", "expected_answer"],
] as const;

/** `answer_prefix` is NVIDIA's, `gen_prefix` lm-eval's, `generation` NeMo-Skills' name for the same. */
const schema = z
  .looseObject({
    input: z.string().optional(),
    question: z.string().optional(),
    outputs: strings.optional(),
    expected_answer: strings.optional(),
    answer_prefix: z.string().nullish(),
    gen_prefix: z.string().nullish(),
    generation: z.string().nullish(),
    max_length: count,
    index: z.union([z.int(), z.string()]).nullish(),
    token_position_answer: z.int().min(0).nullish(),
    length: count,
  })
  .transform((record) => ({
    input: record.input ?? record.question ?? "",
    outputs: record.outputs ?? record.expected_answer ?? [],
    answerPrefix: record.answer_prefix ?? record.gen_prefix ?? record.generation ?? "",
    targetLength: record.max_length ?? undefined,
    tokens: record.length ?? undefined,
    tokensBeforeAnswer: record.token_position_answer ?? undefined,
  }))
  .refine(({ outputs }) => outputs.length > 0, { message: "has no gold answer" });

type PreparedRecord = z.infer<typeof schema>;

interface PreparedFile {
  file: RecordFile;
  task: RulerTask;
  /** Target length by the folder's name. */
  length?: number;
}

/** lm-eval's names for some tasks. */
const aliases: Readonly<Record<string, string>> = {
  ruler_vt: "vt",
  ruler_cwe: "cwe",
  ruler_fwe: "fwe",
  ruler_qa_squad: "qa_1",
  ruler_qa_hotpot: "qa_2",
};

/** @throws InputError for data that cannot be read, or whose files are named after none of the tasks */
export async function openPreparedRuler(
  name: string,
  wanted: readonly RulerTask[],
  data: string,
  options: SuiteOptions,
): Promise<Suite> {
  const files = (await listRecordFiles(data)).flatMap((file) => assign(file, data, wanted));
  const tasks = wanted.filter((task) => files.some((file) => file.task === task));
  if (tasks.length === 0) {
    throw new InputError(`"${data}" has no file of ${wanted.map((task) => task.name).join(", ")}`, {
      hint: "files or their folders are named after their task, as NVIDIA's: 4096/data/vt/validation.jsonl",
    });
  }
  const bad = new BadRecords(options.skipBad ?? false);
  return {
    name,
    version: RULER_VERSION,
    tasks,
    skipped: wanted
      .filter((task) => !tasks.includes(task))
      .map((task) => ({ task: task.name, reason: "--data has no records of it" })),
    notes: ["Prompts are those of --data, as they are"],
    bad: bad.list,
    items: () => readItems(files, bad, options),
  };
}

/** The task is a part of the path, the length a number in it; the path given counts too. */
function assign(file: RecordFile, data: string, wanted: readonly RulerTask[]): PreparedFile[] {
  const parts = [...data.split(/[/\\]/), ...file.name.split("/")].reverse();
  const stems = parts.map((part) => part.replace(/\.(jsonl?|ndjson|csv|parquet|zip|gz)\b.*$/, ""));
  const task = stems
    .map((stem) => wanted.find(({ name }) => name === (aliases[stem] ?? stem)))
    .find((found) => found !== undefined);
  if (task === undefined) return [];
  const number = stems.map((stem) => /^(?:ruler[._-])?(\d{3,7})$/.exec(stem)?.[1]).find((found) => found !== undefined);
  return [{ file, task, ...(number === undefined ? {} : { length: Number(number) }) }];
}

async function* readItems(
  files: readonly PreparedFile[],
  bad: BadRecords,
  { data, limit = Number.POSITIVE_INFINITY, lengths, signal }: SuiteOptions,
): AsyncGenerator<EvalItem> {
  bad.clear();
  const counts = new Map<string, number>();
  for (const { file, task, length: ofFolder } of files) {
    for await (const { fields: record } of checkRecords(file.records(), schema, fields, bad)) {
      signal?.throwIfAborted();
      const length = record.targetLength ?? ofFolder;
      if (lengths !== undefined && length !== undefined && !lengths.includes(length)) continue;
      const key = `${task.name}/${length ?? ""}`;
      const index = counts.get(key) ?? 0;
      if (index >= limit) continue;
      counts.set(key, index + 1);
      yield toItem(task, String(index), record, length);
    }
  }
  if (counts.size > 0) return;
  const ofLength = lengths === undefined ? "" : ` of --lengths ${lengths.join(", ")}`;
  bad.refuseAll(`--data "${data}"${ofLength}`);
}

function toItem(task: RulerTask, id: string, record: PreparedRecord, length: number | undefined): EvalItem {
  const { input, outputs, answerPrefix, tokens, tokensBeforeAnswer: before } = record;
  const prompt = { user: input, answerPrefix: leadPrefix(answerPrefix), chat: true };
  return {
    id,
    task: task.name,
    ...(length === undefined ? {} : { length }),
    prompt,
    references: outputs,
    goldAnswer: goldAnswerBehind(input + prompt.answerPrefix, task, outputs),
    ...(before === undefined || tokens === undefined
      ? {}
      : { depth: { tokens: before, share: Math.min(1, before / Math.max(1, tokens - task.maxNewTokens)) } }),
  };
}

/** NeMo-Skills strips the blank that begins the prefix. */
function leadPrefix(prefix: string): string {
  return prefix === "" || /^\s/.test(prefix) ? prefix : ` ${prefix}`;
}
