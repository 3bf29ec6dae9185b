/** `indexcache distill`: indexers trained for the layers that they serve. */

import { basename } from "node:path";
import type { Command } from "commander";
import { GateFailure, InputError, UsageError } from "../../base/errors.ts";
import { sketchOf } from "../../base/ngram-sketch.ts";
import { counted } from "../../base/quantities.ts";
import { toolVersion } from "../../base/version.ts";
import { type CalibrationSet, hashWindows } from "../../calibration/calibration-set.ts";
import { requireEmptyTarget } from "../../checkpoint/derived/derived-checkpoint.ts";
import { DistillFolder } from "../../distill/distill-folder.ts";
import { distil } from "../../distill/distillation.ts";
import { requireRoomForResult, requireStorable, writeDistilledCheckpoint } from "../../distill/distilled-checkpoint.ts";
import { type DistilledOrigin, distilledFiles } from "../../distill/distilled-files.ts";
import type { DistillationSettings } from "../../distill/group-training.ts";
import { readDistilledManifest, TRAINING_RUNS, trainingTexts } from "../../formats/distilled-manifest.ts";
import type { ModelFolder, ModelIdentity } from "../../graph/model-folder.ts";
import { openModel } from "../../graph/model-folder.ts";
import { isFull, type Pattern } from "../../pattern/pattern.ts";
import { type DistillDisplay, PlainDistillDisplay } from "../../report/distill/distill-progress.ts";
import { type DistillRecord, distillRecord, formatDistillReport } from "../../report/distill/distill-report.ts";
import { defaultThreads } from "../../runtime/session/onnx-session.ts";
import { logMode } from "../arguments/journal-options.ts";
import { addModelArgument, demoModel } from "../arguments/options.ts";
import { whileShowing } from "../console/display.ts";
import { recordedCommand } from "../console/interruption.ts";
import { deviceWords, modelWords, proposedCommand, proposeUse } from "../console/next-command.ts";
import { ByteCount } from "../console/patience.ts";
import type { Terminal } from "../console/terminal.ts";
import { addWork } from "../console/work.ts";
import { openModelToTrain, openPlaces, showPlan, stepsCost } from "./distill-dry-run.ts";
import { bytesBeside, planFor, requireRoom } from "./distill-needs.ts";
import {
  type DistillFlags,
  distillOptions,
  recipeOf,
  requireSensibleDistillFlags,
  trainedPattern,
} from "./distill-options.ts";
import { DistillRun, explainEnd, explainUnwritten, heldOutLosses, measuredByLayer } from "./distill-run.ts";
import { openTrainingText, splitText } from "./distill-text.ts";

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
  addModelArgument(command);
  const shown = "pattern output dry-run calibration sequences holdout steps rate device resume";
  addWork(
    command,
    { options: distillOptions, help, shown, stopping: "Stopping after the step at hand; Ctrl-C again kills" },
    distilModel,
  );
}

async function distilModel(path = demoModel, flags: DistillFlags, terminal: Terminal): Promise<void> {
  const { signal } = terminal;
  requireSensibleDistillFlags(flags);
  if (flags.dryRun === true) return await showPlan(path, flags, terminal);
  const output = flags.output;
  if (output === undefined) throw new UsageError("-o is missing: it names the folder of the new checkpoint");
  await requireEmptyTarget(output);
  const work = flags.inMemory === true ? undefined : (flags.work ?? `${output}.work`);
  if (work !== undefined) await DistillFolder.requireFitting(work, logMode(flags));
  const model = await openModelToTrain(path, flags, terminal);
  const pattern = await trainedPattern(model, flags);
  requireSomethingToLearn(model, pattern, terminal);
  const all = [...model.config.indexerLayers].map((_, layer) => layer);
  const layers = pattern === "any" ? all : all.filter((layer) => isFull(pattern, layer));
  requireStorable(await model.weights(), layers);
  const recipe = recipeOf(flags);
  const set = await openTrainingText(model, flags, recipe, flags.holdout, terminal);
  // Losses before and after and the states that training reads; a step's rows pass the attention that is learned from, too.
  const stepped = stepsCost * recipe.steps * recipe.batch * set.sequenceLength;
  const { device, devices, threads } = await openPlaces(flags, terminal, {
    work: { model, amount: () => ({ passed: 3 * set.tokens + stepped }) },
  });
  const text = splitText(set, recipe, flags.holdout);
  terminal.note(`training on ${counted(text.training.length, "sequence")}, ${text.heldOut.length} held out`);
  const plan = await planFor(
    model.config,
    pattern,
    { ...recipe, weight: flags.weight },
    text.shape,
    devices,
    flags.states,
  );
  const placed = {
    placement: flags.shards,
    ...(flags.dropSharedIndexers === true && pattern !== "any" ? { dropShared: pattern } : {}),
  };
  await requireRoomForResult(output, model, layers, placed, await bytesBeside(output, plan, work));
  for (const each of devices) await requireRoom(plan, each, work);
  const identity = await model.identity();
  await model.checkWeights();
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
  const store = work === undefined ? undefined : await openStore(work, identity, set, text.heldOut, base, flags);
  const endedBy = (explain: typeof explainEnd) => async (error: unknown) => {
    await store?.close();
    throw explain(error, work);
  };
  const before = await heldOutLosses(model, text.heldOut, pattern, base, signal, terminal).catch(endedBy(explainEnd));
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
  }).catch(endedBy(explainEnd));
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
  const writing = new ByteCount(terminal, "writing weights");
  const report = await writeDistilledCheckpoint(
    output,
    model,
    run.trained,
    (leftOut) => distilledFiles(model.path, model.config.modelType, origin, leftOut),
    { ...placed, signal, onProgress: (done, total) => writing.reach(done, total) },
  ).catch(endedBy(explainUnwritten));
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
