/** `indexcache analyze`: what layers select, and what sharing costs. */
import type { Command } from "commander";
import { type ComparedPattern, candidatesOf } from "../../analyze/compared-patterns.ts";
import { type MeasuredPattern, type MeasurePattern, measureFlips, measurePairs } from "../../analyze/loss-change.ts";
import { writeFileAtomically } from "../../base/files.ts";
import type { CalibrationSet } from "../../calibration/calibration-set.ts";
import { type AnalysisFile, formatAnalysisFile } from "../../formats/analysis-file.ts";
import type { Journal } from "../../formats/journal.ts";
import { readPatternFile, requireSameModel } from "../../formats/pattern-file.ts";
import type { PatternFile } from "../../formats/pattern-schema.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import { type AnalysisLosses, comparedPatterns, flipRecords } from "../../report/analysis-record.ts";
import { formatAnalysisReport } from "../../report/analysis-report.ts";
import { formatCount, formatLoss } from "../../report/quantities.ts";
import type { LossSettings } from "../../runtime/loss/loss-evaluator.ts";
import { meanLoss } from "../../runtime/loss/mean-loss.ts";
import { parseRetain } from "../../search/retain.ts";
import { type Flags, group, option } from "../arguments/declared-option.ts";
import { EarlyStart } from "../arguments/early.ts";
import {
  choosePattern,
  identityRecord,
  openCalibrationSet,
  openDevices,
  placeName,
  requireIndexers,
  toolRecord,
} from "../arguments/inputs.ts";
import {
  journalFingerprint,
  journalOptions,
  openEvaluationJournal,
  requireSensibleJournal,
} from "../arguments/journal-options.ts";
import { lossPlaceOptions, openModelForLosses } from "../arguments/memory.ts";
import { modelOptions } from "../arguments/opening.ts";
import {
  addModelArgument,
  calibrationOptions,
  demoModel,
  outputOptions,
  patternOptions,
} from "../arguments/options.ts";
import { withResume } from "../console/interruption.ts";
import { requireWritable } from "../console/output-file.ts";
import type { Terminal } from "../console/terminal.ts";
import { addWork } from "../console/work.ts";
import { localLosses } from "../loss-source.ts";
import { Measuring } from "../search/measuring.ts";
import { compareLayers } from "./layer-comparison.ts";

const options = [
  ...modelOptions,
  ...patternOptions,
  ...group(
    "What is compared:",
    option("--searched <file>", "a pattern file of this model to set beside the others"),
    option("-r, --retain <list>", "how many layers the compared patterns keep Full, with commas between", "1/2,1/4"),
    option("--pairs", "measure every pair of flips too: layers x layers / 2 evaluations"),
  ),
  ...group(
    "Files and resuming:",
    option("-o, --output <file>", "write the analysis file here, exactly"),
    ...journalOptions(),
  ),
  ...calibrationOptions,
  ...lossPlaceOptions,
  ...outputOptions,
] as const;

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
  addModelArgument(command);
  const shown = "pattern searched retain pairs output calibration sequences device resume json";
  addWork(command, { options, help, shown, stopping: "Stopping after the layer at hand; Ctrl-C again kills" }, analyze);
}

async function analyze(path = demoModel, flags: Flags<typeof options>, terminal: Terminal): Promise<void> {
  await requireSensibleJournal(flags);
  const started = performance.now();
  const early = new EarlyStart("losses", flags, terminal);
  const { model, device } = await openModelForLosses(path, flags, terminal);
  const { numHiddenLayers: layers, indexerLayers } = model.config;
  const sources = fullLayers(indexerLayers);
  const pattern = await choosePattern(model, flags);
  const sizes = [...new Set(flags.retain.split(",").map((text) => parseRetain(text.trim(), layers)))];
  requireIndexers(sizes, indexerLayers);
  const searched = flags.searched === undefined ? undefined : await readPatternFile(flags.searched);
  const identity = await identityRecord(model);
  if (searched !== undefined) requireSameModel(searched, identity, flags.searched ?? "");
  await requireWritable(flags.output);
  const set = await openCalibrationSet(model, flags.calibration, flags, terminal);
  const patterns = 2 + sizes.length * comparedEach + sources.length * (flags.pairs === true ? sources.length / 2 : 1);
  // Each runs from its first difference to a pattern before it: half of the layers on average.
  const amount = () => ({ passed: (patterns * set.tokens) / 2, sideBySide: set.windows.length });
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
  await model.checkWeights();
  const settings = { ...place, dtype: flags.dtype, memory: flags.memory, early: early.at(place) };
  try {
    const statistics = await compareLayers(model, pattern, set.windows, { ...place, memory: flags.memory }, terminal);
    const pairStatistics = statistics.result();
    const candidates = sizes.flatMap((full) => candidatesOf(full, indexerLayers, pairStatistics, searched));
    tellOfSearched(searched, candidates, sizes, set, terminal);
    const losses = await measureLosses({
      ...{ model, pattern, candidates, set, settings, journal, terminal },
      withPairs: flags.pairs === true,
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
    terminal.result(flags.json === true ? formatAnalysisFile(file) : formatAnalysisReport(file, terminal.resultWidth));
    if (flags.output !== undefined) terminal.note(`written: ${flags.output}`);
  } catch (error) {
    throw withResume(error, "every measured loss", journal?.path);
  } finally {
    await journal?.close();
  }
}

/** Patterns of a size that are compared: the best by each similarity, uniform and a searched one. */
const comparedEach = 5;

interface LossWork {
  model: ModelFolder;
  pattern: Pattern;
  candidates: readonly ComparedPattern[];
  set: CalibrationSet;
  settings: LossSettings & { dtype: string };
  withPairs: boolean;
  journal: Journal | undefined;
  terminal: Terminal;
}

/** Every loss of the analysis, each pattern once; what the journal has is not measured again. */
function measureLosses(work: LossWork): Promise<AnalysisLosses> {
  const { model, pattern, candidates, set, settings, journal, terminal } = work;
  return localLosses(model, set, settings, terminal).use("nll", async (evaluator) => {
    for (const line of evaluator.plan) terminal.detail(line);
    const measuring = new Measuring(journal, [], "nll");
    measuring.tellResumed(terminal);
    const windows = [...set.windows.keys()];
    const evaluate: MeasurePattern = async (measured, base) => {
      const known = measuring.of(measured) !== undefined;
      await measuring.complete(evaluator, [measured], windows, "loss", { base, signal: terminal.signal });
      const losses = measuring.of(measured);
      const sequences = windows
        .flatMap((index) => losses?.get(index) ?? [])
        .map(({ loss, tokens }) => ({ loss, tokens }));
      const mean = meanLoss(sequences);
      if (!known) terminal.note(`loss ${formatLoss(mean.loss)}  ${measured}`);
      return { pattern: measured, ...mean, sequences };
    };
    const own = await evaluate(model.config.indexerLayers, model.config.indexerLayers);
    const compared: MeasuredPattern[] = [];
    for (const candidate of candidates) compared.push(await evaluate(candidate.pattern, own.pattern));
    const base = await evaluate(pattern, pattern);
    const flips = await measureFlips(base, evaluate);
    if (work.withPairs) terminal.note(`pairs: ${formatCount((flips.length * (flips.length - 1)) / 2)}`);
    const pairs = work.withPairs ? await measurePairs(base, flips, evaluate) : undefined;
    return { own, base, compared, flips, pairs };
  });
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
