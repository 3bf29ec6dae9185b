import type { Command } from "commander";
import {
  type ComparedPattern,
  candidatesOf,
  type PairStatisticsResult,
  sharedLayerMeans,
} from "../analyze/compared-patterns.ts";
import {
  lossChange,
  type MeasuredPattern,
  type MeasurePattern,
  measureFlips,
  measurePairs,
} from "../analyze/loss-change.ts";
import { PairStatistics } from "../analyze/pair-statistics.ts";
import { writeFileAtomically } from "../base/files.ts";
import type { CalibrationSet } from "../calibration/calibration-set.ts";
import { type AnalysisFile, formatAnalysisFile } from "../formats/analysis-file.ts";
import type { Journal } from "../formats/journal.ts";
import { type PatternFile, readPatternFile, requireSameModel } from "../formats/pattern-file.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import { fullLayers, type Pattern } from "../pattern/pattern.ts";
import { formatAnalysisReport } from "../report/analysis-report.ts";
import { formatCount, formatDuration, formatLoss } from "../report/quantities.ts";
import { availableMemory } from "../runtime/device/host-memory.ts";
import { type LossPlace, type LossSettings, openLossEvaluator } from "../runtime/loss/loss-evaluator.ts";
import { meanLoss } from "../runtime/loss/mean-loss.ts";
import { requirePartsRoom, sizesOf, wholeBytes } from "../runtime/loss/weight-room.ts";
import type { PatternEvaluator } from "../runtime/measurement.ts";
import { defaultThreads } from "../runtime/session/onnx-session.ts";
import { type LayerObservation, LayerObserver } from "../runtime/stages/layer-observer.ts";
import type { LayerRoom } from "../runtime/stages/stage-sessions.ts";
import { parseRetain } from "../search/retain.ts";
import { EarlyStart } from "./arguments/early.ts";
import {
  choosePattern,
  identityRecord,
  openCalibrationSet,
  openDevices,
  placeName,
  requireIndexers,
  toolRecord,
} from "./arguments/inputs.ts";
import {
  addJournalOptions,
  type JournalFlags,
  journalFingerprint,
  openEvaluationJournal,
  requireSensibleJournal,
} from "./arguments/journal-options.ts";
import { addMemoryOption, type MemoryFlags, openModelForLosses } from "./arguments/memory.ts";
import { addModelToRun, type VerifyFlags } from "./arguments/opening.ts";
import {
  addCalibrationOptions,
  addDeviceOptions,
  addDtypeOption,
  addOutputOptions,
  addPatternOptions,
  addWorkersOptions,
  type CalibrationFlags,
  type DeviceFlags,
  type DtypeFlags,
  demoModel,
  type OutputFlags,
  type PatternFlags,
  type WorkerFlags,
} from "./arguments/options.ts";
import { withResume } from "./console/interruption.ts";
import { requireWritable } from "./console/output-file.ts";
import type { Terminal } from "./console/terminal.ts";
import { addWork } from "./console/work.ts";
import { Measuring } from "./search/measuring.ts";

interface AnalyzeFlags
  extends PatternFlags,
    VerifyFlags,
    CalibrationFlags,
    DeviceFlags,
    DtypeFlags,
    WorkerFlags,
    MemoryFlags,
    OutputFlags,
    JournalFlags {
  searched?: string;
  output?: string;
  retain: string;
  pairs?: boolean;
}

const help = `
Runs --pattern over the calibration set and compares all pairs of layers, on queries that see at least index_topk keys:
  overlap     keys that both select
  recall      attention mass of a layer that falls on keys that an earlier layer selects
  similarity  cosine of a layer's attention output with its own selection and with an earlier layer's
Then the loss of the patterns that are exactly best by each of these, beside uniform and --searched ones with as many Full
layers, and of every single flip: similar layers are not the ones that can share. --device and --dtype are those of the
losses; the comparison of layers runs on the CPU in float32. FILE.journal.jsonl gets every loss as it is measured.

Examples:
  $ indexcache analyze --sequences 8                    the demo model
  $ indexcache analyze ./model -c text.jsonl --searched quarter.json --retain 1/2,1/4 -o analysis.json
  $ indexcache analyze ./model -c text.jsonl --pairs --json`;

