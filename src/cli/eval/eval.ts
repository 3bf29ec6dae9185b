/** `indexcache eval`: a pattern against the baseline on the field's long-context suites. */

import process from "node:process";
import type { Command } from "commander";
import { InputError, UsageError } from "../../base/errors.ts";
import { counted } from "../../base/quantities.ts";
import { quoted } from "../../base/quoted.ts";
import { withoutUndefined } from "../../base/without-undefined.ts";
import { type AnsweredItem, type Evaluation, evaluate } from "../../eval/run/evaluation.ts";
import { planEvaluation } from "../../eval/run/plan.ts";
import { EvalProgressTracker } from "../../eval/run/progress.ts";
import { listSuites, suiteHelp } from "../../eval/suites.ts";
import { requireNoLog } from "../../formats/append-log.ts";
import type { EvalResult } from "../../formats/eval-result.ts";
import { openSampleJournal, type Sample, type SampleJournal } from "../../formats/sample-journal.ts";
import { type EvalDisplay, PlainEvalDisplay } from "../../report/eval/eval-display.ts";
import { formatTaskList, taskListRecord } from "../../report/eval/eval-list.ts";
import { formatEvalPlan } from "../../report/eval/eval-plan.ts";
import { evalRecord } from "../../report/eval/eval-record.ts";
import type { ArmRunner } from "../../runtime/generate/arms.ts";
import { type GivenOption, givenOptions } from "../arguments/given-options.ts";
import { addModelToRun } from "../arguments/opening.ts";
import { interruptible, recordedCommand, withResume } from "../console/interruption.ts";
import { settleColours, Terminal } from "../console/terminal.ts";
import { logMode } from "../evaluation-journal.ts";
import { helpText } from "../help/help-text.ts";
import { modelPath, requireServerOptions } from "../live/server-options.ts";
import { resultFromFiles } from "./eval-from.ts";
import { type EvalInputs, openEvalInputs } from "./eval-inputs.ts";
import { addEvalOptions, type EvalFlags, requireSensibleEvalFlags, samplesPath, statisticsOf } from "./eval-options.ts";
import { giveEvalResult, proposeAfterEval, requireWritableOutputs } from "./eval-output.ts";

const TICK_MS = 1000;

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
  addModelToRun(command);
  addEvalOptions(command);
  command.addHelpText("after", helpText(help)).action((model: string | undefined, flags: EvalFlags) =>
    interruptible((signal) => {
      requireServerOptions(command, flags);
      return evalCommand(modelPath(model, flags), flags, givenOptions(command), signal);
    }, "Stopping; Ctrl-C again kills"),
  );
}

async function evalCommand(
  path: string | undefined,
  flags: EvalFlags,
  given: readonly GivenOption[],
  signal: AbortSignal,
): Promise<void> {
  requireSensibleEvalFlags(flags);
  const terminal = new Terminal(flags);
  if (flags.bootstrap !== undefined) terminal.warn("--bootstrap has no effect: intervals are computed, not resampled");
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
  if (samples !== undefined) await requireNoLog(samples, logMode(flags));
  const inputs = await openEvalInputs(path, flags, terminal, given, signal);
  try {
    for (const note of notesOf(inputs)) terminal.note(`note: ${note}`);
    if (flags.dryRun === true) {
      await dryRun(inputs, terminal, signal);
    } else {
      await giveEvalResult(await run(inputs, flags, terminal, signal), flags, terminal);
      await proposeAfterEval(path, flags, terminal);
    }
  } finally {
    await inputs.source.release();
  }
}

async function run(inputs: EvalInputs, flags: EvalFlags, terminal: Terminal, signal: AbortSignal): Promise<EvalResult> {
  const started = performance.now();
  const journal = await openJournal(inputs, flags);
  try {
    if (journal !== undefined && journal.entries.length > 0) {
      terminal.note(`resuming: ${counted(journal.entries.length, "sample")} already in ${journal.path}`);
    }
    const replacements: string[] = [];
    const runner = await openRunner(inputs, (words) => replacements.push(words));
    try {
      for (const line of runner.plan) terminal.detail(line);
      const items = await answerAll(inputs, runner, journal, terminal, signal);
      // Not while the view redraws itself over the same lines.
      for (const words of replacements) terminal.warn(words);
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
  signal: AbortSignal,
): Promise<Sample[][]> {
  const { suite, assembly, arms, source } = inputs;
  const display = await openDisplay(terminal, inputs, journal?.path);
  const tracker = new EvalProgressTracker(
    arms.map(({ name }) => name),
    suite.total,
    seconds(),
  );
  const ticker = setInterval(() => display.show(tracker.at(seconds())), TICK_MS);
  // Not the items themselves: a prompt may be a megabyte.
  const answered: Pick<AnsweredItem, "index" | "samples">[] = [];
  const { window } = source;
  try {
    const known = journal?.entries ?? [];
    const asked = { suite, assembly, arms, runner, window, signal, ...samplingOf(inputs) };
    for await (const item of evaluate({ ...asked, known })) {
      for (const sample of item.fresh) await journal?.append(sample);
      answered.push({ index: item.index, samples: item.samples });
      tracker.advance(item);
      display.show(tracker.at(seconds()));
    }
  } finally {
    clearInterval(ticker);
    display.close(tracker.at(seconds()));
  }
  if (answered.length === 0)
    throw new InputError(`Suite ${suite.name} gave no item`, { hint: "see --tasks and --data" });
  return answered.sort((left, right) => left.index - right.index).map(({ samples }) => samples);
}

async function dryRun(inputs: EvalInputs, terminal: Terminal, signal: AbortSignal): Promise<void> {
  const runner = await openRunner(inputs);
  try {
    for (const line of runner.plan) terminal.detail(line);
    const { suite, assembly, arms, source } = inputs;
    const { window } = source;
    const asked = { suite, assembly, arms, runner, window, signal, ...samplingOf(inputs) };
    const plan = await planEvaluation({ ...asked, known: [] });
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

function samplingOf({ fingerprint }: EvalInputs): Pick<Evaluation, "sampling"> {
  const { temperature, seed } = fingerprint.settings;
  return temperature === 0 ? {} : { sampling: { temperature: Number(temperature), seed: Number(seed) } };
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

async function openDisplay(
  terminal: Terminal,
  { model, suite }: EvalInputs,
  journal: string | undefined,
): Promise<EvalDisplay> {
  if (!terminal.showsViews) {
    if (journal !== undefined) terminal.note(`samples: ${journal}; Ctrl-C saves`);
    return new PlainEvalDisplay((line) => terminal.note(line));
  }
  settleColours();
  const { openEvalView } = await import("../../tui/eval-view.tsx");
  return openEvalView(process.stderr, `${model.config.name}: ${suite.name}`, journal);
}

function seconds(): number {
  return performance.now() / 1000;
}
