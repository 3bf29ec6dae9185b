/** LongBench v1 and LongBench-E as suites over the user's files. */

import { InputError, UsageError } from "../../base/errors.ts";
import { hashBytes } from "../../base/files.ts";
import { withoutUndefined } from "../../base/without-undefined.ts";
import { describeLeftOut } from "../../formats/records/data-folder.ts";
import { type DataRecord, openDataSet, type RecordFile, requireWhole } from "../../formats/records/record-files.ts";
import type { EvalItem, SkippedTask, Suite } from "../item.ts";
import { BadRecords, checkRecords } from "../records/checked-records.ts";
import { chooseTasks, defineSuite } from "../suite-definition.ts";
import { withBudget } from "../token-budget.ts";
import { type LongbenchOptions, longbenchOptions, requireRoomForPrompts } from "./options.ts";
import { fillPrompt } from "./prompts.ts";
import { type LongbenchRecord, longbenchFields, longbenchSchema } from "./records.ts";
import { loadSegmentation } from "./segmentation.ts";
import {
  LONGBENCH_VERSION,
  type LongbenchTask,
  longbenchTasks,
  needsSegmentation,
  type ScoringTools,
} from "./tasks.ts";
import { cutPrompt, describeRoom } from "./truncation.ts";

/** A file and its task; without one, every record names its own in `dataset`. */
interface TaskFile {
  file: RecordFile;
  task?: LongbenchTask;
}

function define<Name extends string>(name: Name, edition: "v1" | "e", help: string) {
  return defineSuite({
    name,
    help,
    options: longbenchOptions,
    list: () =>
      tasksOf(edition, { codeRatio: "difflib" }).map((task) => ({
        task,
        data: needsSegmentation(task) ? "--data (and the package @node-rs/jieba)" : "--data",
      })),
    async tasks({ codeRatio = longbenchOptions.codeRatio.default }) {
      const segment = await loadSegmentation();
      const tasks = longbenchTasks({ codeRatio, segment });
      return tasks.filter((task) => segment !== undefined || !needsSegmentation(task));
    },
    open: (options) => openLongbench(name, edition, options),
  });
}

export const longbenchSuite = define("longbench", "v1", "LongBench's 21 tasks; needs --data");
export const longbenchESuite = define("longbench-e", "e", "LongBench-E, thirteen of them by length; needs --data");

function tasksOf(edition: "v1" | "e", tools: ScoringTools): LongbenchTask[] {
  return longbenchTasks(tools).filter(({ inE }) => edition === "v1" || inE);
}

/**
 * @param edition "e" for LongBench-E: files whose task ends with `_e`, and scores by length
 * @throws InputError for data that cannot be read or holds none of the tasks
 */
async function openLongbench(name: string, edition: "v1" | "e", options: LongbenchOptions): Promise<Suite> {
  const { data, codeRatio = longbenchOptions.codeRatio.default, skipBad = false } = options;
  if (data === undefined) throw new UsageError(`Suite ${name} needs --data: LongBench's zip, folder or files`);
  requireRoomForPrompts(options);
  const names = chooseTasks(tasksOf(edition, { codeRatio }), name, options);
  const segment = names.some(needsSegmentation) ? await loadSegmentation() : undefined;
  const all = longbenchTasks({ codeRatio, segment });
  const wanted = all.filter(({ name }) => names.some((task) => task.name === name));
  const skipped: SkippedTask[] = [];
  const scorable = wanted.filter((task) => {
    const lacks = needsSegmentation(task) && segment === undefined;
    if (lacks)
      skipped.push({ task: task.name, reason: "needs the package @node-rs/jieba: npm install @node-rs/jieba" });
    return !lacks;
  });
  const set = await openDataSet(data, { takesText: false, split: options.split });
  const assigned = assignFiles(set.files, all, edition).filter(
    ({ task }) => task === undefined || scorable.includes(task),
  );
  const { used, present } = await findTasks(assigned, scorable);
  for (const { file, task } of assigned) {
    if (task === undefined && !used.some((one) => one.file === file)) {
      set.leftOut.push({ name: file.name, reason: "named after no task, and its records name none" });
    }
  }
  const tasks = scorable.filter((task) => present.has(task));
  for (const task of scorable) {
    if (!present.has(task)) skipped.push({ task: task.name, reason: `--data has no records of it` });
  }
  if (tasks.length === 0) {
    const what = options.tasks === undefined ? "any of LongBench's tasks" : options.tasks.join(", ");
    throw new InputError(`"${data}" has no record of ${what}`, {
      hint: `files are named after their task, such as hotpotqa${edition === "e" ? "_e" : ""}.jsonl, or each record names it as "dataset"`,
    });
  }
  await requireWhole(
    used.map(({ file }) => file),
    options.signal,
  );
  const files = describeLeftOut(set.leftOut);
  const bad = new BadRecords(skipBad);
  return {
    name,
    version: LONGBENCH_VERSION,
    tasks,
    skipped,
    notes: [
      ...(codeRatio === "indel"
        ? ["Code tasks are scored with --code-ratio indel, not as the official set-up does"]
        : []),
      ...(files === undefined ? [] : [files]),
      ...describeRoom(tasks, options),
    ],
    bad: bad.list,
    items: () => readItems(used, tasks, edition, bad, options),
  };
}

