/** `indexcache distill`: indexers trained for the layers that they serve. */

import { type Command, Option } from "commander";
import { GateFailure, InputError, InterruptedError, UsageError } from "../base/errors.ts";
import { toolVersion } from "../base/version.ts";
import { type CalibrationSet, hashWindows } from "../calibration/calibration-set.ts";
import { requireEmptyTarget } from "../checkpoint/derived-checkpoint.ts";
import { DistillFolder } from "../distill/distill-folder.ts";
import { type DistillationSettings, type DistillEvent, distil } from "../distill/distillation.ts";
import { writeDistilledCheckpoint } from "../distill/distilled-checkpoint.ts";
import { distilledConfig, distilledManifest } from "../distill/distilled-files.ts";
import { defaultRecipe, type Recipe } from "../distill/recipe.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import { openModel } from "../graph/model-folder.ts";
import { type TargetWeight, targetWeights } from "../graph/training/attention-target.ts";
import { isFull, type Pattern } from "../pattern/pattern.ts";
import { DistillProgress } from "../report/distill-progress.ts";
import { type DistillRecord, distillRecord, formatDistillReport } from "../report/distill-report.ts";
import { openLossEvaluator } from "../runtime/loss.ts";
import type { ComputeDevice, Measurement } from "../runtime/measurement.ts";
import type { IndexerParameters } from "../runtime/training/gradient-session.ts";
import { choosePattern, openCalibrationSet, openDevice } from "./inputs.ts";
import { interruptible, recordedCommand, resumeCommand } from "./interruption.ts";
import { addModelToRun, openModelToRun, type VerifyFlags } from "./opening.ts";
import {
  addCalibrationOptions,
  addDeviceOptions,
  addOutputOptions,
  type CalibrationFlags,
  type DeviceFlags,
  decimalNumber,
  demoModel,
  type OutputFlags,
  positiveNumber,
  wholeNumber,
} from "./options.ts";
import { Terminal } from "./terminal.ts";

interface DistillFlags extends VerifyFlags, CalibrationFlags, DeviceFlags, OutputFlags {
  pattern: string;
  offset: number;
  output: string;
  targets: Recipe["targets"];
  weight: TargetWeight;
  steps: number;
  rate: number;
  batch: number;
  holdout?: string;
  work?: string;
  inMemory?: boolean;
  resume?: boolean;
  fresh?: boolean;
}

const help = `
Each Full layer's indexer learns the attention of all layers that read its selection. Nothing else of the model changes. A
group of layers is trained at a time: only its weights are loaded, its hidden states come from a file.

--pattern any trains for whatever pattern is searched next: each step draws one.

Examples:
  $ indexcache distill --pattern uniform:4 -c text.jsonl -o ./demo-uniform4
  $ indexcache distill ./model --pattern quarter.json -c text.jsonl --steps 1200 -o ./model-quarter
  $ indexcache distill ./model --pattern any -c text.jsonl -o ./model-any
  $ indexcache search ./model-any -c text.jsonl --retain 1/6 -o sixth.json`;

export function addDistillCommand(program: Command): void {
  const command = program
    .command("distill")
    .description("Train the indexers that a pattern keeps for the layers they serve");
  addModelToRun(command);
  command
    .requiredOption("-p, --pattern <pattern>", "the pattern to train for, as other commands take it, or any")
    .option("--offset <n>", "index_skip_topk_offset of freq:N", wholeNumber, 2)
    .requiredOption("-o, --output <folder>", "the new checkpoint");
  addCalibrationOptions(command);
  command
    .option("--holdout <share>", "share of the sequences that decides which step is best (default: 1/16)")
    .option("--steps <n>", "steps of training, for each group of layers", positiveNumber, defaultRecipe.steps)
    .option("--rate <x>", "highest learning rate", decimalNumber, defaultRecipe.rate)
    .option("--batch <n>", "sequences of a step", positiveNumber, defaultRecipe.batch)
    .addOption(
      new Option("--targets <what>", "attention of all layers served, or of the Full layer alone")
        .choices(["centroid", "own"])
        .default(defaultRecipe.targets),
    )
    .addOption(
      new Option("--weight <how>", "keys by what their values contribute, or by attention alone")
        .choices(targetWeights)
        .default("values"),
    )
    .option("--work <folder>", "where hidden states and progress are kept (default: OUTPUT.work)")
    .option("--in-memory", "keep hidden states in memory; cannot be resumed")
    .option("--resume", "go on where an earlier run stopped")
    .option("--fresh", "start again over what an earlier run has left");
  addDeviceOptions(command);
  addOutputOptions(command);
  command
    .addHelpText("after", help)
    .action((model: string | undefined, flags: DistillFlags) =>
      interruptible(
        (signal) => distilModel(model ?? demoModel, flags, signal),
        "Stopping after the step at hand; Ctrl-C again kills",
      ),
    );
}

