/** Suites over records of the user's that say which task they are of: MRCR, GraphWalks. */
import type { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { describeLeftOut } from "../../formats/records/data-folder.ts";
import { openDataSet, type RecordFile, requireWhole } from "../../formats/records/record-files.ts";
import type { EvalItem, EvalTask, Suite } from "../item.ts";
import type { dataOptions, OptionValues, SuiteContext } from "../suite-definition.ts";
import { BadRecords, checkRecords } from "./checked-records.ts";

export type RecordOptions = SuiteContext & OptionValues<typeof dataOptions>;

interface RecordSuite<Task extends EvalTask, Fields> extends Pick<Suite, "name" | "version" | "notes"> {
  /** Those that are asked. */
  tasks: readonly Task[];
  schema: z.ZodType<Fields>;
  /** Fields without which it is another kind of data. */
  required: readonly (readonly string[])[];
  /** The name of the task that a record is of, or what is wrong with its field. */
  taskOf(fields: Fields): string | { problem: string };
  item(task: Task, id: string, fields: Fields): EvalItem;
}

/** @throws InputError for data that cannot be read or has no record of the tasks */
export async function openRecordSuite<Task extends EvalTask, Fields>(
  suite: RecordSuite<Task, Fields>,
  data: string,
  options: RecordOptions,
): Promise<Suite> {
  const { name, version, notes } = suite;
  const { files, leftOut } = await openDataSet(data, { takesText: false, split: options.split });
  await requireWhole(files, options.signal);
  const others = describeLeftOut(leftOut);
  const bad = new BadRecords(options.skipBad ?? false);
  return {
    name,
    version,
    tasks: suite.tasks,
    skipped: [],
    notes: [...notes, ...(others === undefined ? [] : [others])],
    bad: bad.list,
    items: () => readItems(suite, files, data, bad, options),
  };
}

async function* readItems<Task extends EvalTask, Fields>(
  { tasks, schema, required, taskOf, item }: RecordSuite<Task, Fields>,
  files: readonly RecordFile[],
  data: string,
  bad: BadRecords,
  { limit = Number.POSITIVE_INFINITY, signal }: RecordOptions,
): AsyncGenerator<EvalItem> {
  bad.clear();
  const counts = new Map<Task, number>();
  const others = new Set<string>();
  for (const file of files) {
    for await (const { where, fields } of checkRecords(file.records(), schema, required, bad)) {
      signal?.throwIfAborted();
      const named = taskOf(fields);
      if (typeof named !== "string") {
        bad.report(where, named.problem);
        continue;
      }
      const task = tasks.find(({ name }) => name === named);
      if (task === undefined) {
        others.add(named);
        continue;
      }
      const index = counts.get(task) ?? 0;
      if (index >= limit) continue;
      counts.set(task, index + 1);
      yield item(task, String(index), fields);
    }
  }
  if (counts.size > 0) return;
  if (others.size === 0) bad.refuseAll(`--data "${data}"`);
  throw new InputError(`--data "${data}" has no record of ${tasks.map(({ name }) => name).join(", ")}`, {
    hint: `it has ${[...others].join(", ")}`,
  });
}
