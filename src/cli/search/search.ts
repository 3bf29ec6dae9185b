/** `indexcache search`: finds a pattern, writes it down, survives interruptions. */

import process from "node:process";
import type { Command } from "commander";
import { InputError, UsageError } from "../../base/errors.ts";
import { sketchOf } from "../../base/ngram-sketch.ts";
import { counted } from "../../base/quantities.ts";
import { quoted } from "../../base/quoted.ts";
import { toolVersion } from "../../base/version.ts";
import { type CalibrationMix, sourceFactors } from "../../calibration/mix.ts";
import {
  type Journal,
  type JournalEntry,
  readJournal,
  requireAgreement,
  requireSameNumbers,
} from "../../formats/journal.ts";
import { formatPatternFile, type PatternFile, writePatternFile } from "../../formats/pattern-file.ts";
import type { ModelDescription } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { formatCount } from "../../report/quantities.ts";
import { PlainDisplay, type SearchDisplay } from "../../report/search/search-display.ts";
import { formatSearchReport, type SearchContext, searchRecord } from "../../report/search/search-report.ts";
import type { PatternEvaluator } from "../../runtime/measurement.ts";
import type { EarlyProcesses } from "../../runtime/process/early-processes.ts";
import type { Rehearsal, SearchResult } from "../../search/events.ts";
import { ProgressTracker } from "../../search/progress.ts";
import { parseTargets } from "../../search/retain.ts";
import { rehearse, requireFeasible, search as searchPatterns, sequencesAtOnce } from "../../search/search.ts";
import type { PatternSpace } from "../../search/space.ts";
import type { SearchMethod } from "../../search/strategy.ts";
import {
  measuredObjective,
  objectiveOf,
  openCalibrationMix,
  type SearchObjective,
} from "../arguments/calibration-mix.ts";
import { foresee, startLosses } from "../arguments/early.ts";
import { identityRecord, type ModelWork, openDevices } from "../arguments/inputs.ts";
import { openModelForLosses } from "../arguments/memory.ts";
import { demoModel } from "../arguments/options.ts";
import { interruptible, recordedCommand, withResume } from "../console/interruption.ts";
import { deviceWords, modelWords, proposedCommand, resultBeside } from "../console/next-command.ts";
import { requireWritable } from "../console/output-file.ts";
import { settleColours, Terminal } from "../console/terminal.ts";
import { journalFingerprint, openEvaluationJournal, requireSensibleJournal } from "../evaluation-journal.ts";
import { helpText } from "../help/help-text.ts";
import { modelPath, openServedFolder, requireServerOptions } from "../live/server-options.ts";
import { openServer } from "../live/server-source.ts";
import { describeEffort } from "../live/server-words.ts";
import { type LossSource, localLosses } from "../loss-source.ts";
import { constraintSettings, patternSpaceOf } from "./constraints.ts";
import { applyEffort } from "./effort.ts";
import { Measuring } from "./measuring.ts";
import {
  fullLayersOfSpeedup,
  type PredictedLatency,
  readPredictedLatency,
  withSpeedups,
  writePareto,
} from "./predicted-latency.ts";
import { addMergeCommand } from "./search-merge.ts";
import { addSearchOptions, type SearchFlags, splitSequences } from "./search-options.ts";
import { showPlan, showPlanOfConfig } from "./search-plan.ts";
import { showStatus } from "./search-status.ts";
import { methodOf, methodSettings, strategyLines } from "./strategy-options.ts";

const TICK_MS = 1000;

/**
 * Searches by fewer sequences than this end in another pattern than the best one in more than a quarter of all cases, and
 * in one of twenty cost twice as much on other text as those by eight (docs/log.md, `tools/landscape/compare.js sequences`).
 */
const FEW_SEQUENCES = 8;