export function addAnalyzeCommand(program: Command): void {
  const command = program.command("analyze").description("Compare what layers select, and what sharing costs");
  addModelToRun(command);
  addPatternOptions(command);
  command
    .optionsGroup("What is compared:")
    .option("--searched <file>", "a pattern file of this model to set beside the others")
    .option("-r, --retain <list>", "how many layers the compared patterns keep Full, with commas between", "1/2,1/4")
    .option("--pairs", "measure every pair of flips too: layers x layers / 2 evaluations")
    .optionsGroup("Files and resuming:")
    .option("-o, --output <file>", "write the analysis file here, exactly");
  addJournalOptions(command);
  addCalibrationOptions(command);
  addDeviceOptions(command);
  addDtypeOption(command);
  addWorkersOptions(command);
  addMemoryOption(command);
  addOutputOptions(command);
  const shown = "pattern searched retain pairs output calibration sequences device resume json";
  addWork(command, { help, shown, stopping: "Stopping after the layer at hand; Ctrl-C again kills" }, analyze);
}

async function analyze(path = demoModel, flags: AnalyzeFlags, terminal: Terminal): Promise<void> {
  await requireSensibleJournal(flags);
  const early = EarlyStart.forLosses(flags);
  try {
    await analyzeWith(early, path, flags, terminal);
  } finally {
    early.end();
  }
}

async function analyzeWith(early: EarlyStart, path: string, flags: AnalyzeFlags, terminal: Terminal): Promise<void> {
  const started = performance.now();
  const lookFirst = (model: ModelFolder) => choosePattern(model, flags);
  const { model, device } = await openModelForLosses(path, { ...flags, lookFirst }, terminal);
  const { numHiddenLayers: layers, indexerLayers } = model.config;
  const sources = fullLayers(indexerLayers);
  const pattern = await choosePattern(model, flags);
  const sizes = [...new Set(flags.retain.split(",").map((text) => parseRetain(text.trim(), layers)))];
  requireIndexers(sizes, indexerLayers);
  const identity = await identityRecord(model);
  const searched = flags.searched === undefined ? undefined : await readPatternFile(flags.searched);
  if (searched !== undefined) requireSameModel(searched, identity, flags.searched ?? "");
  if (flags.output !== undefined) await requireWritable(flags.output);
  const set = await openCalibrationSet(model, flags, terminal);
  const patterns = 2 + sizes.length * comparedEach + sources.length * (flags.pairs === true ? sources.length / 2 : 1);
  // Each runs from its first difference to a pattern before it: half of the layers on average.
  const amount = () => ({ passed: (patterns * set.tokens) / 2 });
  // Layers are compared on the CPU: meanwhile a GPU is opened.
  await early.foreseeLosses(
    model,
    set.windows.map(({ length }) => length),
  );
  const place = await openDevices({ ...flags, device }, terminal, {
    work: { model, amount },
    onTrial: early.onTrial,
  });
  const fingerprint = journalFingerprint(identity, set, { dtype: flags.dtype }, { command: "analyze" });
  const journal = await openEvaluationJournal(flags, fingerprint);
  const settings = { ...place, dtype: flags.dtype, memory: flags.memory, early: early.at(place) };
  try {
    const statistics = await comparePairs({ model, pattern, set, place, flags, terminal });
    const pairStatistics = statistics.result();
    const candidates = sizes.flatMap((full) => candidatesOf(full, indexerLayers, pairStatistics, searched));
    tellOfSearched(searched, candidates, sizes, set, terminal);
    const losses = await measureLosses({
      ...{ model, pattern, candidates, set, place, flags, journal, terminal },
      settings,
    });
    const file: AnalysisFile = {
      kind: "indexcache-analysis",
      schema_version: 1,
      model: identity,
      calibration: { source: set.source, hash: set.hash, sequences: set.windows.length, tokens: set.tokens },
      index_topk_pattern: pattern,
      sources,
      queries: statistics.queries,
      ...pairStatistics,
      patterns: comparedPatterns(candidates, losses, sources, pairStatistics),
      ...flipRecords(losses),
      seconds: (performance.now() - started) / 1000,
      tool: toolRecord(placeName(place), flags.dtype),
    };
    if (flags.output !== undefined) await writeFileAtomically(flags.output, formatAnalysisFile(file));
    terminal.result(flags.json === true ? formatAnalysisFile(file) : formatAnalysisReport(file));
    if (flags.output !== undefined) terminal.note(`written: ${flags.output}`);
  } catch (error) {
    throw withResume(error, "every measured loss", journal?.path);
  } finally {
    await journal?.close();
  }
}

