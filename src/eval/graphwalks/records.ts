/** The user's copy of openai/graphwalks. */

import { z } from "zod";
import { withoutUndefined } from "../../base/without-undefined.ts";
import type { EvalItem, Suite } from "../item.ts";
import { listOfStrings } from "../records/columns.ts";
import { openRecordSuite, type RecordOptions } from "../records/record-suite.ts";
import { GRAPHWALKS_VERSION, type GraphwalksTask, goldNodes } from "./tasks.ts";

const kinds = ["bfs", "parents"];
const fields = [["prompt"], ["answer_nodes", "answer"], ["problem_type"]] as const;

const schema = z
  .looseObject({
    prompt: z.string().min(1),
    answer_nodes: listOfStrings.optional(),
    answer: listOfStrings.optional(),
    problem_type: z.string().refine((kind) => kinds.includes(kind.toLowerCase()), 'expected "bfs" or "parents"'),
    date_added: z.string().nullish(),
  })
  .transform(({ prompt, answer_nodes: nodes, answer, date_added: added }) => ({
    prompt,
    nodes: nodes ?? answer ?? [],
    added: added ?? undefined,
  }));

/** @throws InputError for data that cannot be read or has no record of the tasks */
export function openGraphwalksRecords(
  tasks: readonly GraphwalksTask[],
  data: string,
  options: RecordOptions,
): Promise<Suite> {
  return openRecordSuite(
    {
      name: "graphwalks",
      version: GRAPHWALKS_VERSION,
      notes: ["Prompts are those of --data, as they are"],
      tasks,
      schema,
      required: fields,
      taskOfRow: ({ problem_type: type }) => {
        const kind = String(type).toLowerCase();
        return kinds.includes(kind) ? `graphwalks_${kind}` : undefined;
      },
      item: toItem,
    },
    data,
    options,
  );
}

function toItem(task: GraphwalksTask, id: string, { prompt, nodes, added }: z.infer<typeof schema>): EvalItem {
  return {
    id,
    task: task.name,
    prompt: { user: prompt, answerPrefix: "", chat: true },
    references: nodes,
    goldAnswer: goldNodes(nodes),
    groups: withoutUndefined({ characters: sizeClass(prompt.length), added }),
  };
}

/** The published files part at 128K characters; within them lengths go by powers of two. */
function sizeClass(characters: number): string {
  const thousands = 2 ** Math.max(2, Math.ceil(Math.log2(characters / 1024)));
  return `up to ${thousands}K`;
}