/** The task that a file is named after: `hotpotqa.jsonl`, `data/hotpotqa_e.jsonl`, `hotpotqa/test-00000.parquet`. */
function assignFiles(files: readonly RecordFile[], tasks: readonly LongbenchTask[], edition: "v1" | "e"): TaskFile[] {
  const names = new Map<string, { task: LongbenchTask; edition: "v1" | "e" }>();
  for (const task of tasks) {
    names.set(task.name, { task, edition: "v1" });
    if (task.inE) names.set(`${task.name}_e`, { task, edition: "e" });
  }
  return files.flatMap((file): TaskFile[] => {
    const parts = file.name.split("/").reverse();
    const found = parts.map((part) => names.get(part.replace(/\..*$/, ""))).find((entry) => entry !== undefined);
    if (found === undefined) return [{ file }];
    return found.edition === edition ? [{ file, task: found.task }] : [];
  });
}

/** Files of several tasks are read once to see which they hold; those that hold none are left out. */
async function findTasks(
  files: readonly TaskFile[],
  wanted: readonly LongbenchTask[],
): Promise<{ used: TaskFile[]; present: Set<LongbenchTask> }> {
  const used: TaskFile[] = [];
  const present = new Set<LongbenchTask>();
  for (const file of files) {
    const found = file.task === undefined ? await tasksWithin(file.file, wanted) : [file.task];
    for (const task of found) present.add(task);
    if (found.length > 0) used.push(file);
  }
  return { used, present };
}

async function tasksWithin(file: RecordFile, wanted: readonly LongbenchTask[]): Promise<LongbenchTask[]> {
  const names = new Set<unknown>();
  for await (const record of file.records()) {
    if ("value" in record) names.add(datasetOf(record.value));
    if (wanted.every(({ name }) => names.has(name))) break;
  }
  return wanted.filter(({ name }) => names.has(name));
}

/** The records of the given tasks, and those that name none; what another task claims is no bad record of LongBench. */
async function* recordsOf(file: RecordFile, tasks: readonly LongbenchTask[]): AsyncGenerator<DataRecord> {
  for await (const record of file.records()) {
    if ("problem" in record) yield record;
    else {
      const dataset = datasetOf(record.value);
      if (typeof dataset !== "string" || tasks.some(({ name }) => name === dataset)) yield record;
    }
  }
}

function datasetOf(value: unknown): unknown {
  return value !== null && typeof value === "object" && "dataset" in value ? value.dataset : undefined;
}

async function* readItems(
  files: readonly TaskFile[],
  tasks: readonly LongbenchTask[],
  edition: "v1" | "e",
  bad: BadRecords,
  options: LongbenchOptions,
): AsyncGenerator<EvalItem> {
  const { limit = Number.POSITIVE_INFINITY, signal } = options;
  bad.clear();
  const counts = new Map<LongbenchTask, number>();
  const ids = new Set<string>();
  const enough = (task: LongbenchTask): boolean => (counts.get(task) ?? 0) >= limit;
  for (const { file, task: named } of files) {
    const records = named === undefined ? recordsOf(file, tasks) : file.records();
    for await (const { where, fields } of checkRecords(records, longbenchSchema, longbenchFields, bad)) {
      signal?.throwIfAborted();
      if (named === undefined ? tasks.every(enough) : enough(named)) break;
      const task = named ?? tasks.find(({ name }) => name === fields.dataset);
      if (task === undefined) {
        bad.report(where, '"dataset": names no task');
        continue;
      }
      if (enough(task)) continue;
      const index = counts.get(task) ?? 0;
      const id = fields.id ?? String(index);
      const problem =
        whyBad(task, fields) ??
        (ids.has(`${task.name}/${id}`) ? `"_id": ${id} is the id of an earlier record` : undefined);
      if (problem !== undefined) {
        bad.report(where, problem);
        continue;
      }
      ids.add(`${task.name}/${id}`);
      counts.set(task, index + 1);
      yield toItem(task, id, fields, edition, options);
    }
  }
  if (ids.size === 0) bad.refuseAll(`--data "${options.data}"`);
}

/** What a score would fail on. */
function whyBad({ metric }: LongbenchTask, { answers, classes }: LongbenchRecord): string | undefined {
  if (answers.length === 0) return '"answers": is empty';
  if (metric === "classification" && (classes === undefined || classes.length === 0)) {
    return '"all_classes": expected a list of classes';
  }
  if (metric === "retrieval" && !answers.every((answer) => /Paragraph \d/.test(answer))) {
    return '"answers": expected "Paragraph" and a number';
  }
  if (metric === "retrieval_zh" && !answers.every((answer) => /段落\d/.test(answer))) {
    return '"answers": expected "段落" and a number';
  }
  return undefined;
}

function toItem(
  task: LongbenchTask,
  id: string,
  record: LongbenchRecord,
  edition: "v1" | "e",
  options: LongbenchOptions,
): EvalItem {
  const { text, truncated } = cutPrompt(fillPrompt(task.prompt, record), "v1", withBudget(task, options), options);
  const { length, language, answers, classes, context } = record;
  return {
    id,
    task: task.name,
    prompt: { user: text, answerPrefix: "", chat: task.chat },
    references: answers,
    goldAnswer: leadOf(text) + (answers[0] ?? ""),
    classes,
    cluster: hashBytes(context).slice(0, 16),
    groups: withoutUndefined({
      category: task.category,
      language: language ?? task.language,
      bucket: edition === "e" && length !== undefined ? bucketOf(length) : undefined,
    }),
    truncated,
  };
}

/** The blank between prompt and answer, where the prompt does not end with one and its script has them. */
function leadOf(prompt: string): string {
  return /[\s\u3000-\u9fff\uff00-\uffef]$/u.test(prompt) ? "" : " ";
}

/** LongBench-E's classes of length in words. */
function bucketOf(length: number): string {
  if (length < 4000) return "0-4k";
  return length < 8000 ? "4-8k" : "8k+";
}
