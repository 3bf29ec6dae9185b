/**
 * The samples of one task and length. What costs time is finding out how many units fit, so that is what is remembered
 * on disk: a recipe of a few dozen bytes a sample. A sample is made from its recipe again and its hash compared; a
 * recipe that no longer makes the same sample is not used.
 */
import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { z } from "zod";
import { InputError } from "../../base/errors.ts";
import { hashBytes, makeFolder, writeFileAtomically } from "../../base/files.ts";
import { Random } from "../../base/random.ts";
import { attemptRead, readUserFile } from "../../base/user-files.ts";
import type { EvalItem, EvalTask, TokenCounter } from "../item.ts";
import { type Fit, FULL_ENOUGH, findLargest, fitSample, startOf } from "./fitting.ts";
import type { FillSteps, GeneratedSample, SampleGenerator } from "./generator.ts";
import { officialSample, officialStart } from "./official-steps.ts";

export interface SetSettings {
  /** Whose the task is: "RULER", for messages and the names of cached sets. */
  benchmark: string;
  /** Changes whenever a generator or a template does. */
  version: number;
  task: EvalTask;
  generator: SampleGenerator;
  /** Target length in tokens: wrapper, prompt, prefix and answer budget. */
  length: number;
  samples: number;
  seed: number;
  counter: TokenCounter;
  tokenizerHash: string;
  wrapperTokens: number;
  /** Tokens that a prompt may have: what wrapper and answer leave of the length, or of the window where that is less. */
  limit: number;
  steps: FillSteps;
  /** SHA-256 of the user's file that the task draws from, if it does. */
  dataHash?: string | undefined;
  cacheFolder?: string | undefined;
  signal?: AbortSignal | undefined;
  /** What a perfect model would say after the prompt, with the blank that leads it. */
  goldAnswer(sample: GeneratedSample): string;
}

const recipeSchema = z.object({
  units: z.int().min(1),
  /** Of the prompt alone. */
  tokens: z.int().min(1),
  hash: z.string(),
  tokens_before_answer: z.int().min(0).optional(),
});

const recipesSchema = z.object({
  kind: z.literal("indexcache-ruler-recipes"),
  key: z.string(),
  start: z.int().min(1),
  tokens_per_unit: z.number().positive(),
  samples: z.array(recipeSchema),
});

type Recipe = z.infer<typeof recipeSchema>;
type Recipes = z.infer<typeof recipesSchema>;

/** Whether the smallest prompt fits. */
export function fits(settings: SetSettings): boolean {
  return smallestFit(settings).tokens <= settings.limit;
}

/** Says that none of the sets of a task fits; the last has the smallest prompts. */
export function requireFit(sets: readonly SetSettings[]): never {
  const settings = sets.at(-1);
  if (settings === undefined) throw new RangeError("no set");
  const { benchmark, task, length, limit, wrapperTokens } = settings;
  const { tokens } = smallestFit(settings);
  if (limit < length - wrapperTokens - task.maxNewTokens) {
    throw new InputError(
      `${benchmark}'s ${task.name} does not fit: beside its answer the model's window leaves ${Math.max(0, limit)} tokens for a prompt, its smallest has ${tokens}`,
      { hint: "give fewer --max-new-tokens, or leave the task out with --tasks" },
    );
  }
  const wrapper = wrapperTokens > 0 ? `, BOS and chat template ${wrapperTokens}` : "";
  throw new InputError(
    `${benchmark}'s ${task.name} does not fit into ${length} tokens: its smallest prompt has ${tokens}, its answer ${task.maxNewTokens}${wrapper}`,
    {
      hint: `give --lengths of ${tokens + task.maxNewTokens + wrapperTokens} or more, or leave the task out with --tasks`,
    },
  );
}

function smallestFit(settings: SetSettings): Fit {
  const { smallest } = settings.generator;
  return { units: smallest, tokens: countTokens(settings, probe(settings, smallest)) };
}

/**
 * Questions whose own documents alone are too long, before the first one is asked. Those that a cache has are known to fit.
 * @throws InputError that says how many, and which length takes them all
 */