const help = `
Every layer starts Full but those that the model itself shares. FILE gets the best pattern of each wanted retention and how
it was found; FILE.journal.jsonl gets every evaluation as it is made, so that --resume can continue after Ctrl-C, a crash or
a full disk. Without -o nothing is written, and an interrupted search begins anew.

Strategies (losses within 1e-5 nats are ties, the lowest layer wins):
${strategyLines()
  .map((line) => `  ${line}`)
  .join("\n")}

--retain: fractions of the layers (1/4, 0.25; rounded, at least one), counts of Full layers (12), or with --latency what is
predicted to be so many times as fast as every layer Full (1.5x).

Examples:
  $ indexcache search -o demo-pattern.json              the demo model on its own calibration set
  $ indexcache search ./model -c text.jsonl --retain 1/2,1/4,1/8 --holdout 1/4 -o patterns.json
  $ indexcache search ./model -c text.jsonl --retain 1/4 -o quarter.json --resume
  $ indexcache search ./model -c text.jsonl --pipeline-stages 4 --engine vllm -o stages.json
  $ indexcache search ./model -c text.jsonl --effort quick -o quick.json
  $ indexcache search ./model -c text.jsonl --objective kl --dry-run
  $ indexcache search ./model -c ruler:vt,niah_multikey_2 --retain 1/4 -o answers.json
  $ indexcache search ./model -c text.jsonl=0.5 -c qa.jsonl=0.5 --objective answer -o mixed.json
  $ indexcache search --server http://127.0.0.1:8000 -m ./GLM-5.1 -c text.jsonl --race --strategy greedy -o glm.json
  $ indexcache search --status quarter.json.journal.jsonl`;

export function addSearchCommand(program: Command): void {
  const command = program.command("search").description("Search the patterns that keep the loss lowest");
  addSearchOptions(command);
  command.enablePositionalOptions();
  addMergeCommand(command);
  command.addHelpText("after", helpText(help)).action((model: string | undefined, flags: SearchFlags) =>
    interruptible((signal) => {
      requireServerOptions(command, flags);
      const effort = applyEffort(command);
      if (effort !== undefined)
        new Terminal(flags).note(`effort ${flags.effort}: ${effort || "--strategy replaces it"}`);
      return search(modelPath(model, flags), flags, signal);
    }, "Stopping after the layer at hand; Ctrl-C again kills"),
  );
}

async function search(path: string | undefined, flags: SearchFlags, signal: AbortSignal): Promise<void> {
  const terminal = new Terminal(flags);
  if (flags.status !== undefined) return await showStatus(flags.status, terminal);
  await requireSensibleJournal(flags);
  const plansOnly = flags.dryRun === true && flags.server === undefined;
  if (plansOnly && (await showPlanOfConfig(path, flags, terminal))) return;
  const early = flags.server === undefined ? startLosses(flags) : undefined;
  try {
    const work = await prepare(path, early, flags, terminal, signal);
    try {
      await searchWith(work, flags, terminal, signal);
    } finally {
      await work.source.release();
    }
  } finally {
    early?.end();
  }
}