async function distilModel(path: string, flags: DistillFlags, signal: AbortSignal): Promise<void> {
  const terminal = new Terminal(flags);
  if (flags.inMemory === true && (flags.resume === true || flags.work !== undefined)) {
    throw new UsageError("--in-memory keeps nothing on disk: it cannot be combined with --resume or --work");
  }
  await requireEmptyTarget(flags.output);
  const model = await openModelToRun(path, flags, terminal, signal);
  const pattern: Pattern | "any" = flags.pattern === "any" ? "any" : await choosePattern(model, flags);
  requireSomethingToLearn(model, pattern, terminal);
  const set = await openCalibrationSet(model, flags, terminal, signal);
  const { device, threads } = await openDevice(flags, terminal);
  const text = splitText(set, flags);
  terminal.note(`training on ${text.training.length} sequences, ${text.heldOut.length} are held out`);
  const recipe: Recipe = { ...defaultRecipe, ...pick(flags), seed: flags.seed };
  const base = { pattern, recipe, weight: flags.weight, device, threads: threads ?? 2, measurements: 9, signal };
  const work = flags.work ?? `${flags.output}.work`;
  const store = flags.inMemory === true ? undefined : await openStore(work, model, set, text.heldOut, base, flags);
  const before = await heldOutLosses(model, text.heldOut, pattern, base, signal);
  const settings: DistillationSettings = { ...base, ...(store === undefined ? {} : { store }) };
  const trained = new Map<number, IndexerParameters>();
  const best = new Map<number, number>();
  const progress = new DistillProgress(recipe.steps, (line) => terminal.note(line));
  try {
    for await (const event of distil(model, text, settings)) {
      progress.show(event);
      collect(event, trained, best);
    }
  } catch (error) {
    await store?.close();
    if (!(error instanceof InterruptedError) || store === undefined) throw error;
    throw new InterruptedError(`Interrupted; what was trained so far is in "${work}"`, {
      hint: `go on with: ${resumeCommand(process.argv)}`,
      cause: error,
    });
  }
  const identity = await model.identity();
  const manifest = distilledManifest({
    model: identity,
    pattern,
    recipe,
    weight: flags.weight,
    text: { source: set.source, hash: set.hash, sequences: text.training.length, length: set.sequenceLength },
    best,
    command: recordedCommand(process.argv),
  });
  const config = { name: "config.json", content: await distilledConfig(model.path, pattern) };
  await writeDistilledCheckpoint(flags.output, model, trained, [config, manifest]);
  terminal.note(`written: ${flags.output}`);
  await store?.remove();
  const after = await heldOutLosses(await openModel(flags.output), text.heldOut, pattern, base, signal);
  const record = distillRecord({ target: flags.output, pattern, steps: recipe.steps, before, after, best });
  terminal.result(flags.json === true ? JSON.stringify(record, null, 2) : formatDistillReport(record));
  requireGain(record);
}

function pick({ steps, rate, batch, targets }: DistillFlags): Pick<Recipe, "steps" | "rate" | "batch" | "targets"> {
  if (!(rate > 0)) throw new UsageError(`--rate is ${rate}: it must be greater than 0`);
  return { steps, rate, batch, targets };
}

