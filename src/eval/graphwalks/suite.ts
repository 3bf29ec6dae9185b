/** GraphWalks as a suite: graphs that are generated, or the user's copy of openai/graphwalks. */

import { fits, requireCacheFolder, requireFit, type SetSettings } from "../generated/generated-set.ts";
import { askedSet, itemsOf } from "../generated/generated-suite.ts";
import type { SampleGenerator } from "../generated/generator.ts";
import { targetLengths } from "../generated/target-lengths.ts";
import type { Suite } from "../item.ts";
import type { RecordOptions } from "../records/record-suite.ts";
import { chooseTasks, dataOptions, defineSuite, generatedOptions } from "../suite-definition.ts";
import { FEWEST_EDGES, graphWalk } from "./graph-walks.ts";
import { openGraphwalksRecords } from "./records.ts";
import {
  GENERATED_ANSWER_TOKENS,
  GRAPHWALKS_VERSION,
  type GraphwalksTask,
  goldNodes,
  graphwalksTasks,
  PUBLISHED_ANSWER_TOKENS,
} from "./tasks.ts";

type GraphwalksOptions = RecordOptions & { lengths?: readonly number[]; samples?: number };

export const graphwalksSuite = defineSuite({
  name: "graphwalks",
  help: "walks over a graph of edges (BFS, parents): generated, or openai/graphwalks by --data",
  options: { ...generatedOptions, ...dataOptions },
  offline: true,
  list: () => graphwalksTasks(GENERATED_ANSWER_TOKENS).map((task) => ({ task, data: "nothing, or --data" })),
  tasks: () => graphwalksTasks(PUBLISHED_ANSWER_TOKENS),
  open(options) {
    const tokens = options.data === undefined ? GENERATED_ANSWER_TOKENS : PUBLISHED_ANSWER_TOKENS;
    const tasks = chooseTasks(graphwalksTasks(tokens), "graphwalks", options);
    return options.data === undefined
      ? openGenerated(tasks, options)
      : openGraphwalksRecords(tasks, options.data, options);
  },
});

async function openGenerated(tasks: readonly GraphwalksTask[], options: GraphwalksOptions): Promise<Suite> {
  const lengths = targetLengths(options);
  if (options.cacheFolder !== undefined) await requireCacheFolder(options.cacheFolder);
  const sets = lengths.flatMap((length) => tasks.map((task) => describeSet(task, length, options)));
  for (const set of sets) if (!fits(set)) requireFit([set]);
  return {
    name: "graphwalks",
    version: GRAPHWALKS_VERSION,
    tasks,
    skipped: [],
    notes: ["Graphs are generated: scores compare arms, not with those published of openai/graphwalks"],
    ...itemsOf(sets),
  };
}

function describeSet(task: GraphwalksTask, length: number, options: GraphwalksOptions): SetSettings {
  return {
    ...askedSet(task, length, options),
    benchmark: "GraphWalks",
    version: GRAPHWALKS_VERSION,
    generator: walkGenerator(task),
    steps: "fine",
    goldAnswer: ({ outputs }) => goldNodes(outputs),
  };
}

/** Units are edges. */
function walkGenerator({ kind }: GraphwalksTask): SampleGenerator {
  return {
    smallest: FEWEST_EDGES,
    make(random, edges) {
      const { prompt, answer } = graphWalk(random, edges, kind);
      return { input: prompt, answerPrefix: "", outputs: answer };
    },
  };
}