export async function requireFittingQuestions(settings: SetSettings): Promise<void> {
  const { benchmark, generator, task, length, limit, wrapperTokens, signal } = settings;
  if (generator.available === undefined) return;
  const known = (await readRecipes(cachePath(settings), settings))?.samples.length ?? 0;
  const tooLong: { index: number; tokens: number }[] = [];
  for (let index = known; index < sizeOf(settings); index++) {
    signal?.throwIfAborted();
    await setImmediate();
    const tokens = countTokens(settings, makeSample(settings, generator.smallest, index));
    if (tokens > limit) tooLong.push({ index, tokens });
  }
  const [first] = tooLong;
  if (first === undefined) return;
  const needed = Math.max(...tooLong.map(({ tokens }) => tokens)) + task.maxNewTokens + wrapperTokens;
  const fewer = first.index === 0 ? "" : `--samples ${first.index}, or `;
  throw new InputError(
    `${tooLong.length} of the ${sizeOf(settings)} questions of ${benchmark}'s ${task.name} do not fit into ${length} tokens, even with no documents but their own; the first is question ${first.index}, the longest needs ${needed}`,
    { hint: `give ${fewer}--lengths of ${needed} or more, or leave the task out with --tasks` },
  );
}

/** Says where the data ends before the length is full. Only generators whose data ends have to be looked at. */
export function describeEnd(settings: SetSettings): string[] {
  const { benchmark, generator, task, length, limit } = settings;
  const { largest, largestNote } = generator;
  // No list has fewer than four tokens for each of its words.
  if (largest === undefined || largestNote === undefined || limit <= 4 * largest) return [];
  const tokens = countTokens(settings, probe(settings, largest));
  if (tokens >= FULL_ENOUGH * limit) return [];
  return [
    `${benchmark}'s ${task.name} fills ${tokens} of the ${limit} tokens that ${length} has for its prompt: ${largestNote}`,
  ];
}

/** Samples of the set: as many as were asked for, or as there are questions. */
export function sizeOf({ samples, generator }: SetSettings): number {
  return Math.min(samples, generator.available ?? samples);
}

/** The samples in order. What was found out about them is kept even if the caller stops early. */
export async function* generateSet(settings: SetSettings): AsyncGenerator<EvalItem> {
  const { signal } = settings;
  const path = cachePath(settings);
  const recipes = (await readRecipes(path, settings)) ?? size(settings);
  const known = new Set(recipes.samples);
  try {
    for (let index = 0; index < sizeOf(settings); index++) {
      signal?.throwIfAborted();
      // A signal handler gets its turn between samples.
      await setImmediate();
      yield nextItem(settings, recipes, index);
    }
  } finally {
    const learned = recipes.samples.some((recipe) => !known.has(recipe));
    if (path !== undefined && learned) await writeFileAtomically(path, `${JSON.stringify(recipes)}\n`);
  }
}

function nextItem(settings: SetSettings, recipes: Recipes, index: number): EvalItem {
  const recipe = recipes.samples[index];
  if (recipe !== undefined) {
    const sample = makeSample(settings, recipe.units, index);
    if (hashSample(sample) === recipe.hash) return toItem(settings, sample, recipe, index);
    // Made by another version of the generator: what follows is of no use either.
    recipes.samples.length = index;
  }
  const [sample, found] = fitTo(settings, recipes, index);
  recipes.samples.push(found);
  return toItem(settings, sample, found, index);
}

function fitTo(settings: SetSettings, recipes: Recipes, index: number): [GeneratedSample, Recipe] {
  const { benchmark, generator, counter, task, length, limit } = settings;
  let made: { units: number; sample: GeneratedSample } | undefined;
  const count = (units: number): number => {
    made = { units, sample: makeSample(settings, units, index) };
    return countTokens(settings, made.sample);
  };
  const { officialSteps } = generator;
  const best =
    settings.steps === "official" && officialSteps !== undefined
      ? officialSample(count, recipes.start, officialSteps, generator.smallest, limit)
      : fitSample(count, { start: recipes.start, ...generator }, limit, recipes.tokens_per_unit);
  if (best === undefined) {
    throw new InputError(`Sample ${index} of ${benchmark}'s ${task.name} does not fit into ${length} tokens`, {
      hint: "give a longer --lengths, or leave the task out with --tasks",
    });
  }
  const sample = made?.units === best.units ? made.sample : makeSample(settings, best.units, index);
  const before = countBeforeAnswer(counter, sample, best.tokens);
  return [
    sample,
    {
      units: best.units,
      tokens: best.tokens,
      hash: hashSample(sample),
      tokens_before_answer: before,
    },
  ];
}

/** Tokens before the first answer, counted over the shorter side of it; a token that spans both may go to either. */
function countBeforeAnswer(
  counter: TokenCounter,
  { input, answerPrefix, answerAt }: GeneratedSample,
  tokens: number,
): number | undefined {
  if (answerAt === undefined) return undefined;
  if (answerAt < input.length / 2) return counter.encode(input.slice(0, answerAt)).length;
  return tokens - counter.encode(input.slice(answerAt) + answerPrefix).length;
}

