/** Samples of a journal, paired and scored again: no model, no data. */
import { InputError } from "../../base/errors.ts";
import type { Sample } from "../../formats/sample-journal.ts";
import { parsePattern } from "../../pattern/pattern.ts";
import type { EvalItem, EvalTask } from "../item.ts";
import type { Arm } from "./evaluation.ts";
import { armKey, itemKey, SampleMemo } from "./sample-memo.ts";

export interface SavedSamples {
  arms: Arm[];
  /** Samples of each item in the order of the arms, items in the order of the file. */
  items: Sample[][];
  tasks: EvalTask[];
  /** Items that an arm has no sample of, as an interrupted run leaves them. */
  unpaired: number;
}

/**
 * @param baseline moves the arm of this pattern to the front; without it the first one of the file is the baseline
 * @param known tasks of the suite that the samples are of
 * @throws InputError for a file without samples, a task that is not known, samples of one item with different prompts
 */
export function pairSaved(
  path: string,
  samples: readonly Sample[],
  known: readonly EvalTask[],
  baseline?: string,
): SavedSamples {
  if (samples.length === 0) throw new InputError(`Samples file "${path}" has no samples`);
  const tasks = new Map<string, EvalTask>();
  for (const { task: name } of samples) {
    const task = tasks.get(name) ?? known.find((one) => one.name === name);
    if (task === undefined)
      throw new InputError(`Samples file "${path}" has samples of task "${name}", which is unknown`);
    tasks.set(name, task);
  }
  const arms = armsOf(path, samples, baseline);
  const memo = new SampleMemo(samples);
  const keys = new Set<string>();
  const items: Sample[][] = [];
  let unpaired = 0;
  for (const sample of samples) {
    const key = itemKey(sample);
    if (keys.has(key)) continue;
    keys.add(key);
    const found = arms.flatMap((arm) => memo.find(sample, arm) ?? []);
    if (found.length < arms.length) {
      unpaired++;
      continue;
    }
    if (found.some(({ prompt_sha256: hash }) => hash !== sample.prompt_sha256)) {
      throw new InputError(
        `Samples file "${path}": the arms were given different prompts for item "${sample.id}" of ${sample.task}`,
      );
    }
    items.push(found.map((one) => rescored(one, tasks.get(one.task) as EvalTask)));
  }
  return { arms, items, tasks: [...tasks.values()], unpaired };
}

/**
 * The samples of runs of one model that drew their items with different seeds, as those of one run.
 * @throws InputError where two of them have an item in common
 */
export function poolSeeds(runs: readonly { path: string; seed: string; entries: readonly Sample[] }[]): Sample[] {
  const runOf = new Map<string, number>();
  const askedBy = new Map<string, Set<number>>();
  const question = ({ task, length, id, item }: Sample): string => JSON.stringify([task, length, id, item.references]);
  for (const [run, { path, entries }] of runs.entries()) {
    for (const sample of entries) {
      const prompt = JSON.stringify([sample.task, sample.prompt_sha256]);
      const first = runOf.get(prompt) ?? run;
      if (first !== run) {
        throw new InputError(
          `Samples files "${runs[first]?.path}" and "${path}" both have the prompt of item "${sample.id}" of ${sample.task}: runs are pooled where each has items of its own`,
          { hint: "generated suites draw other items under another --seed, records of --data are the same under each" },
        );
      }
      runOf.set(prompt, run);
      askedBy.set(question(sample), (askedBy.get(question(sample)) ?? new Set()).add(run));
    }
  }
  return runs.flatMap(({ seed, entries }) =>
    entries.map((sample) => {
      // RULER's question answering asks the same questions under every seed, among other documents.
      const isAskedAgain = (askedBy.get(question(sample))?.size ?? 0) > 1;
      const cluster = sample.item.cluster ?? (isAskedAgain ? question(sample) : undefined);
      return { ...sample, id: `${sample.id} of seed ${seed}`, item: { ...sample.item, cluster } };
    }),
  );
}

function armsOf(path: string, samples: readonly Sample[], baseline: string | undefined): Arm[] {
  const arms = new Map<string, Arm>();
  for (const { arm } of samples) {
    arms.set(armKey(arm), arms.get(armKey(arm)) ?? { ...arm, pattern: parsePattern(arm.pattern, `"${path}"`) });
  }
  const all = [...arms.values()];
  if (baseline === undefined) return all;
  const first = all.find(({ pattern, name }) => pattern === baseline || name === baseline);
  if (first === undefined) {
    const names = all.map(({ name, pattern }) => `${name} (${pattern})`).join(", ");
    throw new InputError(`Samples file "${path}" has no arm "${baseline}": it has ${names}`);
  }
  return [first, ...all.filter((arm) => arm !== first)];
}

function rescored(sample: Sample, task: EvalTask): Sample {
  if (sample.finish === "too-long") return sample;
  return { ...sample, score: task.score(sample.output, savedItem(sample)) };
}

/** The item as far as a scorer looks at it. */
function savedItem({ id, task, length, item }: Sample): EvalItem {
  return {
    id,
    task,
    length,
    prompt: { user: "", answerPrefix: "", chat: false },
    references: item.references,
    goldAnswer: item.gold_answer,
    requiredStart: item.required_start,
    choices: item.choices,
    classes: item.classes,
    groups: item.groups,
  };
}
