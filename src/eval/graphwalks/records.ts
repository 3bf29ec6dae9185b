/** The user's copy of openai/graphwalks. */
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { describeLeftOut } from "../../formats/records/data-folder.ts";
import { openDataSet, type RecordFile, requireWhole } from "../../formats/records/record-files.ts";
import type { EvalItem, Suite } from "../item.ts";
import { BadRecords, checkRecords } from "../records/checked-records.ts";
import { listOfStrings } from "../records/columns.ts";
import type { SuiteContext } from "../suite-definition.ts";
import { GRAPHWALKS_VERSION, type GraphwalksTask, goldNodes } from "./tasks.ts";

export type RecordOptions = SuiteContext & { split?: string; skipBad?: boolean };

const fields = [["prompt"], ["answer_nodes", "answer"], ["problem_type"]] as const;

const schema = z
  .looseObject({
    prompt: z.string().min(1),
    answer_nodes: listOfStrings.optional(),
    answer: listOfStrings.optional(),
    problem_type: z.string(),
    date_added: z.string().nullish(),
  })
  .transform(({ prompt, answer_nodes: nodes, answer, problem_type: kind, date_added: added }) => ({
    prompt,
    nodes: nodes ?? answer ?? [],
    kind: kind.toLowerCase(),
    added: added ?? undefined,
  }));

/** @throws InputError for data that cannot be read or has no record of the tasks */
export async function openGraphwalksRecords(
  tasks: readonly GraphwalksTask[],
  data: string,
  options: RecordOptions,
): Promise<Suite> {
  const { files, leftOut } = await openDataSet(data, { takesText: false, split: options.split });
  await requireWhole(files, options.signal);
  const others = describeLeftOut(leftOut);
  const bad = new BadRecords(options.skipBad ?? false);
  return {
    name: "graphwalks",
    version: GRAPHWALKS_VERSION,
    tasks,
    skipped: [],
    notes: ["Prompts are those of --data, as they are", ...(others === undefined ? [] : [others])],
    bad: bad.list,
    items: () => readItems(files, tasks, data, bad, options),
  };
}

async function* readItems(
  files: readonly RecordFile[],
  tasks: readonly GraphwalksTask[],
  data: string,
  bad: BadRecords,
  { limit = Number.POSITIVE_INFINITY, signal }: RecordOptions,
): AsyncGenerator<EvalItem> {
  bad.clear();
  const counts = new Map(tasks.map((task) => [task, 0]));
  let others = 0;
  for (const file of files) {
    for await (const { where, fields: record } of checkRecords(file.records(), schema, fields, bad)) {
      signal?.throwIfAborted();
      if (record.kind !== "bfs" && record.kind !== "parents") {
        bad.report(where, '"problem_type": expected "bfs" or "parents"');
        continue;
      }
      const task = tasks.find(({ kind }) => kind === record.kind);
      const index = task === undefined ? limit : (counts.get(task) ?? 0);
      if (task === undefined) others++;
      if (task === undefined || index >= limit) continue;
      counts.set(task, index + 1);
      yield toItem(task, String(index), record);
    }
  }
  if ([...counts.values()].some((count) => count > 0)) return;
  if (others > 0) {
    throw new InputError(`--data "${data}" has no record of ${tasks.map(({ name }) => name).join(", ")}`);
  }
  bad.refuseAll(`--data "${data}"`);
}

function toItem(task: GraphwalksTask, id: string, { prompt, nodes, added }: z.infer<typeof schema>): EvalItem {
  return {
    id,
    task: task.name,
    prompt: { user: prompt, answerPrefix: "", chat: true },
    references: nodes,
    goldAnswer: goldNodes(nodes),
    groups: { characters: sizeClass(prompt.length), ...(added === undefined ? {} : { added }) },
  };
}

/** The published files part at 128K characters; within them lengths go by powers of two. */
function sizeClass(characters: number): string {
  const thousands = 2 ** Math.max(2, Math.ceil(Math.log2(characters / 1024)));
  return `up to ${thousands}K`;
}