/** One search for a task and length, on a sample that is in no set. */
function size(settings: SetSettings): Recipes {
  const { generator, limit, task, steps } = settings;
  const recipes = { kind: "indexcache-ruler-recipes", key: contentKey(settings), samples: [] } as const;
  const counted = (units: number): number => countTokens(settings, probe(settings, units));
  if (steps === "official" && generator.officialSteps !== undefined) {
    // RULER draws anew for each look, so that a lucky one decides.
    const drawn = (units: number): number => countTokens(settings, probe(settings, units, `probe/${units}`));
    const start = officialStart(drawn, generator.officialSteps, { limit, total: limit + task.maxNewTokens });
    return { ...recipes, samples: [], start: Math.min(start, generator.largest ?? start), tokens_per_unit: 1 };
  }
  const smallest = smallestFit(settings);
  const largest = findLargest(counted, smallest, limit, generator.largest);
  const grown = largest.units - smallest.units;
  return {
    ...recipes,
    samples: [],
    start: Math.max(generator.smallest, startOf(largest.units)),
    tokens_per_unit: grown === 0 ? smallest.tokens : Math.max(1e-3, (largest.tokens - smallest.tokens) / grown),
  };
}

function countTokens({ counter }: SetSettings, { input, answerPrefix }: GeneratedSample): number {
  return counter.encode(input + answerPrefix).length;
}

function makeSample(settings: SetSettings, units: number, index: number): GeneratedSample {
  const { generator, task, length, seed } = settings;
  return generator.make(Random.forPart(seed, `${task.name}/${length}/${index}`), units, index);
}

/** A sample outside the set; RULER's QA too searches with the first question. */
function probe({ generator, task, length, seed }: SetSettings, units: number, name = "probe"): GeneratedSample {
  return generator.make(Random.forPart(seed, `${task.name}/${length}/${name}`), units, 0);
}

function hashSample({ input, answerPrefix }: GeneratedSample): string {
  return hashBytes(input + answerPrefix).slice(0, 32);
}

function toItem(
  { task, length, wrapperTokens, goldAnswer }: SetSettings,
  sample: GeneratedSample,
  recipe: Recipe,
  index: number,
): EvalItem {
  const { tokens, tokens_before_answer: before } = recipe;
  return {
    id: String(index),
    task: task.name,
    length,
    prompt: { user: sample.input, answerPrefix: sample.answerPrefix, chat: true },
    references: sample.outputs,
    goldAnswer: goldAnswer(sample),
    cluster: sample.cluster,
    depth: before === undefined ? undefined : { tokens: before, share: before / tokens },
    fill: Math.min(1, (tokens + wrapperTokens + task.maxNewTokens) / length),
  };
}

/** All that decides the samples but their number: a larger set begins with the smaller one. */
function contentKey(settings: SetSettings): string {
  const { version, task, length, seed, tokenizerHash, wrapperTokens, dataHash, limit, steps } = settings;
  const of = [version, task.name, task.version, length, seed, tokenizerHash, wrapperTokens, dataHash ?? ""];
  const parts = [...of, limit, steps];
  return hashBytes(JSON.stringify(parts));
}

/**
 * Makes sure that sets can be remembered, before hours of work rather than after.
 * @throws InputError where the folder cannot be made or written
 */
export async function requireCacheFolder(folder: string): Promise<void> {
  const noun = `cache folder "${folder}"`;
  await makeFolder(folder, { what: `Cannot use ${noun}` });
  await attemptRead(noun, () => access(folder, constants.W_OK), { verb: "use" });
}

function cachePath(settings: SetSettings): string | undefined {
  const { benchmark, cacheFolder, task, length } = settings;
  if (cacheFolder === undefined) return undefined;
  return join(
    cacheFolder,
    `${benchmark.toLowerCase()}-${task.name}-${length}-${contentKey(settings).slice(0, 16)}.json`,
  );
}

/** Recipes of a cache are made anew where anything is odd about them: nothing but time is lost. */
async function readRecipes(path: string | undefined, settings: SetSettings): Promise<Recipes | undefined> {
  if (path === undefined) return undefined;
  try {
    const recipes = recipesSchema.parse(JSON.parse((await readUserFile(path, `"${path}"`)).toString()));
    return recipes.key === contentKey(settings) ? recipes : undefined;
  } catch {
    return undefined;
  }
}
