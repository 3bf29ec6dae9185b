/** `indexcache distill`: indexers trained for the layers that they serve. */

import { basename } from "node:path";
import { type Command, Option } from "commander";
import { GateFailure, InputError, UsageError } from "../../base/errors.ts";
import { sketchOf } from "../../base/ngram-sketch.ts";
import { counted } from "../../base/quantities.ts";
import { toolVersion } from "../../base/version.ts";
import { type CalibrationSet, hashWindows } from "../../calibration/calibration-set.ts";
import { type Placement, placements, requireEmptyTarget } from "../../checkpoint/derived/derived-checkpoint.ts";
import { DistillFolder } from "../../distill/distill-folder.ts";
import { type DistillationSettings, distil } from "../../distill/distillation.ts";
import { requireStorable, writeDistilledCheckpoint } from "../../distill/distilled-checkpoint.ts";
import { type DistilledOrigin, distilledFiles } from "../../distill/distilled-files.ts";
import { defaultRecipe, type Recipe } from "../../distill/recipe.ts";
import { readDistilledManifest, TRAINING_RUNS, trainingTexts } from "../../formats/distilled-manifest.ts";
import type { ModelFolder, ModelIdentity } from "../../graph/model-folder.ts";
import { openModel } from "../../graph/model-folder.ts";
import { type TargetWeight, targetWeights } from "../../graph/training/attention-target.ts";
import { type StepStates, stepStates } from "../../graph/training/distill-graph.ts";
import { isFull, type Pattern } from "../../pattern/pattern.ts";
import { type DistillPlanRecord, formatDistillPlan } from "../../report/distill/distill-plan.ts";
import { type DistillDisplay, PlainDistillDisplay } from "../../report/distill/distill-progress.ts";
import { type DistillRecord, distillRecord, formatDistillReport } from "../../report/distill/distill-report.ts";
import type { ComputeDevice } from "../../runtime/measurement.ts";
import { defaultThreads } from "../../runtime/session/onnx-session.ts";
import { addMixOptions, type MixFlags } from "../arguments/calibration-mix.ts";
import { type Choosing, choosePattern, openDevices } from "../arguments/inputs.ts";
import { addJournalOptions, type JournalFlags, logMode } from "../arguments/journal-options.ts";
import { addModelToRun, openModelToRun, type VerifyFlags } from "../arguments/opening.ts";
import {
  addDeviceOptions,
  addOutputOptions,
  type DeviceFlags,
  decimalNumber,
  demoModel,
  devicesOption,
  type OutputFlags,
  positiveNumber,
  type WorkerFlags,
  wholeNumber,
} from "../arguments/options.ts";
import { whileShowing } from "../console/display.ts";
import { recordedCommand } from "../console/interruption.ts";
import { deviceWords, modelWords, proposedCommand, proposeUse } from "../console/next-command.ts";
import type { Terminal } from "../console/terminal.ts";
import { addWork } from "../console/work.ts";
import { freeDisk, freeMemory, openPlanned, planFor, plannedLength, requireRoom, speedOf } from "./distill-needs.ts";
import { DistillRun, explainEnd, explainUnwritten, heldOutLosses, measuredByLayer } from "./distill-run.ts";
import { heldOutCount, openTrainingText, splitText } from "./distill-text.ts";

interface DistillFlags extends VerifyFlags, MixFlags, DeviceFlags, WorkerFlags, JournalFlags, OutputFlags {
  pattern: string;
  offset: number;
  output?: string;
  targets: Recipe["targets"];
  weight: TargetWeight;
  steps: number;
  rate: number;
  batch: number;
  holdout?: string;
  work?: string;
  dryRun?: boolean;
  dropSharedIndexers?: boolean;
  shards: Placement;
  inMemory?: boolean;
  states?: StepStates;
}

const help = `
Each Full layer's indexer learns the attention of all layers that read its
selection; nothing else of the model changes. Hidden states are made once, a
layer in memory at a time, and kept in files; training reads them, a group of
layers at a time. So a model can be far larger than the memory: --dry-run says
what it takes.

--pattern any trains for whatever pattern is searched next: each step draws one.
A pattern is best searched on indexers that were trained that way, and then
trained for on its own.

Ctrl-C saves; --resume ends in the same bytes as a run that was never cut.

Examples:
  $ indexcache distill --pattern uniform:4 --dry-run    what it takes, for the demo model
  $ indexcache distill --pattern uniform:4 -c text.jsonl -o ./demo-uniform4
  $ indexcache distill ./model -p quarter.json -c text.jsonl -o ./model-quarter
  $ indexcache distill ./model -p quarter.json -c text.jsonl=0.7 -c ruler:fwe=0.3 -o ./model-quarter
  $ indexcache distill ./model --pattern any -c text.jsonl -o ./model-any
  $ indexcache search ./model-any -c text.jsonl --retain 1/6 -o sixth.json
  $ indexcache distill ./GLM-5/config.json -p uniform:4 --batch 1 --dry-run`;

