/** `distill --dry-run`, and how a run opens what both need: model and devices. */
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import type { DistillShape } from "../../distill/distill-plan.ts";
import type { Recipe } from "../../distill/recipe.ts";
import { type DistillPlanRecord, formatDistillPlan } from "../../report/distill/distill-plan.ts";
import type { ComputeDevice } from "../../runtime/measurement.ts";
import { defaultThreads } from "../../runtime/session/onnx-session.ts";
import { type Choosing, openDevices } from "../arguments/inputs.ts";
import { type ModelToRun, openModelToRun } from "../arguments/opening.ts";
import type { Terminal } from "../console/terminal.ts";
import { freeDisk, freeMemory, openPlanned, planFor, plannedLength, requireRoom, speedOf } from "./distill-needs.ts";
import { type DistillFlags, recipeOf, trainedPattern } from "./distill-options.ts";
import { heldOutCount, openTrainingText, splitText } from "./distill-text.ts";

/** `--dry-run`: without a text, for as many sequences as the steps can use. */
export async function showPlan(path: string, flags: DistillFlags, terminal: Terminal): Promise<void> {
  const model = await openPlanned(path);
  const { config } = model;
  const pattern = await trainedPattern(model, flags);
  const recipe = recipeOf(flags);
  const { device, devices, threads } = await openPlaces(flags, terminal);
  const work = flags.work ?? `${flags.output ?? "OUTPUT"}.work`;
  const given = flags.calibration.length > 0;
  const shape = given ? await shapeOfText(path, recipe, flags, terminal) : assumedShape(config, recipe, flags);
  const plan = await planFor(config, pattern, { ...recipe, weight: flags.weight }, shape, devices, flags.states);
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

async function shapeOfText(
  path: string,
  recipe: Recipe,
  flags: DistillFlags,
  terminal: Terminal,
): Promise<DistillShape> {
  const model = await openModelToTrain(path, flags, terminal);
  const set = await openTrainingText(model, flags, recipe, flags.holdout, terminal);
  return splitText(set, recipe, flags.holdout).shape;
}

/** As many sequences as the steps can use. */
function assumedShape(config: DsaConfig, { steps, batch }: Recipe, flags: DistillFlags): DistillShape {
  const sequences = Math.min(flags.sequences ?? steps * batch, steps * batch);
  const heldOut = heldOutCount(sequences, batch, flags.holdout);
  return { sequences, heldOut, length: plannedLength(config, flags.sequenceLength) };
}

/** Opens MODEL; room is looked for once it is known what is trained. */
export function openModelToTrain(path: string, flags: DistillFlags, terminal: Terminal): Promise<ModelToRun> {
  return openModelToRun(path, { ...flags, lookForRoom: async () => {} }, terminal);
}

/** A row of a training step costs as much as this many of a pass, about. */
export const stepsCost = 8;

/** The first device makes the hidden states and measures losses, all of them train. */
export async function openPlaces(
  flags: DistillFlags,
  terminal: Terminal,
  choosing?: Choosing,
): Promise<{ device: ComputeDevice; devices: readonly ComputeDevice[]; threads?: number }> {
  const { threads, ...place } = await openDevices(flags, terminal, choosing);
  const devices = "devices" in place ? place.devices : [place.device];
  return { device: devices[0] ?? "cpu", devices, ...(threads === undefined ? {} : { threads }) };
}
