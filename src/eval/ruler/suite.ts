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
import { type EnglishWords, readEnglishWords } from "./english-words.ts";
import { type Essays, readEssays } from "./essays.ts";
import { niahGenerator } from "./niah.ts";
import { type RulerOptions, rulerOptions } from "./options.ts";
import { type QuestionSet, questionGenerator, readHotpotQa, readSquad } from "./question-answering.ts";
import { goldAnswerAfter, RULER_VERSION, type RulerTask } from "./tasks.ts";
import { variableTrackingGenerators } from "./variable-tracking.ts";
import { commonWordsGenerators, frequentWordsGenerator } from "./word-lists.ts";

interface RulerData {
  essays?: Essays;
  squad?: QuestionSet;
  hotpotqa?: QuestionSet;
  englishWords?: EnglishWords;
}

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

async function readData(tasks: readonly RulerTask[], options: RulerOptions): Promise<RulerData> {
  const { essays, squad, hotpotqa, englishWords } = options;
  const needs = (flag: RulerTask["flag"]): boolean => tasks.some((task) => task.flag === flag);
  return {
    ...(essays !== undefined && needs("--essays") ? { essays: await readEssays(essays) } : {}),
    ...(squad !== undefined && needs("--squad") ? { squad: await readSquad(squad) } : {}),
    ...(hotpotqa !== undefined && needs("--hotpotqa") ? { hotpotqa: await readHotpotQa(hotpotqa) } : {}),
    ...(englishWords !== undefined && tasks.some(({ family }) => family === "cwe")
      ? { englishWords: await readEnglishWords(englishWords) }
      : {}),
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
  const given = { "--essays": data.essays, "--squad": data.squad, "--hotpotqa": data.hotpotqa };
  const tasks: RulerTask[] = [];
  const skipped: SkippedTask[] = [];
  for (const task of wanted) {
    if (task.flag === undefined || given[task.flag] !== undefined) tasks.push(task);
    else skipped.push({ task: task.name, reason: `needs ${task.flag}: ${dataNames[task.flag]}` });
  }
  const [first] = skipped;
  // A task that was asked for by name is not left out.
  if (first !== undefined && options.tasks !== undefined) {
    throw new UsageError(`RULER's ${first.task} ${first.reason}`);
  }
  return [tasks, skipped];
}

function describeData(tasks: readonly RulerTask[], { essays }: RulerData): string[] {
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
  const dataHash =
    task.flag === undefined
      ? task.family === "cwe"
        ? data.englishWords?.hash
        : undefined
      : { "--essays": data.essays, "--squad": data.squad, "--hotpotqa": data.hotpotqa }[task.flag]?.hash;
  const sets = openGenerators(task, { length, seed: asked.seed }, data, options).map((generator) => ({
    ...asked,
    benchmark: "RULER",
    version: RULER_VERSION,
    generator,
    steps,
    goldAnswer: ({ input, answerPrefix, outputs }: GeneratedSample) =>
      goldAnswerAfter(input + answerPrefix, task, outputs),
    dataHash,
  }));
  return sets.find(fits) ?? requireFit(sets);
}

/** The generator of a task, or several of them from RULER's own to the easiest. */
function openGenerators(
  task: RulerTask,
  settings: GeneratorSettings,
  { essays, squad, hotpotqa, englishWords }: RulerData,
  { counter, wrapperTokens = 0 }: RulerOptions,
): SampleGenerator[] {
  if (task.niah !== undefined) {
    const { haystack, ...niah } = task.niah;
    const given = haystack === "essay" ? essays : haystack;
    if (given !== undefined) return [niahGenerator({ ...niah, haystack: given }, settings)];
  }
  if (task.family === "vt") return variableTrackingGenerators(settings, (text) => counter.encode(text).length);
  if (task.family === "cwe") return commonWordsGenerators(settings, englishWords?.words);
  if (task.family === "fwe") {
    return [frequentWordsGenerator(settings, settings.length - wrapperTokens - task.maxNewTokens)];
  }
  if (task.family === "squad" && squad !== undefined) return [questionGenerator(squad, settings)];
  if (task.family === "hotpotqa" && hotpotqa !== undefined) return [questionGenerator(hotpotqa, settings)];
  throw new Error(`${task.name} has no generator`);
}
