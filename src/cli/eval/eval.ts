/** `indexcache eval`: a pattern against the baseline on the field's long-context suites. */

import process from "node:process";
import type { Command } from "commander";
import { clocks } from "../../base/clock.ts";
import { InputError, UsageError } from "../../base/errors.ts";
import { counted } from "../../base/quantities.ts";
import { quoted } from "../../base/quoted.ts";
import { withoutUndefined } from "../../base/without-undefined.ts";
import { type AnsweredItem, type Evaluation, evaluate } from "../../eval/run/evaluation.ts";
import { planEvaluation } from "../../eval/run/plan.ts";
import { EvalProgressTracker } from "../../eval/run/progress.ts";
import { listSuites, suiteHelp } from "../../eval/suites.ts";
import { requireFittingLog } from "../../formats/append-log.ts";
import type { EvalResult } from "../../formats/eval-result.ts";
import { openSampleJournal, type Sample, type SampleJournal } from "../../formats/sample-journal.ts";
import { type EvalDisplay, PlainEvalDisplay } from "../../report/eval/eval-display.ts";
import { formatTaskList, taskListRecord } from "../../report/eval/eval-list.ts";
import { formatEvalPlan } from "../../report/eval/eval-plan.ts";
import { evalRecord } from "../../report/eval/eval-record.ts";
import type { ArmRunner } from "../../runtime/generate/arms.ts";
import { type GivenOption, givenOptions } from "../arguments/given-options.ts";
import { logMode } from "../arguments/journal-options.ts";
import { addModelArgument } from "../arguments/options.ts";
import { whileShowing } from "../console/display.ts";
import { recordedCommand, withResume } from "../console/interruption.ts";
import type { Terminal } from "../console/terminal.ts";
import { addWork } from "../console/work.ts";
import { modelPath } from "../live/server-options.ts";
import { resultFromFiles } from "./eval-from.ts";
import { type EvalInputs, openEvalInputs } from "./eval-inputs.ts";
import { type EvalFlags, evalOptions, requireSensibleEvalFlags, samplesPath, statisticsOf } from "./eval-options.ts";
import { giveEvalResult, proposeAfterEval, requireWritableOutputs } from "./eval-output.ts";

const help = `
Every item is answered by the baseline (all indexers, or --baseline) and by every --pattern, on the same prompt. The table
has each task at each length: scores, the paired difference with its interval, the loss of the gold answer, a verdict.
An arm is non-inferior where a loss of more than --margin points is excluded, inferior where one is proven.

Suites (tasks and what they need: --list):
${suiteHelp()
  .map(({ name, help }) => `  ${name.padEnd(13)} ${help}`)
  .join("\n")}
FILE.samples.jsonl beside -o FILE gets every sample as it is made; --resume continues from it.

Examples:
  $ indexcache eval -p uniform:4 --samples 20           the demo model on RULER's core at its window
  $ indexcache eval ./model -p half.json -p quarter.json --lengths 4k,8k --samples 100 -o result.json
  $ indexcache eval ./model -p quarter.json --suite longbench-v2 --data data.json --fail-on inferior --junit eval.xml
  $ indexcache eval --from result.json.samples.jsonl --markdown
  $ indexcache eval --from before.json.samples.jsonl --from after.json.samples.jsonl
  $ indexcache eval --server http://127.0.0.1:8000 -m ./GLM-5.1 -p glm.json@1/4 --lengths 32k -o glm-eval.json
  $ indexcache eval ./model -p quarter.json --dry-run`;

export function addEvalCommand(program: Command): void {
  const command = program.command("eval").description("Compare a pattern with the baseline on long-context benchmarks");
  addModelArgument(command);
  const shown = "pattern baseline suite tasks lengths samples data server list output resume dry-run";
  const stopping = "Stopping; Ctrl-C again kills";
  addWork(
    command,
    { options: evalOptions, help, shown, stopping },
    (model: string | undefined, flags: EvalFlags, terminal: Terminal) =>
      evalCommand(modelPath(command, model, flags), flags, givenOptions(command), terminal),
  );
}

async function evalCommand(
  path: string | undefined,
  flags: EvalFlags,
  given: readonly GivenOption[],
  terminal: Terminal,
): Promise<void> {
  requireSensibleEvalFlags(flags);
  if (flags.list === true) {
    const tasks = listSuites();
    terminal.answer(taskListRecord(tasks), () => formatTaskList(tasks, terminal.resultWidth));
    return;
  }
  await requireWritableOutputs(flags);
  if (flags.from.length > 0) {
    if (path !== undefined) throw new UsageError(`--from runs nothing: MODEL (${quoted(path)}) does not go with it`);
    await giveEvalResult(await resultFromFiles(flags.from, flags, given, terminal), flags, terminal);
    await proposeAfterEval(path, flags, terminal);
    return;
  }
  const samples = flags.dryRun === true ? undefined : samplesPath(flags);
  if (samples !== undefined) await requireFittingLog(samples, logMode(flags));
  const inputs = await openEvalInputs(path, flags, terminal, given);
  try {
    for (const note of notesOf(inputs)) terminal.note(`note: ${note}`);
    if (flags.dryRun === true) {
      await dryRun(inputs, terminal);
    } else {
      await giveEvalResult(await run(inputs, flags, terminal), flags, terminal);
      await proposeAfterEval(path, flags, terminal);
    }
  } finally {
    await inputs.source.release();
  }
}

