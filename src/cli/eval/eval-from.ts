/** `eval --from`: a result without a model, from saved samples (scored again) or from a result file. */

import process from "node:process";
import { InputError } from "../../base/errors.ts";
import { counted } from "../../base/quantities.ts";
import { quoted } from "../../base/quoted.ts";
import { openUserFile } from "../../base/user-files.ts";
import type { EvalTask, SuiteSection } from "../../eval/item.ts";
import { pairSaved, poolSeeds } from "../../eval/run/saved-samples.ts";
import { suiteNamed, suiteTasks } from "../../eval/suites.ts";
import { type EvalResult, readEvalResult } from "../../formats/eval-result.ts";
import {
  differencesOfRuns,
  readSamples,
  SAMPLES_KIND,
  type Sample,
  type SampleFingerprint,
} from "../../formats/sample-journal.ts";
import { evalRecord } from "../../report/eval/eval-record.ts";
import { runtimeName } from "../../runtime/session/runtime-name.ts";
import { type GivenOption, requireOnly } from "../arguments/given-options.ts";
import { recordedCommand } from "../console/interruption.ts";
import type { Terminal } from "../console/terminal.ts";
import { type EvalFlags, statisticsOf } from "./eval-options.ts";
import { scoringAttributes, scoringSettings } from "./suite-flags.ts";

/** Enough of a file to know a header by. */
const HEADER_BYTES = 200;

/** What is another one where the model is. */
const ofModel = ["model_config_hash", "weight_hash"];

/** Where a result goes and how it is printed. */
const outputOptions = ["from", "output", "json", "markdown", "junit", "failOn", "verbose", "quiet"];
/** What decides scores and verdicts of samples that are there. */
const scoringOptions = ["baseline", "margin", "alpha", "seed", ...scoringAttributes()];
const scoringWords = "--baseline, --margin, --alpha, --seed, --code-ratio and --empty-outputs";

/** @param paths a result file, or samples files: those of several models are paired item by item, those of several seeds pooled */
export async function resultFromFiles(
  paths: readonly string[],
  flags: EvalFlags,
  given: readonly GivenOption[],
  terminal: Terminal,
): Promise<EvalResult> {
  const [path = ""] = paths;
  for (const each of paths) {
    if ((await readStart(each)).includes(SAMPLES_KIND)) continue;
    if (paths.length > 1) {
      throw new InputError(`"${each}" is no samples file: only samples can be compared with others`, {
        hint: `the samples of a result are beside it: ${each}.samples.jsonl`,
      });
    }
    requireOnly(
      given,
      new Set(outputOptions),
      "--from prints the result of a file as it was computed",
      `samples can be scored again: --from ${path}.samples.jsonl takes ${scoringWords}`,
    );
    return readEvalResult(path);
  }
  requireOnly(
    given,
    new Set([...outputOptions, ...scoringOptions]),
    "--from scores samples that are there and runs nothing",
    `it takes ${scoringWords}`,
  );
  const { fingerprint, entries, notes } = await readAll(paths);
  const baseline = given.some(({ attribute }) => attribute === "baseline") ? flags.baseline : undefined;
  const suite = suiteNamed(fingerprint.suite);
  const known = await suiteTasks(suite, flags);
  const source = paths.join('", "');
  const { arms, items, tasks, unpaired } = pairSaved(source, entries, known, baseline);
  if (unpaired > 0) terminal.warn(`${counted(unpaired, "item")} left out: an arm has no sample of them`);
  if (items.length === 0) throw new InputError(`Samples file "${source}" has no item that every arm has answered`);
  for (const { name, version } of tasks) {
    const then = entries.find(({ task, task_version: asked }) => task === name && asked !== version)?.task_version;
    if (then !== undefined)
      terminal.warn(`task ${name} was version ${then} when it was asked, it is scored as version ${version}`);
  }
  return evalRecord({
    fingerprint: {
      ...fingerprint,
      settings: { ...fingerprint.settings, ...scoringSettings(suite, flags) },
    },
    described: { scored_from: paths.join(", ") },
    arms,
    tasks,
    ...sectionsOf(items, tasks),
    items,
    statistics: statisticsOf(flags),
    notes,
    skipped: [],
    bad: [],
    wallSeconds: 0,
    runtime: runtimeName,
    command: recordedCommand(process.argv),
  });
}

