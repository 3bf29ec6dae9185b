/** RULER as a suite: its tasks, their data, and their samples length by length. */
import { UsageError } from "../../base/errors.ts";
import {
  describeEnd,
  fits,
  requireCacheFolder,
  requireFit,
  requireFittingQuestions,
  type SetSettings,
  sizeOf,
} from "../generated/generated-set.ts";
import { askedSet, itemsOf } from "../generated/generated-suite.ts";
import type { GeneratedSample, GeneratorSettings, SampleGenerator } from "../generated/generator.ts";
import { targetLengths } from "../generated/target-lengths.ts";
import type { SkippedTask, Suite } from "../item.ts";
import { chooseTasks, defineSuite } from "../suite-definition.ts";
import { readEnglishWords } from "./english-words.ts";
import { readEssays } from "./essays.ts";
import { niahGenerator } from "./niah.ts";
import { type RulerOptions, rulerOptions } from "./options.ts";
import { openPreparedRuler } from "./prepared.ts";
import { questionGenerator, readHotpotQa, readSquad } from "./question-answering.ts";
import { coreTasks, goldAnswerAfter, RULER_VERSION, type RulerTask, rulerTasks } from "./tasks.ts";
import { variableTrackingGenerators } from "./variable-tracking.ts";
import { commonWordsGenerators, frequentWordsGenerator } from "./word-lists.ts";

type RulerData = Awaited<ReturnType<typeof readData>>;

/**
 * A suite of generated samples.
 * @throws InputError for data that cannot be read and for a task that does not fit into one of the lengths
 */
export async function openGeneratedRuler(
  name: string,
  wanted: readonly RulerTask[],
  options: RulerOptions,
): Promise<Suite> {
  const lengths = targetLengths(options);
  if (options.cacheFolder !== undefined) await requireCacheFolder(options.cacheFolder);
  const data = await readData(wanted, options);
  const [tasks, skipped] = separate(wanted, data, options);
  const sets = lengths.flatMap((length) => tasks.map((task) => describeSet(task, length, data, options)));
  for (const set of sets) await requireFittingQuestions(set);
  return {
    name,
    version: RULER_VERSION,
    tasks,
    skipped,
    notes: [...describeData(tasks, data), ...describeSets(sets)],
    ...itemsOf(sets),
  };
}

/** What the tasks draw from, as far as it was given. */
async function readData(tasks: readonly RulerTask[], { essays, squad, hotpotqa, englishWords }: RulerOptions) {
  const read = <T>(
    path: string | undefined,
    from: (path: string) => Promise<T>,
    needs: (task: RulerTask) => boolean,
  ) => (path === undefined || !tasks.some(needs) ? undefined : from(path));
  return {
    "--essays": await read(essays, readEssays, ({ flag }) => flag === "--essays"),
    "--squad": await read(squad, readSquad, ({ flag }) => flag === "--squad"),
    "--hotpotqa": await read(hotpotqa, readHotpotQa, ({ flag }) => flag === "--hotpotqa"),
    "--english-words": await read(englishWords, readEnglishWords, ({ family }) => family === "cwe"),
  };
}

const dataNames = {
  "--essays": "PaulGrahamEssays.json, a folder of .txt files or any text",
  "--squad": "SQuAD's dev-v2.0.json",
  "--hotpotqa": "HotpotQA's hotpot_dev_distractor_v1.json",
} as const;

function separate(
  wanted: readonly RulerTask[],
  data: RulerData,
  options: RulerOptions,
): [tasks: RulerTask[], skipped: SkippedTask[]] {
  const tasks: RulerTask[] = [];
  const skipped: SkippedTask[] = [];
  for (const task of wanted) {
    if (task.flag === undefined || data[task.flag] !== undefined) tasks.push(task);
    else skipped.push({ task: task.name, reason: `needs ${task.flag}: ${dataNames[task.flag]}` });
  }
  const [first] = skipped;
  // A task that was asked for by name is not left out.
  if (first !== undefined && options.tasks !== undefined) {
    throw new UsageError(`RULER's ${first.task} ${first.reason}`);
  }
  return [tasks, skipped];
}

