/** Suites over records of the user's. A file is named after its task, or each of its records names its own. */
import type { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { quotedList } from "../../base/quoted.ts";
import { describeLeftOut } from "../../formats/records/data-folder.ts";
import { type DataRecord, openDataSet, type RecordFile } from "../../formats/records/record-files.ts";
import type { EvalItem, EvalTask, Suite } from "../item.ts";
import type { dataOptions, OptionValues, SuiteContext } from "../suite-definition.ts";
import { BadRecords, checkRecords } from "./checked-records.ts";

export type RecordOptions = SuiteContext & OptionValues<typeof dataOptions>;

/** The fields of a record before they are checked. */
type Row = Readonly<Record<string, unknown>>;

interface RecordSuite<Task extends EvalTask, Fields> extends Pick<Suite, "name" | "version" | "notes"> {
  /** Those that are asked. */
  tasks: readonly Task[];
  schema: z.ZodType<Fields>;
  /** Fields without which it is another kind of data. */
  required: readonly (readonly string[])[];
  /**
   * The task that a file is named after. A file of a task that is not asked is not read; one that is named after none is left
   * out if its records name none, either.
   */
  taskOfFile?(file: RecordFile): string | undefined;
  /** The task that a record names, undefined where it names none, and the field that it stands in. */
  taskOfRow(row: Row): string | undefined;
  taskField?: string;
  /** For a hint: how files and records tell their task. */
  naming?: string;
  /** Sees every record of the tasks before any item is made. */
  see?(row: Row, file: RecordFile): void;
  /**
   * What to know of the data once all of it was seen.
   * @throws InputError for data that cannot be used
   */
  notesOn?(survey: Survey<Task>): string[];
  /** Target length in tokens. */
  lengthOf?(fields: Fields, file: RecordFile): number | undefined;
  /** Only records of these lengths, and those that tell none; asked after `notesOn`. */
  lengths?(): readonly number[] | undefined;
  /** The record's own name, which no other record of its task may have. */
  idOf?(fields: Fields): string | undefined;
  /** What a score would fail on. */
  problemOf?(task: Task, fields: Fields): string | undefined;
  item(task: Task, id: string, fields: Fields, length: number | undefined): EvalItem;
}

/** A file and the task that it is named after; without one, every record names its own. */
interface TaskFile<Task> {
  file: RecordFile;
  task: Task | undefined;
}

/** What a first reading has found. */
interface Survey<Task> {
  files: TaskFile<Task>[];
  /** Tasks that a file is named after or a record names. */
  tasks: readonly Task[];
  records: number;
  /** Names of other tasks, with the number of their records. */
  others: ReadonlyMap<string, number>;
}

/** @throws InputError for data that cannot be read or has no record of the tasks */
export async function openRecordSuite<Task extends EvalTask, Fields>(
  suite: RecordSuite<Task, Fields>,
  data: string,
  options: RecordOptions,
): Promise<Suite> {
  const { name, version, notes, tasks: wanted } = suite;
  const { files, leftOut } = await openDataSet(data, { takesText: false, split: options.split });
  const survey = await surveyFiles(suite, files, options.signal);
  const { tasks, others } = survey;
  if (tasks.length === 0 && (suite.taskOfFile !== undefined || others.size > 0)) {
    const asked = options.tasks === undefined && wanted.length > 6 ? `any task of ${name}` : namesOf(wanted);
    const found = others.size === 0 ? "" : `; its records are of ${quotedList([...others.keys()])}`;
    throw new InputError(`"${data}" has no record of ${asked}${found}`, { hint: suite.naming });
  }
  const read = new Set(survey.files.map(({ file }) => file));
  for (const file of files) {
    if (!read.has(file) && suite.taskOfFile?.(file) === undefined) {
      leftOut.push({ name: file.name, reason: "named after no task, and its records name none" });
    }
  }
  const described = describeLeftOut(leftOut);
  const bad = new BadRecords(options.skipBad ?? false);
  // Where no record names a task, reading them says what is wrong with them.
  const present = tasks.length === 0 ? wanted : tasks;
  return {
    name,
    version,
    tasks: present,
    skipped: wanted
      .filter((task) => !present.includes(task))
      .map((task) => ({ task: task.name, reason: "--data has no records of it" })),
    notes: [...notes, ...(described === undefined ? [] : [described]), ...(suite.notesOn?.(survey) ?? [])],
    bad: bad.list,
    items: () => readItems(suite, survey.files, data, bad, options),
  };
}

function namesOf(tasks: readonly EvalTask[]): string {
  return tasks.map(({ name }) => name).join(", ");
}

/** Every file to its end: what is cut off is found before anything is computed. */
async function surveyFiles<Task extends EvalTask, Fields>(
  { tasks: wanted, see, ...suite }: RecordSuite<Task, Fields>,
  files: readonly RecordFile[],
  signal: AbortSignal | undefined,
): Promise<Survey<Task>> {
  const found = new Set<Task>();
  const others = new Map<string, number>();
  const read: TaskFile<Task>[] = [];
  let records = 0;
  for (const file of files) {
    const name = suite.taskOfFile?.(file);
    const task = wanted.find((one) => one.name === name);
    if (name !== undefined && task === undefined) continue;
    if (task !== undefined) found.add(task);
    let isOfTask = task !== undefined || suite.taskOfFile === undefined;
    for await (const record of file.records()) {
      signal?.throwIfAborted();
      records++;
      const row = rowOf(record);
      const named = row === undefined ? undefined : suite.taskOfRow(row);
      const own = task ?? wanted.find((one) => one.name === named);
      if (own === undefined) {
        if (named !== undefined) others.set(named, (others.get(named) ?? 0) + 1);
        continue;
      }
      isOfTask = true;
      found.add(own);
      if (row !== undefined) see?.(row, file);
    }
    if (isOfTask) read.push({ file, task });
  }
  return { files: read, tasks: wanted.filter((task) => found.has(task)), records, others };
}

function rowOf(record: DataRecord): Row | undefined {
  if ("problem" in record || record.value === null || typeof record.value !== "object") return undefined;
  return record.value as Row;
}

async function* readItems<Task extends EvalTask, Fields>(
  { tasks, schema, required, taskField, ...suite }: RecordSuite<Task, Fields>,
  files: readonly TaskFile<Task>[],
  data: string,
  bad: BadRecords,
  { limit = Number.POSITIVE_INFINITY, signal }: RecordOptions,
): AsyncGenerator<EvalItem> {
  bad.clear();
  const lengths = suite.lengths?.();
  const counts = new Map<string, number>();
  const ids = new Set<string>();
  for (const { file, task: named } of files) {
    // Of tasks at several lengths nobody knows what is still to come.
    const isFull = (): boolean =>
      suite.lengthOf === undefined &&
      (named === undefined ? tasks : [named]).every(({ name }) => counts.get(name) === limit);
    if (isFull()) continue;
    const records = named === undefined ? recordsOf(file, tasks, suite.taskOfRow) : file.records();
    for await (const { where, row, fields } of checkRecords(records, schema, required, bad)) {
      signal?.throwIfAborted();
      const task = named ?? tasks.find(({ name }) => name === suite.taskOfRow(row));
      if (task === undefined) {
        bad.report(where, `"${taskField}": names no task`);
        continue;
      }
      const length = suite.lengthOf?.(fields, file);
      if (lengths !== undefined && length !== undefined && !lengths.includes(length)) continue;
      const key = length === undefined ? task.name : `${task.name}/${length}`;
      const index = counts.get(key) ?? 0;
      if (index >= limit) continue;
      const id = suite.idOf?.(fields) ?? String(index);
      const isTaken = ids.has(`${key}/${id}`);
      const problem =
        suite.problemOf?.(task, fields) ?? (isTaken ? `"_id": ${id} is the id of an earlier record` : undefined);
      if (problem !== undefined) {
        bad.report(where, problem);
        continue;
      }
      ids.add(`${key}/${id}`);
      counts.set(key, index + 1);
      yield suite.item(task, id, fields, length);
      if (isFull()) break;
    }
  }
  if (counts.size === 0) bad.refuseAll(`--data "${data}"`);
}

/** The records of the given tasks, and those that name none; what is of another task is no bad record of these. */
async function* recordsOf(
  file: RecordFile,
  tasks: readonly EvalTask[],
  taskOfRow: (row: Row) => string | undefined,
): AsyncGenerator<DataRecord> {
  for await (const record of file.records()) {
    const row = rowOf(record);
    const named = row === undefined ? undefined : taskOfRow(row);
    if (named === undefined || tasks.some(({ name }) => name === named)) yield record;
  }
}