async function searchWith(
  work: SearchWork,
  flags: SearchFlags,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<void> {
  const { source } = work;
  const { journal, reused } = flags.dryRun === true ? withoutJournal : await openJournals(flags, work);
  tellPlan(work, flags, terminal);
  let written: string | undefined;
  try {
    const measured = measuredObjective(work.objective);
    const measuring = new Measuring(journal, reused, measured, work.weigh(work.sequences));
    const write = async (result: SearchResult, { heldOut }: Pick<SearchWork, "heldOut">): Promise<PatternFile> => {
      const context = { ...recordContext(work, measuring), heldOut };
      const file = withSpeedups(searchRecord(result, context), work.predicted);
      if (flags.output !== undefined) await writePatternFile(flags.output, file);
      written = flags.output;
      return file;
    };
    const result = await source.use(measured, async (evaluator) => {
      for (const line of evaluator.plan) terminal.detail(line);
      const seconds = source.secondsEach?.();
      if (seconds !== undefined) {
        terminal.note(describeEffort(work.foreseen.evaluations, work.foreseen.exact, seconds));
      }
      if (flags.dryRun === true) {
        await showPlan({ ...work, ...memoryOf(flags), evaluator, terminal, signal });
        return undefined;
      }
      if (journal !== undefined && measuring.resumed > 0) {
        terminal.note(`resuming: ${counted(measuring.resumed, "pattern")} already in ${journal.path}`);
      }
      const display = await openDisplay(terminal, work.model, journal, evaluator.sideBySide);
      // What was searched for is safe before anything that only adorns it can fail, or be interrupted.
      const keep = async (result: SearchResult): Promise<void> => {
        await write(result, { heldOut: [] });
      };
      const found = await runSearch({ ...work, evaluator, measuring, display, keep, signal });
      const open = measuring.incomplete(reported(work.space.start, found), work.heldOut, "loss");
      if (open.length > 0) terminal.note(`measuring ${counted(open.length, "pattern")} on held-out sequences`);
      await measuring.complete(evaluator, open, work.heldOut, "loss", { signal });
      return found;
    });
    if (result === undefined) return;
    // KL of what is reported needs the model's own distributions: not kept while a search goes by the loss.
    const all = [...work.sequences, ...work.heldOut];
    const open = source.divergences ? measuring.incomplete(reported(work.space.start, result), all, "kl") : [];
    if (open.length > 0) {
      terminal.note(`measuring KL of ${counted(open.length, "pattern")}`);
      await source.use("kl", async (evaluator) => {
        await measuring.complete(evaluator, open, all, "kl", { signal });
      });
    }
    const file = await write(result, work);
    if (flags.pareto !== undefined && work.predicted !== undefined)
      await writePareto(flags.pareto, file, work.predicted);
    terminal.result(flags.json === true ? formatPatternFile(file) : formatSearchReport(file, terminal.resultWidth));
    if (flags.output !== undefined) terminal.note(`written: ${flags.output}`);
    terminal.next("whether answers stay as good", evalCommand(work, flags, file));
  } catch (error) {
    if (written !== undefined) terminal.warn(`the search itself has ended, and its pattern is in ${written}`);
    throw withResume(error, "every finished evaluation", journal?.path);
  } finally {
    await journal?.close();
  }
}

/** Before anything long begins: how much there is to do, and whether there is enough to judge by. */
function tellPlan(
  { method, foreseen, space, targets, sequences, set }: SearchWork,
  flags: SearchFlags,
  terminal: Terminal,
): void {
  if (sequences.length < FEW_SEQUENCES) {
    terminal.warn(
      `${counted(sequences.length, "sequence")} ${sequences.length === 1 ? "is" : "are"} few to search by: on trained models with known optima, fewer than ` +
        `${FEW_SEQUENCES} often led to a worse pattern than the text would have (docs/search.md); give more text, or a larger --sequences`,
    );
  }
  if (flags.dryRun === true) return;
  const about = foreseen.exact ? "" : "about ";
  terminal.note(
    `plan: ${method.strategy.name} to ${targets.join(", ")} Full, ${about}${counted(foreseen.evaluations, "pattern")} on up to ${counted(sequences.length, "sequence")} ` +
      `of ${formatCount(set.sequenceLength)} tokens; the first one shows how long that takes, --dry-run does no more than that`,
  );
  const every = targets.reduce((total, retain) => total + space.count(retain), 0);
  const few =
    every === 1 ? "there is only 1 pattern of that size" : `there are only ${formatCount(every)} patterns of that size`;
  if (foreseen.isOptimum) {
    terminal.note(`${few}: all of them are measured, and the result is the optimum on this text`);
  } else if (method.race === undefined && every < foreseen.evaluations) {
    terminal.note(`${few}: --strategy exhaustive measures all of them, and its result is the optimum`);
  }
}

/** A search has tested losses on one text. What answers are worth is another question, and this is how to ask it. */
function evalCommand(
  { path: model, source }: SearchWork,
  { output, server, allowRemote, device, devices, dtype }: SearchFlags,
  { patterns = [] }: PatternFile,
): string {
  const wanted =
    output === undefined
      ? patterns.map(({ index_topk_pattern: letters }) => letters)
      : patterns.length < 2
        ? [output]
        : patterns.map(({ full_layers: full }) => `${output}@${full}`);
  const remote = allowRemote === true ? ["--allow-remote"] : [];
  // A CPU measures losses in float16, and generates in float32 alone.
  const ofTokens = source.tool.device?.includes("cuda") ? dtype : "float32";
  const several = devices === undefined ? {} : { devices };
  return proposedCommand([
    "eval",
    ...(server === undefined ? modelWords(model) : ["--server", server, ...remote, "-m", model]),
    ...wanted.flatMap((pattern) => ["--pattern", pattern]),
    ...(server === undefined ? deviceWords({ device, ...several, dtype: ofTokens }) : []),
    ...(output === undefined ? [] : ["-o", resultBeside(output, "eval")]),
  ]);
}

function recordContext(work: SearchWork, measuring: Measuring): SearchContext {
  const server = work.source.server?.();
  return {
    ...work,
    model: work.identity,
    baseline: work.space.start,
    calibration: calibrationRecord(work),
    tool: {
      version: toolVersion,
      ...work.source.tool,
      command: recordedCommand(process.argv),
    },
    server,
    entries: measuring.entries,
    losses: measuring.losses,
  };
}

/** What a search is about, read and checked before anything long begins. */
export interface SearchWork {
  /** As it was given. */
  path: string;
  model: ModelDescription;
  source: LossSource;
  identity: PatternFile["model"];
  method: SearchMethod;
  objective: SearchObjective;
  /** Times that a server's noisy measurements are repeated. */
  repeats: number | undefined;
  foreseen: Rehearsal;
  /** As the journal and the pattern file name them. */
  settings: Record<string, string | number | boolean>;
  space: PatternSpace;
  targets: number[];
  set: CalibrationMix;
  /** What the tokens of some sequences are multiplied by, so that each source has its weight. */
  weigh: (indices: readonly number[]) => (index: number) => number;
  sequences: number[];
  heldOut: number[];
  predicted: PredictedLatency | undefined;
}

/** By which losses are opened. */
type Prepared = Pick<SearchWork, "method" | "sequences" | "foreseen">;

/** Opens what losses come from: the weights, or a server that has them. */
async function openSource(
  path: string | undefined,
  early: EarlyProcesses | undefined,
  flags: SearchFlags,
  terminal: Terminal,
  signal: AbortSignal,
) {
  const { server } = flags;
  if (server === undefined) {
    const { model, device } = await openModelForLosses(path ?? demoModel, flags, terminal, signal);
    const foreseeSearch = (method: SearchMethod, objective: SearchObjective) =>
      foresee(early, model, flags, (count) => ({
        objective: measuredObjective(objective),
        together: sequencesAtOnce(
          method,
          splitSequences([[...Array(count).keys()]], flags.holdout, flags.seed).search.length,
        ),
      }));
    const open = async (set: CalibrationMix, { sequences, method, foreseen }: Prepared): Promise<LossSource> => {
      const passed = (foreseen.layers / model.config.numHiddenLayers) * set.sequenceLength;
      const settings = await evaluatorSettings({ ...flags, device }, terminal, { model, amount: () => ({ passed }) });
      const together = sequencesAtOnce(method, sequences.length);
      return localLosses(model, set, { ...settings, together, early }, terminal);
    };
    return {
      ...{ model, start: model.config.indexerLayers, pinned: [], open },
      foresee: foreseeSearch,
      release: async () => {},
    };
  }
  const model = await openServedFolder(path, terminal);
  const { served, source } = await openServer({ ...flags, server }, model, terminal, signal);
  const open = async (set: CalibrationMix, { sequences }: Prepared) => source(set, sequences);
  return {
    ...{ model, start: served.ownPattern, pinned: served.pinned, open },
    foresee: async () => {},
    release: () => served.release(),
  };
}

async function prepare(
  path: string | undefined,
  early: EarlyProcesses | undefined,
  flags: SearchFlags,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<SearchWork> {
  const opened = await openSource(path, early, flags, terminal, signal);
  try {
    return { path: path ?? demoModel, ...(await prepareFor(opened, flags, terminal, signal)) };
  } catch (error) {
    await opened.release();
    throw error;
  }
}

async function prepareFor(
  { model, start, pinned, open, foresee }: Awaited<ReturnType<typeof openSource>>,
  flags: SearchFlags,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<Omit<SearchWork, "path">> {
  const objective = objectiveOf(flags);
  const method = methodOf({ ...flags, objective }, (message) => terminal.warn(message));
  const { numHiddenLayers } = model.config;
  const space = patternSpaceOf(start, flags, method, pinned);
  const predicted = await readPredictedLatency(flags);
  const targets = parseTargets(flags.retain, numHiddenLayers, { fewest: space.fewest, most: space.size }, (part) =>
    fullLayersOfSpeedup(part, numHiddenLayers, predicted),
  );
  // Refused before texts are read and weights are loaded.
  requireFeasible(method, space, targets);
  for (const path of flags.dryRun === true ? [] : [flags.output, flags.pareto]) {
    if (path !== undefined) await requireWritable(path);
  }
  await foresee(method, objective);
  const set = await openCalibrationMix(model, flags, terminal, signal);
  if (method.across === "worst" && set.sources.length === 1) {
    throw new UsageError(`--across worst needs several sources to compare, and -c names only ${quoted(set.source)}`);
  }
  const { search: sequences, heldOut } = splitSequences(
    set.sources.map((source) => source.sequences),
    flags.holdout,
    flags.seed,
  );
  const weigh = (indices: readonly number[]) =>
    sourceFactors(set.sources, indices, (index) => scoredTokens(set, index, flags.server && model.config.indexTopk));
  if (heldOut.length > 0) terminal.note(`held out: ${heldOut.length} of the sequences`);
  const settings = {
    ...methodSettings(method),
    ...constraintSettings(flags),
    ...(flags.holdout === undefined ? {} : { holdout: flags.holdout, seed: flags.seed }),
    ...(set.sources.length === 1 ? {} : { weights: describeWeights(set) }),
  };
  const identity = await identityRecord(model);
  const repeats = flags.server === undefined ? undefined : flags.repeats;
  const foreseen = await rehearse(method, { space, targets, sequences, repeats });
  const source = await open(set, { method, sequences, foreseen });
  return {
    model,
    source,
    identity,
    method,
    objective,
    repeats,
    foreseen,
    settings,
    space,
    targets,
    set,
    weigh,
    sequences,
    heldOut,
    predicted,
  };
}

/** Weights and numbers of sequences, source by source: `0.5x16 0.5x32`. */
function describeWeights({ sources }: CalibrationMix): string {
  return sources.map(({ weight, sequences }) => `${Number(weight.toFixed(6))}x${sequences.length}`).join(" ");
}

/** Tokens of a sequence that count; a server scores none before `index_topk`. */
function scoredTokens({ windows, scoredFrom }: CalibrationMix, index: number, least: number | "" | undefined): number {
  return (windows[index]?.length ?? 0) - Math.max(scoredFrom[index] ?? 1, least || 1);
}

async function evaluatorSettings(flags: SearchFlags, terminal: Terminal, work: ModelWork) {
  return {
    ...(await openDevices(flags, terminal, work)),
    dtype: flags.dtype,
    ...memoryOf(flags),
  };
}

function memoryOf({ memory }: SearchFlags): { memory?: number } {
  return memory === undefined ? {} : { memory };
}

interface Running extends SearchWork {
  evaluator: PatternEvaluator;
  measuring: Measuring;
  display: SearchDisplay;
  /** Takes what was found, before anything more is asked about it. */
  keep: (result: SearchResult) => Promise<void>;
  signal: AbortSignal;
}

/** Runs the search to its end; every evaluation is in the journal before the next begins. */
async function runSearch(work: Running): Promise<SearchResult> {
  const { method, foreseen, space, targets, set, sequences, evaluator, measuring, display, keep, repeats, signal } =
    work;
  const judged = new Set(sequences);
  const tracker = new ProgressTracker(seconds());
  const ticker = setInterval(() => {
    const progress = tracker.at(seconds());
    if (progress !== undefined) display.tick(progress);
  }, TICK_MS);
  const close = (): void => display.close();
  signal.addEventListener("abort", close);
  try {
    const evaluate = measuring.evaluateWith(evaluator);
    const { recall } = measuring;
    for await (const event of searchPatterns(method, {
      foreseen,
      space,
      targets,
      sequences,
      sources: set.sources.map((source) => source.sequences.filter((index) => judged.has(index))),
      stability: true,
      recall,
      signal,
      evaluate,
      repeats,
    })) {
      const progress = tracker.advance(event, seconds());
      if (event.kind === "evaluation started") measuring.position = { done: event.done, total: event.total };
      if (progress !== undefined) display.show(event, progress);
      if (event.kind === "found") await keep(event.result);
      if (event.kind === "done") return event.result;
    }
    throw new Error("the search ended without a result");
  } finally {
    measuring.position = undefined;
    clearInterval(ticker);
    signal.removeEventListener("abort", close);
    close();
  }
}

/** The patterns that a report compares: the model's own, those that were wanted, and greedy's if they were refined. */
function reported(start: Pattern, { patterns, refinements = [] }: SearchResult): Pattern[] {
  return [
    ...new Set([
      start,
      ...patterns.map(({ pattern }) => pattern),
      ...refinements.map(({ firstPattern }) => firstPattern),
    ]),
  ];
}

const withoutJournal = { journal: undefined, reused: [] };

async function openJournals(
  flags: SearchFlags,
  { identity, set, method, objective, settings, source }: SearchWork,
): Promise<{ journal: Journal | undefined; reused: JournalEntry[] }> {
  const search = { strategy: method.strategy.name, objective, ...settings };
  const fingerprint = journalFingerprint(identity, set, source.numbers, search);
  const reused: { path: string; entries: readonly JournalEntry[] }[] = [];
  for (const path of flags.reuse ?? []) {
    const other = await readJournal(path);
    if (other === undefined) throw new InputError(`Journal "${path}" is empty`);
    requireSameNumbers(path, other.fingerprint, fingerprint);
    reused.push({ path, entries: other.entries });
  }
  const numbers = flags.server === undefined ? flags.dtype : "server";
  requireAgreement(reused, numbers);
  const journal = await openEvaluationJournal(flags, fingerprint);
  if (journal !== undefined) requireAgreement([journal, ...reused], numbers);
  return { journal, reused: reused.flatMap(({ entries }) => entries) };
}

async function openDisplay(
  terminal: Terminal,
  model: ModelDescription,
  journal: Journal | undefined,
  sideBySide: number,
): Promise<SearchDisplay> {
  if (!terminal.showsViews) {
    if (journal !== undefined) terminal.note(`journal: ${journal.path}; Ctrl-C saves`);
    return new PlainDisplay((line) => terminal.note(line));
  }
  settleColours();
  const { openSearchView } = await import("../../tui/search-view.tsx");
  return openSearchView(process.stderr, model.config.name, journal?.path, sideBySide);
}

function calibrationRecord({ set, sequences, heldOut }: SearchWork): PatternFile["calibration"] {
  const { source, hash, windows, scoredFrom, sources } = set;
  const judged = new Set(sequences);
  const sumOver = (some: readonly number[], of: (index: number) => number) =>
    some.reduce((total, index) => total + (judged.has(index) ? of(index) : 0), 0);
  const length = (index: number): number => windows[index]?.length ?? 0;
  const plain = sources.every(({ answers }) => !answers) && sources.length === 1;
  return {
    source,
    hash,
    sequences: sequences.length,
    tokens: sumOver(sequences, length),
    held_out_sequences: heldOut.length || undefined,
    ngrams: sketchOf(set.windows),
    sources: plain
      ? undefined
      : sources.map(({ name, weight, answers, seed, sequences: own }) => ({
          source: name,
          weight,
          scored: answers ? ("answers" as const) : ("all" as const),
          sequences: sumOver(own, () => 1),
          scored_tokens: sumOver(own, (index) => length(index) - (scoredFrom[index] ?? 1)),
          seed,
        })),
  };
}

function seconds(): number {
  return performance.now() / 1000;
}