export function addDistillCommand(program: Command): void {
  const command = program
    .command("distill")
    .description("Train the indexers that a pattern keeps for the layers they serve");
  addModelToRun(command);
  command
    .optionsGroup("What is trained:")
    .requiredOption("-p, --pattern <pattern>", "the pattern to train for, as other commands take it, or any")
    .option("--offset <n>", "index_skip_topk_offset of freq:N", wholeNumber, 2)
    .option("-o, --output <folder>", "the new checkpoint")
    .option("--dry-run", "say what it takes of disk, memory and time, and stop; MODEL may be a config.json");
  addMixOptions(command);
  command
    .optionsGroup("How it is trained:")
    .option(
      "--holdout <share>",
      "share of the sequences that decides which step is best (default: 1/16, at most 4 batches)",
    )
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
    .optionsGroup("Files and resuming:")
    .option("--drop-shared-indexers", "leave out the indexers of Shared layers, as `pattern apply` does")
    .addOption(
      new Option("--shards <how>", "how weight files that do not change get there").choices(placements).default("copy"),
    )
    .option("--work <folder>", "where hidden states and progress are kept (default: OUTPUT.work)")
    .addOption(
      new Option(
        "--states <how>",
        "hidden states of every layer are kept, or those of a group's first layer and each step runs the group (default: stored on a CPU, computed on a GPU that holds a group)",
      ).choices(stepStates),
    )
    .option("--in-memory", "keep hidden states in memory; cannot be resumed");
  addJournalOptions(command, "work folder");
  addDeviceOptions(command);
  command.addOption(devicesOption("several devices take a group of layers each"));
  addOutputOptions(command);
  const shown = "pattern output dry-run calibration sequences holdout steps rate device resume";
  addWork(command, { help, shown, stopping: "Stopping after the step at hand; Ctrl-C again kills" }, distilModel);
}

/** Room is looked for once it is known what is trained. */
const later = async (): Promise<void> => undefined;

