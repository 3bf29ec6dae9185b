/** `indexcache search`: finds a pattern, writes it down, survives interruptions. */

import process from "node:process";
import type { Command } from "commander";
import { InterruptedError } from "../base/errors.ts";
import { toolVersion } from "../base/version.ts";
import type { Journal } from "../formats/journal.ts";
import { formatPatternFile, writePatternFile } from "../formats/pattern-file.ts";
import { type ModelFolder, openModel } from "../graph/model-folder.ts";
import { PlainDisplay, type SearchDisplay, SilentDisplay } from "../report/search-display.ts";
import { formatSearchReport, searchRecord } from "../report/search-report.ts";
import { openLossEvaluator } from "../runtime/loss.ts";
import type { Measurement, PatternEvaluator } from "../runtime/measurement.ts";
import { runtimeName } from "../runtime/runtime-name.ts";
import type { SearchResult } from "../search/events.ts";
import { ProgressTracker } from "../search/progress.ts";
import { parseRetain } from "../search/retain.ts";
import { requireFeasible, type Strategy, search as searchPatterns } from "../search/strategy.ts";
import {
  calibrationRecord,
  openEvaluationJournal,
  requireSensibleJournal,
  toEntry,
  toMeasurement,
} from "./evaluation-journal.ts";
import { identityRecord, openCalibrationSet, openDevices, placeName } from "./inputs.ts";
import { interruptible, resumeCommand } from "./interruption.ts";
import {
  addCalibrationOptions,
  addDeviceOptions,
  addDtypeOption,
  addModelArgument,
  addOutputOptions,
  addWorkersOptions,
  type CalibrationFlags,
  type DeviceFlags,
  type DtypeFlags,
  demoModel,
  type OutputFlags,
  type WorkerFlags,
} from "./options.ts";
import { requireWritable } from "./output-file.ts";
import { addStrategyOptions, type StrategyFlags, strategyOf } from "./strategy.ts";
import { Terminal } from "./terminal.ts";

interface SearchFlags extends CalibrationFlags, DeviceFlags, DtypeFlags, WorkerFlags, OutputFlags, StrategyFlags {
  retain: string;
  output?: string;
  resume?: boolean;
  fresh?: boolean;
}

const TICK_MS = 1000;

const help = `
Every layer starts Full but those that the model itself shares. Each step tries every Full layer but the first as Shared
and keeps the one that costs least loss (among losses within 1e-5 nats the lowest layer). FILE gets the pattern and the
whole trajectory; FILE.journal.jsonl gets every evaluation as it is made, so that --resume can go on after Ctrl-C, a
crash or a full disk. Without -o nothing is written, and an interrupted search begins anew.

That is --strategy greedy. The others try other patterns; each goes on from a journal of any of them:
  forward     from only layer 0 Full up, each step the layer whose indexer lowers the loss most
  beam        greedy, or forward by --direction, following the --beam-width best patterns of each size
  floating    greedy whose layers become Full again where that beats the best pattern known of that size
  exhaustive  every pattern, up to 5000 of them
  look-again  greedy, then for as many layer runs again: a forward beam of width 2 if it fits, and swaps

--retain: a fraction of the layers (1/4, 0.25; rounded, at least one) or a count of Full layers (12).

Examples:
  $ indexcache search -o demo-pattern.json              the demo model on its own calibration set
  $ indexcache search ./model -c text.jsonl --retain 1/4 -o quarter.json
  $ indexcache search ./model -c text.jsonl --retain 1/4 -o quarter.json --resume
  $ indexcache search ./model -c text.jsonl --sequences 8 --json
  $ indexcache search ./model -c text.jsonl --strategy beam --beam-width 4 --direction forward -o beam.json`;

export function addSearchCommand(program: Command): void {
  const command = program.command("search").description("Search the pattern that keeps the loss lowest");
  addModelArgument(command);
  command
    .option("-r, --retain <share>", "how many layers stay Full", "1/4")
    .option("-o, --output <file>", "write the pattern file here, exactly")
    .option("--resume", "go on from the journal of an earlier run")
    .option("--fresh", "begin anew where there is a journal already");
  addStrategyOptions(command);
  addCalibrationOptions(command);
  addDeviceOptions(command);
  addDtypeOption(command);
  addWorkersOptions(command);
  addOutputOptions(command);
  command
    .addHelpText("after", help)
    .action((model: string | undefined, flags: SearchFlags) =>
      interruptible(
        (signal) => search(model ?? demoModel, flags, signal),
        "Stopping after the layer at hand; Ctrl-C again kills",
      ),
    );
}