function describeData(tasks: readonly RulerTask[], { "--essays": essays }: RulerData): string[] {
  if (essays === undefined || essays.published || !tasks.some(({ flag }) => flag === "--essays")) return [];
  return ["The essay tasks use a text of your own: their scores do not compare with published RULER"];
}

function describeSets(sets: readonly SetSettings[]): string[] {
  const simplified = sets.flatMap(({ task, length, generator }) =>
    generator.simplified === undefined
      ? []
      : [`RULER's ${task.name} does not fit into ${length} tokens as it is: it ${generator.simplified}`],
  );
  const short = sets
    .filter((set) => sizeOf(set) < set.samples)
    .map((set) => `${set.task.name} has ${sizeOf(set)} questions, fewer than the ${set.samples} samples asked for`);
  const official = sets.some(({ steps }) => steps === "official")
    ? ["Prompts are sized with the steps of RULER's own generator (--steps official)"]
    : [];
  return [...simplified, ...new Set(short), ...sets.flatMap(describeEnd), ...official];
}

/** The set of a task and length, with the first of its generators that fits. */
function describeSet(task: RulerTask, length: number, data: RulerData, options: RulerOptions): SetSettings {
  const { steps = rulerOptions.steps.default } = options;
  const asked = askedSet(task, length, options);
  const source = task.family === "cwe" ? "--english-words" : task.flag;
  const sets = openGenerators(task, { length, seed: asked.seed }, data, options).map((generator) => ({
    ...asked,
    benchmark: "RULER",
    version: RULER_VERSION,
    generator,
    steps,
    goldAnswer: ({ input, answerPrefix, outputs }: GeneratedSample) =>
      goldAnswerAfter(input + answerPrefix, task, outputs),
    dataHash: source && data[source]?.hash,
  }));
  return sets.find(fits) ?? requireFit(sets);
}

/** The generator of a task, or several of them from RULER's own to the easiest. */
function openGenerators(
  task: RulerTask,
  settings: GeneratorSettings,
  data: RulerData,
  { counter, wrapperTokens = 0 }: RulerOptions,
): SampleGenerator[] {
  const given = task.flag && data[task.flag];
  if (task.niah !== undefined) {
    const haystack = given !== undefined && "hide" in given ? given : task.niah.haystack;
    if (haystack !== "essay") return [niahGenerator({ ...task.niah, haystack }, settings)];
  }
  if (given !== undefined && "questions" in given) return [questionGenerator(given, settings)];
  if (task.family === "vt") return variableTrackingGenerators(settings, (text) => counter.encode(text).length);
  if (task.family === "cwe") return commonWordsGenerators(settings, data["--english-words"]?.words);
  if (task.family === "fwe") {
    return [frequentWordsGenerator(settings, settings.length - wrapperTokens - task.maxNewTokens)];
  }
  throw new Error(`${task.name} has no generator`);
}

function open(name: string, all: readonly RulerTask[], options: RulerOptions): Promise<Suite> {
  const tasks = chooseTasks(all, name, options);
  return options.data === undefined
    ? openGeneratedRuler(name, tasks, options)
    : openPreparedRuler(name, tasks, options.data, options);
}

export const rulerCoreSuite = defineSuite({
  name: "ruler-core",
  help: "RULER's six tasks that need no data: needles, variable tracking, word counts",
  options: rulerOptions,
  offline: true,
  list: () => coreTasks.map((task) => ({ task, data: "nothing" })),
  tasks: () => [...rulerTasks],
  open: (options) => open("ruler-core", coreTasks, options),
});

export const rulerSuite = defineSuite({
  name: "ruler",
  help: "all thirteen tasks of RULER; seven need --essays, --squad or --hotpotqa",
  options: rulerOptions,
  list: () => rulerTasks.map((task) => ({ task, data: task.flag ?? "nothing" })),
  tasks: () => [...rulerTasks],
  open: (options) => open("ruler", rulerTasks, options),
});