async function distilModel(path = demoModel, flags: DistillFlags, terminal: Terminal): Promise<void> {
  const { signal } = terminal;
  requireSensible(flags);
  if (flags.dryRun === true) return await showPlan(path, flags, terminal);
  const output = flags.output;
  if (output === undefined) throw new UsageError("-o is missing: it names the folder of the new checkpoint");
  await requireEmptyTarget(output);
  const model = await openModelToRun(path, { ...flags, lookForRoom: later }, terminal);
  const pattern: Pattern | "any" = flags.pattern === "any" ? "any" : await choosePattern(model, flags);
  requireSomethingToLearn(model, pattern, terminal);
  const layers = [...model.config.indexerLayers].map((_, layer) => layer);
  requireStorable(await model.weights(), pattern === "any" ? layers : layers.filter((layer) => isFull(pattern, layer)));
  const recipe: Recipe = { ...defaultRecipe, ...pick(flags), seed: flags.seed };
  const set = await openTrainingText(model, flags, recipe, flags.holdout, terminal);
  // Losses before and after and the states that training reads; a step's rows pass the attention that is learned from, too.
  const stepped = stepsCost * recipe.steps * recipe.batch * set.sequenceLength;
  const { device, devices, threads } = await openPlaces(flags, terminal, {
    work: { model, amount: () => ({ passed: 3 * set.tokens + stepped }) },
  });
  const text = splitText(set, recipe, flags.holdout);
  terminal.note(`training on ${counted(text.training.length, "sequence")}, ${text.heldOut.length} held out`);
  const counts = { sequences: text.training.length, heldOut: text.heldOut.length, length: set.sequenceLength };
  const work = flags.inMemory === true ? undefined : (flags.work ?? `${output}.work`);
  const plan = await planFor(model.config, pattern, { ...recipe, weight: flags.weight }, counts, devices, flags.states);
  for (const each of devices) await requireRoom(plan, each, work);
  const base = {
    stepStates: plan.stepStates,
    pattern,
    recipe,
    weight: flags.weight,
    device,
    devices,
    threads: threads ?? defaultThreads(),
    measurements: 9,
    signal,
  };
  const identity = await model.identity();
  const store = work === undefined ? undefined : await openStore(work, identity, set, text.heldOut, base, flags);
  const before = await heldOutLosses(model, text.heldOut, pattern, base, signal, terminal);
  const run = new DistillRun(recipe.steps, terminal);
  const shown = {
    inLines: () => new PlainDistillDisplay(devices.length > 1, (line) => terminal.note(line)),
    inView: async (stream: NodeJS.WriteStream) => {
      const { openDistillView } = await import("../../tui/distill-view.tsx");
      return openDistillView(stream, `${model.config.name}: distill for ${flags.pattern}`, work);
    },
    tick: (display: DistillDisplay) => display.show(run.state),
    close: (display: DistillDisplay) => display.close(),
  };
  await whileShowing(terminal, shown, async (display) => {
    const onCarried: DistillationSettings["onCarried"] = (layer, done, total) => {
      run.carried(layer, done, total);
      display.show(run.state);
    };
    for await (const event of distil(model, text, { ...base, store, onCarried })) {
      run.take(event);
      display.show(run.state, event);
    }
  }).catch(async (error: unknown) => {
    await store?.close();
    throw explainEnd(error, work);
  });
  const earlier = trainingTexts(await readDistilledManifest(model.path)).filter(({ hash }) => hash !== set.hash);
  const origin: DistilledOrigin = {
    kind: "indexcache-distilled",
    format: 1,
    made_from: { name: identity.name, config_hash: identity.configHash, weight_hash: identity.weightHash },
    pattern,
    recipe: { ...recipe, weight: flags.weight },
    text: {
      source: set.source,
      hash: set.hash,
      ngrams: sketchOf(set.windows, TRAINING_RUNS),
      sequences: text.training.length,
      length: set.sequenceLength,
      held_out_sequences: text.heldOut.length,
    },
    earlier_texts: earlier.length === 0 ? undefined : earlier,
    kept_steps: Object.fromEntries(run.kept),
    measured: measuredByLayer(
      [...run.kept.keys()],
      (layer) => store?.measured(run.groupOf(layer)) ?? run.measured(layer),
    ),
    tool: { version: toolVersion, command: recordedCommand(process.argv) },
  };
  const report = await writeDistilledCheckpoint(
    output,
    model,
    run.trained,
    (leftOut) => distilledFiles(model.path, model.config.modelType, origin, leftOut),
    {
      signal,
      placement: flags.shards,
      ...(flags.dropSharedIndexers === true && pattern !== "any" ? { dropShared: pattern } : {}),
    },
  ).catch(async (error: unknown) => {
    await store?.close();
    throw explainUnwritten(error, work);
  });
  terminal.note(
    `written: ${output}${report.leftOutTensors === 0 ? "" : `, without ${report.leftOutTensors} tensors of Shared layers' indexers`}`,
  );
  await store?.remove();
  const after = await heldOutLosses(await openModel(output), text.heldOut, pattern, base, signal, terminal);
  const record = distillRecord({ checkpoint: output, pattern, steps: recipe.steps, before, after, kept: run.kept });
  terminal.answer(record, () => formatDistillReport(record, terminal.resultWidth));
  requireGain(record);
  proposeNext(output, { path, architecture: model.config.modelType }, pattern, flags, terminal);
}

function proposeNext(
  output: string,
  { path: model, architecture }: { path: string; architecture: string },
  pattern: Pattern | "any",
  flags: DistillFlags,
  terminal: Terminal,
): void {
  const { calibration, sequenceLength, dropSharedIndexers } = flags;
  if (pattern === "any") {
    const text = calibration.flatMap((source) => ["-c", source]);
    const length = sequenceLength === undefined ? [] : ["--sequence-length", String(sequenceLength)];
    const wanted = ["--retain", "1/2,1/4", ...deviceWords(flags), "-o", `${basename(output)}.json`];
    terminal.next("which layers can share now", proposedCommand(["search", output, ...text, ...length, ...wanted]));
  } else if (dropSharedIndexers === true) {
    proposeUse(terminal, { pattern: output, architecture, model: output, device: flags.device });
  } else {
    // Other weights are another model: a run on each, and their samples side by side.
    const name = basename(output);
    const files = [`${name}-before.json`, `${name}-after.json`];
    const runs = [model, output].map((path, index) =>
      proposedCommand(["eval", ...modelWords(path), ...deviceWords(flags), "-o", files[index] as string]),
    );
    const both = proposedCommand(["eval", ...files.flatMap((file) => ["--from", `${file}.samples.jsonl`])]);
    terminal.next("whether answers stay as good", [...runs, both].join(" && "));
  }
}

