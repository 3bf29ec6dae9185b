/** LongBench v1 and LongBench-E as suites over the user's files. */

import { UsageError } from "../../base/errors.ts";
import { hashBytes } from "../../base/files.ts";
import { withoutUndefined } from "../../base/without-undefined.ts";
import type { EvalItem, SkippedTask, Suite } from "../item.ts";
import { openRecordSuite } from "../records/record-suite.ts";
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
  const { data, codeRatio = longbenchOptions.codeRatio.default } = options;
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
  const suite = await openRecordSuite(
    {
      name,
      version: LONGBENCH_VERSION,
      notes:
        codeRatio === "indel" ? ["Code tasks are scored with --code-ratio indel, not as the official set-up does"] : [],
      tasks: scorable,
      schema: longbenchSchema,
      required: longbenchFields,
      taskOfFile: (file) => taskOfFile(file.name, all, edition),
      taskOfRow: ({ dataset }) => (typeof dataset === "string" ? dataset : undefined),
      taskField: "dataset",
      naming: `files are named after their task, such as hotpotqa${edition === "e" ? "_e" : ""}.jsonl, or each record names it as "dataset"`,
      notesOn: ({ tasks }) => describeRoom(tasks, options),
      idOf: ({ id }) => id,
      problemOf: whyBad,
      item: (task, id, record) => toItem(task, id, record, edition, options),
    },
    data,
    options,
  );
  return { ...suite, skipped: [...skipped, ...suite.skipped] };
}

/** No task's name: what is named so is not read. */
const OTHER_EDITION = "a task of the other edition";

/** The task that a file is named after: `hotpotqa.jsonl`, `data/hotpotqa_e.jsonl`, `hotpotqa/test-00000.parquet`. */
function taskOfFile(path: string, tasks: readonly LongbenchTask[], edition: "v1" | "e"): string | undefined {
  for (const part of path.split("/").reverse()) {
    const name = part.replace(/\..*$/, "");
    const task = tasks.find((one) => name === one.name || (one.inE && name === `${one.name}_e`));
    if (task !== undefined) return (name === task.name) === (edition === "v1") ? task.name : OTHER_EDITION;
  }
  return undefined;
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