interface SavedRuns {
  /** Of the first file. */
  fingerprint: SampleFingerprint;
  entries: Sample[];
  /** Which weights the arms of each file ran on, where there are several. */
  notes: string[];
}

/** @throws InputError for files that were not asked the same way */
async function readAll(paths: readonly string[]): Promise<SavedRuns> {
  const runs = [];
  for (const path of paths) {
    const saved = await readSamples(path);
    if (saved === undefined) throw new InputError(`Samples file "${path}" has no whole line`);
    runs.push({ path, ...saved });
  }
  const [first] = runs;
  if (first === undefined) throw new RangeError("no samples file");
  if (runs.length === 1) return { ...first, notes: [] };
  const differing = runs.map(({ fingerprint }) => differencesOfRuns(first.fingerprint, fingerprint));
  const isOneModel = !differing.flat().some((name) => ofModel.includes(name));
  const allowed = isOneModel ? ["settings.seed"] : ofModel;
  for (const [index, names] of differing.entries()) {
    const name = names.find((one) => !allowed.includes(one));
    if (name === undefined) continue;
    throw new InputError(
      `Samples files "${first.path}" and "${runs[index]?.path}" were not asked the same way: ${name} differs`,
      {
        hint: "arms are paired where only the models differ, and items pooled where only the seeds do: run eval with the same options on both",
      },
    );
  }
  if (differing.flat().includes("settings.seed")) return pooled(first.fingerprint, runs);
  const repeats = new Map<string, number>();
  const names = namesOfRuns(runs.map(({ fingerprint }) => fingerprint.model_name));
  const entries = runs.flatMap(({ entries: own }, index) => {
    const before = new Map(repeats);
    return own.map((sample) => {
      const { name, pattern, repeat } = sample.arm;
      const fresh = repeat + (before.get(pattern) ?? 0);
      repeats.set(pattern, Math.max(repeats.get(pattern) ?? 0, fresh + 1));
      return { ...sample, arm: { name: `${name} of ${names[index]}`, pattern, repeat: fresh } };
    });
  });
  const notes = runs.map(
    ({ path, fingerprint }, index) =>
      `arms of ${names[index]}: weights ${fingerprint.weight_hash.slice(0, 12)}, from ${quoted(path)}`,
  );
  return { fingerprint: first.fingerprint, entries, notes };
}

/** Runs of one model on items of their own, as one run. */
function pooled(
  fingerprint: SampleFingerprint,
  runs: readonly ({ path: string } & Omit<SavedRuns, "notes">)[],
): SavedRuns {
  const seeded = runs.map((run) => ({ ...run, seed: String(run.fingerprint.settings.seed) }));
  const seed = seeded.map((run) => run.seed).join(", ");
  return {
    fingerprint: { ...fingerprint, settings: { ...fingerprint.settings, seed } },
    entries: poolSeeds(seeded),
    notes: seeded.map((run) => `items of seed ${run.seed} from ${quoted(run.path)}`),
  };
}

/** Names of the models, with numbers where several have one. */
function namesOfRuns(models: readonly string[]): string[] {
  return models.map((model, index) => {
    const earlier = models.slice(0, index).filter((other) => other === model).length;
    return earlier === 0 ? model : `${model} (${earlier + 1})`;
  });
}

/** Samples of joined suites name theirs. */
function sectionsOf(items: readonly Sample[][], tasks: readonly EvalTask[]): { sections?: SuiteSection[] } {
  const sections = new Map<string, SuiteSection & { tasks: string[] }>();
  for (const [first] of items) {
    const name = first?.item.groups?.suite;
    const task = tasks.find((one) => one.name === first?.task);
    if (name === undefined || task === undefined) continue;
    const section = sections.get(name) ?? { name, version: task.version, tasks: [] };
    sections.set(name, section);
    if (!section.tasks.includes(task.name)) section.tasks.push(task.name);
  }
  return sections.size === 0 ? {} : { sections: [...sections.values()] };
}

async function readStart(path: string): Promise<string> {
  const file = await openUserFile(path, `"${path}"`);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEADER_BYTES), 0, HEADER_BYTES, 0);
    return buffer.toString("latin1", 0, bytesRead);
  } finally {
    await file.close();
  }
}