/** Looks at every layer of every sequence. */
async function comparePairs({
  model,
  pattern,
  set: { windows },
  place: { threads = defaultThreads() },
  flags: { memory = availableMemory() },
  terminal,
}: Omit<LossWork, "candidates" | "journal" | "settings">): Promise<PairStatistics> {
  const { numHiddenLayers, indexerLayers, indexTopk } = model.config;
  const statistics = new PairStatistics(numHiddenLayers, fullLayers(indexerLayers), indexTopk);
  const room = await roomToCompare(model, windows, memory);
  if (room !== undefined)
    terminal.note("comparing layers: the model has no room in memory, its layers are loaded in turn");
  const observer = await LayerObserver.open(model, threads, room);
  // A layer that is loaded is for all of them.
  const together = room === undefined ? 1 : sequencesTogether;
  const started = performance.now();
  const tell = (done: number, what: string): void => {
    const seconds = ((performance.now() - started) / 1000) * (1 / done - 1);
    terminal.note(`compared layers on ${what}${done === 1 ? "" : `, about ${formatDuration(seconds)} left`}`);
  };
  try {
    for (let first = 0; first < windows.length; first += together) {
      const some = windows.slice(first, first + together);
      const observed = some.map((ids) => observer.observe(ids, pattern, terminal.signal));
      for (let layer = 0; layer < numHiddenLayers; layer++) {
        for (const sequence of observed) statistics.add((await sequence.next()).value as LayerObservation);
        if (room === undefined) continue;
        const done = (first + some.length * ((layer + 1) / numHiddenLayers)) / windows.length;
        tell(done, `layer ${layer + 1} of ${numHiddenLayers}, sequences ${first + 1} to ${first + some.length}`);
      }
      if (room === undefined) tell((first + 1) / windows.length, `sequence ${first + 1} of ${windows.length}`);
    }
  } finally {
    await observer.release();
  }
  return statistics;
}

/** Sequences that go through each layer side by side where layers come and go: their selections are in memory. */
const sequencesTogether = 16;

/** Whether layers come and go while they are compared; undefined where all stay. */
async function roomToCompare(
  model: ModelFolder,
  windows: readonly Int32Array[],
  memory: number,
): Promise<LayerRoom | undefined> {
  const sizes = await sizesOf(model);
  if (sizes === undefined || wholeBytes(sizes) <= memory) return undefined;
  const lengths = [Math.max(...windows.map(({ length }) => length))];
  const { room } = requirePartsRoom(model.config, sizes, lengths, memory);
  // None stays: losses come next, and memory that this process has had does not all go back.
  return { ...room, staysFrom: model.config.numHiddenLayers, headStays: false };
}

/** Patterns of a size that are compared: the best by each similarity, uniform and a searched one. */
const comparedEach = 5;

interface LossWork {
  model: ModelFolder;
  pattern: Pattern;
  candidates: readonly ComparedPattern[];
  set: CalibrationSet;
  place: LossPlace & { threads?: number };
  settings: LossSettings;
  flags: AnalyzeFlags;
  journal: Journal | undefined;
  terminal: Terminal;
}

interface Losses {
  own: MeasuredPattern;
  base: MeasuredPattern;
  compared: MeasuredPattern[];
  flips: Awaited<ReturnType<typeof measureFlips>>;
  pairs: Awaited<ReturnType<typeof measurePairs>> | undefined;
}