/** Nothing can be learned for a pattern without Shared layers but what the indexers know already. */
function requireSomethingToLearn({ config }: ModelFolder, pattern: Pattern | "any", terminal: Terminal): void {
  if (pattern === "any") return;
  const missing = [...pattern].findIndex((_, layer) => isFull(pattern, layer) && !isFull(config.indexerLayers, layer));
  if (missing >= 0) {
    throw new InputError(`Layer ${missing} is Full in the pattern, and the model has no indexer there to train`);
  }
  if (pattern === config.indexerLayers) {
    terminal.warn("the pattern shares nothing that the model does not share already: there is little to learn");
  }
}

/** The last sequences of the set are held out: neighbours of the same document stay on one side. */
function splitText(set: CalibrationSet, { holdout, batch }: DistillFlags) {
  const share = parseShare(holdout ?? "1/16");
  const count = share === 0 ? 0 : Math.max(batch, Math.round(set.windows.length * share));
  const training = set.windows.slice(0, set.windows.length - count);
  if (training.length < batch) {
    throw new InputError(
      `The text has ${set.windows.length} sequences of ${set.sequenceLength} tokens: too few for a batch of ${batch} and ${count} held out`,
      { hint: "give more text, or a smaller --batch" },
    );
  }
  return { training, heldOut: set.windows.slice(set.windows.length - count) };
}

function parseShare(text: string): number {
  const [above = "", below = "1", more] = text.split("/");
  const value = Number(above) / Number(below);
  if (more !== undefined || above.trim() === "" || !(value >= 0 && value < 1)) {
    throw new UsageError(`--holdout is ${text}: it must be a share such as 1/16 or 0.1, or 0`);
  }
  return value;
}

async function openStore(
  path: string,
  model: ModelFolder,
  set: CalibrationSet,
  heldOut: readonly Int32Array[],
  { pattern, recipe, weight }: { pattern: Pattern | "any"; recipe: Recipe; weight: TargetWeight },
  flags: DistillFlags,
): Promise<DistillFolder> {
  const { configHash, weightHash } = await model.identity();
  const fingerprint = {
    model_config_hash: configHash,
    weight_hash: weightHash,
    text_hash: set.hash,
    held_out_hash: hashWindows(heldOut),
    pattern,
    settings: { ...recipe, weight },
    tool_version: toolVersion,
  };
  const mode = flags.resume === true ? "resume" : flags.fresh === true ? "fresh" : "create";
  return await DistillFolder.open(path, fingerprint, mode);
}

/** Losses of the model's own pattern and of the trained one, sequence by sequence. */
async function heldOutLosses(
  model: ModelFolder,
  windows: readonly Int32Array[],
  pattern: Pattern | "any",
  { device, threads }: { device: ComputeDevice; threads: number },
  signal: AbortSignal,
): Promise<{ own: Measurement; chosen: Measurement | undefined } | undefined> {
  if (windows.length === 0) return undefined;
  const evaluator = await openLossEvaluator(model, windows, { device, threads, workers: 1, dtype: "float32" });
  try {
    // What the source calls Full: the new config makes the pattern the model's own.
    const own = await evaluator.evaluate(model.config.indexerLayers, { signal });
    const chosen = pattern === "any" ? undefined : await evaluator.evaluate(pattern, { signal });
    return { own, chosen };
  } finally {
    await evaluator.release();
  }
}

function collect(event: DistillEvent, trained: Map<number, IndexerParameters>, best: Map<number, number>): void {
  if (event.type !== "trained") return;
  for (const [layer, parameters] of event.parameters) {
    trained.set(layer, parameters);
    best.set(layer, event.step);
  }
}

/** A distillation that made things worse is written, and said to be one. */
function requireGain(record: DistillRecord): void {
  if (record.change === undefined || record.change.mean <= 0) return;
  throw new GateFailure("The trained indexers lose more than the untrained ones on held-out text", {
    hint: "a lower --rate, more --steps, or text that is more like what the model is used for",
  });
}