async function search(path: string, flags: SearchFlags, signal: AbortSignal): Promise<void> {
  requireSensibleJournal(flags);
  const strategy = strategyOf(flags);
  const terminal = new Terminal(flags);
  const model = await openModel(path);
  const retain = parseRetain(flags.retain, model.config.numHiddenLayers);
  requireFeasible(strategy, model.config.indexerLayers, retain);
  if (flags.output !== undefined) await requireWritable(flags.output);
  const set = await openCalibrationSet(model, flags, terminal, signal);
  const place = await openDevices(flags, terminal);
  const identity = await identityRecord(model);
  const journal = await openEvaluationJournal(flags, identity, set, flags.dtype);
  try {
    const replacements: string[] = [];
    const evaluator = await openLossEvaluator(model, set.windows, {
      ...place,
      dtype: flags.dtype,
      onReplacement: (words) => replacements.push(words),
    });
    try {
      for (const line of evaluator.plan) terminal.detail(line);
      const memo = new Map(journal?.entries.map((entry) => [entry.pattern, toMeasurement(entry)]));
      if (memo.size > 0) terminal.note(`resuming: ${memo.size} evaluations are in ${journal?.path}`);
      const display = await openDisplay(terminal, model, journal);
      const work = { model, strategy, retain, evaluator, memo, journal, display, signal };
      const { result, measurements } = await runSearch(work);
      // Not while the view redraws itself over the same lines.
      for (const words of replacements) terminal.warn(words);
      const file = searchRecord(result, {
        strategy,
        model: identity,
        calibration: calibrationRecord(set),
        tool: { version: toolVersion, runtime: runtimeName, device: placeName(place), dtype: flags.dtype },
        measurements,
      });
      if (flags.output !== undefined) await writePatternFile(flags.output, file);
      terminal.result(flags.json === true ? formatPatternFile(file) : formatSearchReport(file));
      if (flags.output !== undefined) terminal.note(`written: ${flags.output}`);
    } finally {
      await evaluator.release();
    }
  } catch (error) {
    if (!(error instanceof InterruptedError) || journal === undefined) throw error;
    throw new InterruptedError(`Interrupted; every finished evaluation is in "${journal.path}"`, {
      hint: `go on with: ${resumeCommand(process.argv)}`,
      cause: error,
    });
  } finally {
    await journal?.close();
  }
}

interface SearchWork {
  model: ModelFolder;
  strategy: Strategy;
  retain: number;
  evaluator: PatternEvaluator;
  memo: ReadonlyMap<string, Measurement>;
  journal: Journal | undefined;
  display: SearchDisplay;
  signal: AbortSignal;
}

/** Runs the search to its end; every evaluation is in the journal before the next begins. */
async function runSearch(
  work: SearchWork,
): Promise<{ result: SearchResult<Measurement>; measurements: Measurement[] }> {
  const { model, strategy, retain, evaluator, memo, journal, display, signal } = work;
  const measurements: Measurement[] = [];
  const tracker = new ProgressTracker(seconds());
  const ticker = setInterval(() => {
    const progress = tracker.at(seconds());
    if (progress !== undefined) display.tick(progress);
  }, TICK_MS);
  try {
    for await (const event of searchPatterns<Measurement>(strategy, {
      start: model.config.indexerLayers,
      retain,
      memo,
      signal,
      evaluate: (pattern, options) => evaluator.evaluate(pattern, options),
    })) {
      if (event.kind === "evaluation done") {
        measurements.push(event.evaluation);
        if (!event.replayed) await journal?.append(toEntry(event.evaluation));
      }
      const progress = tracker.advance(event, seconds());
      if (progress !== undefined) display.show(event, progress);
      if (event.kind === "done") return { result: event.result, measurements };
    }
    throw new Error("the search ended without a result");
  } finally {
    clearInterval(ticker);
    display.close();
  }
}

async function openDisplay(
  terminal: Terminal,
  model: ModelFolder,
  journal: Journal | undefined,
): Promise<SearchDisplay> {
  if (terminal.quiet) return new SilentDisplay();
  if (!terminal.isInteractive) {
    if (journal !== undefined) terminal.note(`journal: ${journal.path}; Ctrl-C saves`);
    return new PlainDisplay((line) => terminal.note(line));
  }
  // Ink looks at stdout, which may be a file while stderr is the terminal.
  if (process.env.NO_COLOR === undefined || process.env.NO_COLOR === "") process.env.FORCE_COLOR ??= "1";
  else process.env.FORCE_COLOR = "0";
  const { openSearchView } = await import("../tui/search-view.tsx");
  return openSearchView(process.stderr, model.config.name, journal?.path);
}

function seconds(): number {
  return performance.now() / 1000;
}