async function run(inputs: EvalInputs, flags: EvalFlags, terminal: Terminal): Promise<EvalResult> {
  const started = performance.now();
  const journal = await openJournal(inputs, flags);
  try {
    if (journal !== undefined && journal.entries.length > 0) {
      terminal.note(`resuming: ${counted(journal.entries.length, "sample")} already in ${journal.path}`);
    }
    const runner = await openRunner(inputs, (words) => terminal.warn(words));
    try {
      for (const line of runner.plan) terminal.detail(line);
      const items = await answerAll(inputs, runner, journal, terminal);
      return evalRecord({
        ...inputs,
        described: { ...inputs.described, ...withoutUndefined({ threads: runner.threads }) },
        tasks: inputs.suite.tasks,
        sections: inputs.suite.sections,
        items,
        statistics: statisticsOf(flags),
        notes: notesOf(inputs),
        skipped: inputs.suite.skipped,
        bad: inputs.suite.bad,
        wallSeconds: (performance.now() - started) / 1000,
        runtime: inputs.source.runtime,
        command: recordedCommand(process.argv),
      });
    } finally {
      await runner.release();
    }
  } catch (error) {
    throw withResume(error, "every finished item", journal?.path);
  } finally {
    await journal?.close();
  }
}

/** Answers every item; its samples are in the journal before they count. Gives the samples in the suite's order. */
async function answerAll(
  inputs: EvalInputs,
  runner: ArmRunner,
  journal: SampleJournal | undefined,
  terminal: Terminal,
): Promise<Sample[][]> {
  const { suite, arms, model } = inputs;
  const names = arms.map(({ name }) => name);
  const tracker = new EvalProgressTracker(names, suite.total, runner.concurrency, clocks.wall());
  const progress = () => tracker.at(clocks.wall());
  const shown = {
    inLines: () => {
      if (journal !== undefined) terminal.note(`samples: ${journal.path}; Ctrl-C saves`);
      return new PlainEvalDisplay((line) => terminal.note(line));
    },
    inView: async (stream: NodeJS.WriteStream) => {
      const { openEvalView } = await import("../../tui/eval-view.tsx");
      return openEvalView(stream, `${model.config.name}: ${suite.name}`, journal?.path);
    },
    tick: (display: EvalDisplay) => display.show(progress()),
    close: (display: EvalDisplay) => display.close(progress()),
  };
  // Not the items themselves: a prompt may be a megabyte.
  const answered: Pick<AnsweredItem, "index" | "samples">[] = [];
  await whileShowing(terminal, shown, async (display) => {
    for await (const item of evaluate({ ...askedOf(inputs, runner, terminal), known: journal?.entries ?? [] })) {
      for (const sample of item.fresh) await journal?.append(sample);
      answered.push({ index: item.index, samples: item.samples });
      tracker.advance(item, clocks.wall());
      display.show(progress());
    }
  });
  if (answered.length === 0)
    throw new InputError(`Suite ${suite.name} gave no item`, { hint: "see --tasks and --data" });
  return answered.sort((left, right) => left.index - right.index).map(({ samples }) => samples);
}

async function dryRun(inputs: EvalInputs, terminal: Terminal): Promise<void> {
  const runner = await openRunner(inputs);
  try {
    for (const line of runner.plan) terminal.detail(line);
    const { suite, arms } = inputs;
    const plan = await planEvaluation({ ...askedOf(inputs, runner, terminal), known: [] });
    const record = {
      suite: suite.name,
      arms: arms.map(({ name, pattern }) => ({ name, index_topk_pattern: pattern })),
      skipped_tasks: suite.skipped.map(({ task, reason }) => ({ task, reason })),
      ...plan,
    };
    terminal.answer(record, () => formatEvalPlan(record, terminal.resultWidth));
  } finally {
    await runner.release();
  }
}

/** What a reader of the scores has to know; complete once the items are read. */
function notesOf({ assembly, suite, source, overlap }: EvalInputs): string[] {
  return [...source.notes, ...assembly.notes, ...overlap, ...suite.notes];
}

/** Who is asked what, and how. */
function askedOf(
  { suite, assembly, arms, source, fingerprint }: EvalInputs,
  runner: ArmRunner,
  { signal }: Terminal,
): Omit<Evaluation, "known"> {
  const { temperature, seed } = fingerprint.settings;
  const sampling = temperature === 0 ? {} : { sampling: { temperature: Number(temperature), seed: Number(seed) } };
  return { suite, assembly, arms, runner, window: source.window, signal, ...sampling };
}

function openRunner(
  { tokenizer, arms, source }: EvalInputs,
  onReplacement?: (words: string) => void,
): Promise<ArmRunner> {
  return source.open(
    arms.map(({ pattern }) => pattern),
    tokenizer,
    onReplacement,
  );
}

async function openJournal({ fingerprint }: EvalInputs, flags: EvalFlags): Promise<SampleJournal | undefined> {
  const path = samplesPath(flags);
  if (path === undefined) return undefined;
  if (path === flags.output) throw new UsageError("-o and --samples-file name the same file");
  return openSampleJournal(path, fingerprint, logMode(flags));
}
