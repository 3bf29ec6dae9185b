/**
 * Opens GPUs that are asked for by name while texts are still being read: opening one takes about as long. `auto` knows only
 * then whether there is enough to do for one.
 */
import { chooseLength } from "../../calibration/calibration-set.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { armsProgram, foreseeArms } from "../../runtime/generate/parallel-arms.ts";
import { foreseeLosses, type LossPlace, type LossSettings } from "../../runtime/loss/loss-evaluator.ts";
import { lossProgram } from "../../runtime/loss/parallel-loss.ts";
import type { ComputeDevice } from "../../runtime/measurement.ts";
import { EarlyProcesses } from "../../runtime/process/early-processes.ts";
import { defaultThreads } from "../../runtime/session/onnx-session.ts";
import { generatedOf, type MixFlags } from "./calibration-mix.ts";
import type { DeviceFlags, DtypeFlags, WorkerFlags } from "./options.ts";

/** Loading a model again, if other sequences come than were foreseen, should cost little. */
const mostWeightBytes = 2 ** 31;
/** Sequences that `-c` may bring where nobody says how many: as many as fill any run. */
const manySequences = 256;

/** Of generated prompts where `--lengths` does not say. */
const usualLength = 4096;

type PlaceFlags = DeviceFlags & WorkerFlags;

/** Where losses are computed, if that is on GPUs that are asked for by name. */
function namedGpus({ device, devices, workers }: PlaceFlags): LossPlace | undefined {
  const named = devices ?? [device];
  if (named === "all" || named.some((each) => each === "auto" || each === "cpu")) return undefined;
  if (devices !== undefined && devices !== "all") return { devices };
  return device === "auto" ? undefined : { device, ...(workers === undefined ? {} : { workers }) };
}

/** Starts processes for losses, on GPUs that are asked for by name; the caller ends those that it did not use. */
export function startLosses(flags: PlaceFlags): EarlyProcesses | undefined {
  const place = namedGpus(flags);
  return place && startLossesAt(place);
}

/** The same for answers. */
export function startArms(flags: PlaceFlags): EarlyProcesses | undefined {
  const place = namedGpus(flags);
  return place && startAt(place, armsProgram);
}

/** The same for GPUs that were chosen. */
export function startLossesAt(place: LossPlace): EarlyProcesses | undefined {
  return startAt(place, lossProgram);
}

function startAt(place: LossPlace, program: string): EarlyProcesses | undefined {
  const devices = "devices" in place ? place.devices : new Array<ComputeDevice>(place.workers ?? 1).fill(place.device);
  return devices.includes("cpu") ? undefined : new EarlyProcesses(program, devices.length);
}

/** Lengths of the sequences that `-c` will bring, unless only reading it can tell. */
function foreseenLengths(model: ModelFolder, flags: MixFlags): number[] | undefined {
  const [source, ...others] = flags.calibration;
  const differ = flags.objective === "answer" || (source !== undefined && generatedOf(source) !== undefined);
  if (others.length > 0 || differ || !flags.pack) return undefined;
  return new Array<number>(flags.sequences ?? manySequences).fill(chooseLength(model.config, flags));
}

/** @param settings what decides graphs beside the place: with how many of `count` sequences */
export async function foresee(
  early: EarlyProcesses | undefined,
  model: ModelFolder,
  flags: PlaceFlags & DtypeFlags & MixFlags & { memory?: number },
  settings: (count: number) => Pick<LossSettings, "objective" | "together"> = () => ({}),
): Promise<void> {
  const place = namedGpus(flags);
  const lengths = foreseenLengths(model, flags);
  if (early === undefined || place === undefined || lengths === undefined || model.weightBytes > mostWeightBytes)
    return;
  const { dtype, memory, threads } = flags;
  await foreseeLosses(model, lengths, {
    ...place,
    ...settings(lengths.length),
    ...{ early, dtype },
    threads: Math.min(threads ?? defaultThreads(), defaultThreads()),
    ...(memory === undefined ? {} : { memory }),
  });
}

/** @param lengths of the prompts, where they are given */
export function foreseeAnswers(
  early: EarlyProcesses | undefined,
  model: ModelFolder,
  patterns: readonly Pattern[],
  lengths: readonly number[] | undefined,
  flags: PlaceFlags & DtypeFlags,
): void {
  const place = namedGpus(flags);
  if (early === undefined || place === undefined || model.weightBytes > mostWeightBytes) return;
  const { dtype, threads } = flags;
  const window = model.config.maxPositionEmbeddings;
  const tokens = Math.min(window, Math.max(...(lengths ?? [usualLength])));
  foreseeArms(model, patterns, tokens, { ...place, early, dtype, ...(threads === undefined ? {} : { threads }) });
}
