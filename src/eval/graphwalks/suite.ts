/** GraphWalks as a suite: graphs that are generated, or the user's copy of openai/graphwalks. */
import { FEWEST_EDGES, graphWalk } from "../../corpus/graph-walks.ts";
import { fits, generateSet, requireCacheFolder, requireFit, type SetSettings } from "../generated/generated-set.ts";
import type { SampleGenerator } from "../generated/generator.ts";
import { DEFAULT_SAMPLES, DEFAULT_SEED, targetLengths } from "../generated/target-lengths.ts";
import type { EvalItem, Suite } from "../item.ts";
import { chooseTasks, dataOptions, defineSuite, generatedOptions } from "../suite-definition.ts";
import { withBudget } from "../token-budget.ts";
import { openGraphwalksRecords, type RecordOptions } from "./records.ts";
import {
  GENERATED_ANSWER_TOKENS,
  GRAPHWALKS_VERSION,
  type GraphwalksTask,
  goldNodes,
  graphwalksTasks,
  PUBLISHED_ANSWER_TOKENS,
} from "./tasks.ts";

export type GraphwalksOptions = RecordOptions & { lengths?: readonly number[]; samples?: number };

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
    total: sets.reduce((total, { samples }) => total + samples, 0),
    bad: [],
    async *items(): AsyncGenerator<EvalItem> {
      for (const set of sets) yield* generateSet(set);
    },
  };
}

function describeSet(task: GraphwalksTask, length: number, options: GraphwalksOptions): SetSettings {
  const { counter, tokenizerHash, wrapperTokens = 0, limit, cacheFolder, signal } = options;
  const { seed = DEFAULT_SEED, samples = DEFAULT_SAMPLES, window = Number.POSITIVE_INFINITY } = options;
  const room = Math.min(length - task.maxNewTokens, window - withBudget(task, options).maxNewTokens);
  return {
    benchmark: "GraphWalks",
    version: GRAPHWALKS_VERSION,
    task,
    generator: walkGenerator(task),
    length,
    samples: Math.min(samples, limit ?? samples),
    seed,
    counter,
    tokenizerHash,
    wrapperTokens,
    limit: room - wrapperTokens,
    steps: "fine",
    goldAnswer: ({ outputs }) => goldNodes(outputs),
    ...(cacheFolder === undefined ? {} : { cacheFolder }),
    ...(signal === undefined ? {} : { signal }),
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