/** Every loss of the analysis, each pattern once; what the journal has is not measured again. */
async function measureLosses(work: LossWork): Promise<Losses> {
  const { model, pattern, candidates, set, settings, flags, journal, terminal } = work;
  const evaluator = await openLossEvaluator(model, set.windows, {
    ...settings,
    onReplacement: (words) => terminal.warn(words),
  });
  try {
    for (const line of evaluator.plan) terminal.detail(line);
    const measuring = new Measuring(journal, [], "nll");
    measuring.tellResumed(terminal);
    const evaluate = evaluation(work, evaluator, measuring);
    const own = await evaluate(model.config.indexerLayers, model.config.indexerLayers);
    const compared: MeasuredPattern[] = [];
    for (const candidate of candidates) compared.push(await evaluate(candidate.pattern, own.pattern));
    const base = await evaluate(pattern, pattern);
    const flips = await measureFlips(base, evaluate);
    if (flags.pairs === true) terminal.note(`pairs: ${formatCount((flips.length * (flips.length - 1)) / 2)}`);
    const pairs = flags.pairs === true ? await measurePairs(base, flips, evaluate) : undefined;
    return { own, base, compared, flips, pairs };
  } finally {
    await evaluator.release();
  }
}

function evaluation({ set, terminal }: LossWork, evaluator: PatternEvaluator, measuring: Measuring): MeasurePattern {
  const windows = [...set.windows.keys()];
  return async (pattern, base) => {
    const known = measuring.of(pattern) !== undefined;
    await measuring.complete(evaluator, [pattern], windows, "loss", { base, signal: terminal.signal });
    const losses = measuring.of(pattern);
    const sequences = windows.flatMap((index) => {
      const sequence = losses?.get(index);
      return sequence === undefined ? [] : [{ loss: sequence.loss, tokens: sequence.tokens }];
    });
    const measured = { pattern, ...meanLoss(sequences), sequences };
    if (!known) terminal.note(`loss ${formatLoss(measured.loss)}  ${pattern}`);
    return measured;
  };
}

function comparedPatterns(
  candidates: readonly ComparedPattern[],
  { own, compared }: Losses,
  sources: readonly number[],
  statistics: PairStatisticsResult,
): AnalysisFile["patterns"] {
  const all: { origin: AnalysisFile["patterns"][number]["origin"]; measurement: MeasuredPattern }[] = [
    { origin: "model", measurement: own },
    ...candidates.map(({ origin }, index) => ({ origin, measurement: compared[index] as MeasuredPattern })),
  ];
  return all.map(({ origin, measurement }) => {
    const { change, standardError } = lossChange(measurement, own);
    return {
      origin,
      full_layers: fullLayers(measurement.pattern).length,
      index_topk_pattern: measurement.pattern,
      mean_of_shared_layers: sharedLayerMeans(measurement.pattern, sources, statistics),
      loss: measurement.loss,
      standard_error: measurement.standardError,
      change,
      change_standard_error: standardError,
    };
  });
}

function flipRecords({ base, flips, pairs }: Losses): Pick<AnalysisFile, "sensitivity" | "pairs"> {
  return {
    sensitivity: {
      base: base.pattern,
      base_loss: base.loss,
      flips: flips.map(({ layer, measurement, change, standardError }) => ({
        layer,
        loss: measurement.loss,
        change,
        change_standard_error: standardError,
      })),
    },
    pairs: pairs?.map(({ layers, measurement, change, interaction }) => ({
      layers,
      loss: measurement.loss,
      change,
      interaction: interaction.change,
      interaction_standard_error: interaction.standardError,
    })),
  };
}

function tellOfSearched(
  searched: PatternFile | undefined,
  candidates: readonly ComparedPattern[],
  sizes: readonly number[],
  set: CalibrationSet,
  terminal: Terminal,
): void {
  if (searched === undefined) return;
  for (const full of sizes) {
    if (candidates.some(({ origin, pattern }) => origin === "searched" && fullLayers(pattern).length === full))
      continue;
    terminal.warn(`the searched file has no pattern with ${full} Full layers`);
  }
  if (searched.calibration.hash !== set.hash) {
    terminal.note("the searched pattern was found on other text than this; all losses here are on this one");
  }
}
