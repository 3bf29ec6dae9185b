/** `eval --from`: a result without a model, from saved samples (scored again) or from a result file. */
import process from "node:process";
import { InputError } from "../../base/errors.ts";
import { openUserFile } from "../../base/user-files.ts";
import type { EvalTask, SuiteSection } from "../../eval/item.ts";
import { pairSaved } from "../../eval/run/saved-samples.ts";
import { suiteNamed, suiteTasks } from "../../eval/suites.ts";
import { type EvalResult, readEvalResult } from "../../formats/eval-result.ts";
import { readSamples, SAMPLES_KIND, type Sample } from "../../formats/sample-journal.ts";
import { evalRecord } from "../../report/eval/eval-record.ts";
import { runtimeName } from "../../runtime/session/runtime-name.ts";
import { type GivenOption, requireOnly } from "../arguments/given-options.ts";
import { recordedCommand } from "../console/interruption.ts";
import type { Terminal } from "../console/terminal.ts";
import { type EvalFlags, statisticsOf } from "./eval-options.ts";
import { scoringAttributes, scoringSettings } from "./suite-flags.ts";

/** Enough of a file to know a header by. */
const HEADER_BYTES = 200;

/** Where a result goes and how it is printed. */
const outputOptions = ["from", "output", "json", "markdown", "junit", "failOn", "verbose", "quiet"];
/** What decides scores and verdicts of samples that are there. */
const scoringOptions = ["baseline", "margin", "alpha", "seed", "bootstrap", ...scoringAttributes()];
const scoringWords = "--baseline, --margin, --alpha, --seed, --code-ratio and --empty-outputs";

export async function resultFromFile(
  path: string,
  flags: EvalFlags,
  given: readonly GivenOption[],
  terminal: Terminal,
): Promise<EvalResult> {
  if (!(await readStart(path)).includes(SAMPLES_KIND)) {
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
  const saved = await readSamples(path);
  if (saved === undefined) throw new InputError(`Samples file "${path}" has no whole line`);
  const { fingerprint, entries } = saved;
  const baseline = given.some(({ attribute }) => attribute === "baseline") ? flags.baseline : undefined;
  const suite = suiteNamed(fingerprint.suite);
  const known = await suiteTasks(suite, flags);
  const { arms, items, tasks, unpaired } = pairSaved(path, entries, known, baseline);
  if (unpaired > 0) terminal.warn(`${unpaired} items are left out: an arm has no sample of them`);
  if (items.length === 0) throw new InputError(`Samples file "${path}" has no item that every arm has answered`);
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
    described: { scored_from: path },
    arms,
    tasks,
    ...sectionsOf(items, tasks),
    items,
    statistics: statisticsOf(flags),
    notes: [],
    skipped: [],
    bad: [],
    wallSeconds: 0,
    runtime: runtimeName,
    command: recordedCommand(process.argv),
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
