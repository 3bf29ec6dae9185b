/** `distill`: what a run takes, shown by `--dry-run` and looked at before anything starts. */
import { stat, statfs } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { InputError, RuntimeFailure } from "../../base/errors.ts";
import { defaultSequenceLength } from "../../calibration/calibration-set.ts";
import { parseModelConfig } from "../../checkpoint/config/config-json.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { findModel } from "../../checkpoint/hub-cache.ts";
import { DistillFolder } from "../../distill/distill-folder.ts";
import {
  type DistillPlan,
  type DistillShape,
  distillPlan,
  totalMemory,
  type WeighedRecipe,
} from "../../distill/distill-plan.ts";
import { readText } from "../../formats/text-file.ts";
import { describeModel, type ModelDescription } from "../../graph/model-folder.ts";
import type { StepStates } from "../../graph/training/distill-graph.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { formatBytes } from "../../report/quantities.ts";
import { tryDevice } from "../../runtime/device/device-trial.ts";
import { availableMemory } from "../../runtime/device/host-memory.ts";
import { deviceMemory } from "../../runtime/loss/sequence-memory.ts";
import type { ComputeDevice } from "../../runtime/measurement.ts";

/** MODEL for a plan: a folder, or a config.json alone; weights may be missing. */
export async function openPlanned(text: string): Promise<ModelDescription> {
  const isFile = await stat(text).then(
    (found) => found.isFile(),
    () => false,
  );
  if (!isFile) return await describeModel(await findModel(text));
  const noun = `"${text}"`;
  const config = parseModelConfig(parseConfig(await readText(text, noun), noun), text, text);
  const identity = (): never => {
    throw new InputError(`A pattern file belongs to a model, and ${noun} is a config.json without weights`, {
      hint: "give F/S letters, uniform:N or any",
    });
  };
  return { path: dirname(resolve(text)), config, notes: config.notes, identity };
}

function parseConfig(text: string, noun: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new InputError(`${noun} is not JSON`, { cause: error });
  }
}

/** Tokens of a sequence, as a text would be cut. */
export function plannedLength(config: DsaConfig, asked: number | undefined): number {
  const length = asked ?? defaultSequenceLength(config);
  if (length > config.indexTopk) return length;
  throw new InputError(`--sequence-length is ${length}, not more than index_topk (${config.indexTopk})`, {
    hint: "every indexer would select all tokens: there is nothing to learn",
  });
}

/** Bytes that are free for files in a folder that may not be there yet; null where nothing tells. */
export async function freeDisk(folder: string): Promise<number | null> {
  const found = await ofNearest(folder, (path) => statfs(path));
  return found === undefined ? null : found.bavail * found.bsize;
}

/** Of the hidden states, bytes that are still to come on the disk of the result. */
export async function bytesBeside(output: string, plan: DistillPlan, work: string | undefined): Promise<number> {
  if (work === undefined) return 0;
  const near = (path: string) => ofNearest(path, (at) => stat(at));
  const [left, right] = [await near(dirname(resolve(output))), await near(work)];
  if (left === undefined || left.dev !== right?.dev) return 0;
  return Math.max(0, plan.diskBytes - (await DistillFolder.boundaryBytes(work)));
}

/** What `look` finds of a folder, or of the nearest one above it that is there. */
async function ofNearest<Found>(folder: string, look: (path: string) => Promise<Found>): Promise<Found | undefined> {
  for (let at = resolve(folder); ; at = dirname(at)) {
    const found = await look(at).catch(() => undefined);
    if (found !== undefined || at === dirname(at)) return found;
  }
}

/** Bytes that the device has free; null where nothing tells. */
export async function freeMemory(device: ComputeDevice): Promise<number | null> {
  return device === "cpu" ? availableMemory() : ((await deviceMemory(device))?.free ?? null);
}

/** Floating-point operations a second of matrix products on the device; null where it does not work. */
export async function speedOf(device: ComputeDevice, threads: number): Promise<number | null> {
  const trial = await tryDevice({ device, threads, seconds: 0.5 });
  return trial.works ? (trial.flops ?? null) : null;
}

/**
 * What a run takes, and where its steps find the states of the layers between. A CPU reads them: a step that runs no layer
 * takes a third of the time. A GPU runs the layers, as long as its memory holds a whole group: on an H200 the demo's states of
 * every layer took eight minutes on their way to the disk, and a group's layers run in a few milliseconds.
 */
export async function planFor(
  config: DsaConfig,
  pattern: Pattern | "any",
  recipe: WeighedRecipe,
  counts: DistillShape,
  devices: readonly ComputeDevice[],
  asked: StepStates | undefined,
): Promise<DistillPlan> {
  const plan = (states: StepStates) => distillPlan(config, pattern, recipe, counts, states, devices.length);
  if (asked !== undefined || devices.includes("cpu")) return plan(asked ?? "stored");
  const computed = plan("computed");
  const need = Math.max(totalMemory(computed.carry), totalMemory(computed.training));
  for (const device of devices) {
    // Of all memory, not of what is free now: a run that is taken up again has to come to the same answer.
    const total = (await deviceMemory(device))?.total ?? Number.POSITIVE_INFINITY;
    if (need > total) return plan("stored");
  }
  return computed;
}

/** @throws RuntimeFailure where the disk or the memory lacks what the run needs */
export async function requireRoom(plan: DistillPlan, device: ComputeDevice, work: string | undefined): Promise<void> {
  const inMemory = work === undefined;
  if (!inMemory) {
    const free = await freeDisk(work);
    const there = await DistillFolder.boundaryBytes(work);
    if (free !== null && plan.diskBytes > free + there) {
      throw new RuntimeFailure(
        `The hidden states take ${formatBytes(plan.diskBytes)} (${plan.boundaries} boundaries of ${formatBytes(plan.boundaryBytes)}) in "${work}", which has ${formatBytes(free)} free`,
        { hint: "--work on another disk, or less text (--sequences)" },
      );
    }
  }
  const free = await freeMemory(device);
  if (free === null) return;
  const states = inMemory ? plan.diskBytes : 0;
  // States in memory are the host's, whatever the device.
  const host = device === "cpu" ? states : 0;
  for (const [what, need, hint] of [
    ["The largest layer", plan.carry, "a machine or device with more memory, or shorter sequences (--sequence-length)"],
    ["The largest group", plan.training, "fewer sequences a step (--batch), or shorter ones (--sequence-length)"],
  ] as const) {
    if (totalMemory(need) + host <= free) continue;
    throw new RuntimeFailure(
      `${what} takes about ${formatBytes(totalMemory(need) + host)} (weights ${formatBytes(need.weights)}, batch ${formatBytes(need.batch)}${host === 0 ? "" : `, states ${formatBytes(host)}`}); ${device} has ${formatBytes(free)} free`,
      { hint },
    );
  }
  if (states > availableMemory()) {
    throw new RuntimeFailure(
      `The hidden states take ${formatBytes(states)} of memory, ${formatBytes(availableMemory())} are free`,
      {
        hint: "leave out --in-memory",
      },
    );
  }
}