/** Flags that contradict each other, before anything is read. */
function requireSensible(flags: DistillFlags): void {
  if (flags.inMemory === true && (flags.resume === true || flags.work !== undefined)) {
    throw new UsageError("--in-memory keeps nothing on disk: it cannot be combined with --resume or --work");
  }
  logMode(flags);
  if (flags.dropSharedIndexers === true && flags.pattern === "any") {
    throw new UsageError("--drop-shared-indexers needs a pattern: with --pattern any every indexer may be needed");
  }
}

/** `--dry-run`: without a text, for as many sequences as the steps can use. */
async function showPlan(path: string, flags: DistillFlags, terminal: Terminal): Promise<void> {
  const model = await openPlanned(path);
  const { config } = model;
  const pattern: Pattern | "any" = flags.pattern === "any" ? "any" : await choosePattern(model, flags);
  const recipe: Recipe = { ...defaultRecipe, ...pick(flags), seed: flags.seed };
  const { device, devices, threads } = await openPlaces(flags, terminal);
  const work = flags.work ?? `${flags.output ?? "OUTPUT"}.work`;
  const given = flags.calibration.length > 0;
  const shape = async () => {
    if (!given) {
      const drawn = recipe.steps * recipe.batch;
      const sequences = Math.min(flags.sequences ?? drawn, drawn);
      const heldOut = heldOutCount(sequences, recipe.batch, flags.holdout);
      return { sequences, heldOut, length: plannedLength(config, flags.sequenceLength) };
    }
    const opened = await openModelToRun(path, { ...flags, lookForRoom: later }, terminal);
    const set = await openTrainingText(opened, flags, recipe, flags.holdout, terminal);
    const text = splitText(set, recipe, flags.holdout);
    return { sequences: text.training.length, heldOut: text.heldOut.length, length: set.sequenceLength };
  };
  const plan = await planFor(
    config,
    pattern,
    { ...recipe, weight: flags.weight },
    await shape(),
    devices,
    flags.states,
  );
  const record: DistillPlanRecord = {
    model: config.name,
    pattern,
    work,
    disk_free: await freeDisk(work),
    memory_free: await freeMemory(device),
    device,
    flops: await speedOf(device, threads ?? defaultThreads()),
    text: given ? "given" : "assumed",
    ...plan,
  };
  terminal.answer(record, () => formatDistillPlan(record, terminal.resultWidth));
  for (const each of devices) await requireRoom(plan, each, work);
}

/** A row of a training step costs as much as this many of a pass, about. */
const stepsCost = 8;

/** The first device makes the hidden states and measures losses, all of them train. */
async function openPlaces(
  flags: DistillFlags,
  terminal: Terminal,
  choosing?: Choosing,
): Promise<{ device: ComputeDevice; devices: readonly ComputeDevice[]; threads?: number }> {
  const { threads, ...place } = await openDevices(flags, terminal, choosing);
  const devices = "devices" in place ? place.devices : [place.device];
  return { device: devices[0] ?? "cpu", devices, ...(threads === undefined ? {} : { threads }) };
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

async function openStore(
  path: string,
  { configHash, weightHash }: Required<ModelIdentity>,
  set: CalibrationSet,
  heldOut: readonly Int32Array[],
  { pattern, recipe, weight, stepStates: states }: DistillationSettings,
  flags: DistillFlags,
): Promise<DistillFolder> {
  const fingerprint = {
    model_config_hash: configHash,
    weight_hash: weightHash,
    text_hash: set.hash,
    held_out_hash: hashWindows(heldOut),
    pattern,
    settings: { ...recipe, weight, states },
    tool_version: toolVersion,
  };
  return await DistillFolder.open(path, fingerprint, logMode(flags));
}

/** A distillation that made things worse, beyond what chance explains, is written, and said to be one. */
function requireGain({ change }: DistillRecord): void {
  if (change === undefined || change.mean <= 2 * (change.standard_error ?? 0)) return;
  throw new GateFailure("The trained indexers lose more than the untrained ones on held-out text", {
    hint: "a lower --rate, more --steps, or text that is more like what the model is used for",
  });
}
