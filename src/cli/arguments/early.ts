/**
 * Starts the processes of GPUs, and opens the model in them, while a command still reads its texts: a GPU takes about as long.
 * Named GPUs are started with the command, the one that `auto` finds beside its trial.
 */
import { stat } from "node:fs/promises";
import { chooseLength } from "../../calibration/calibration-set.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { armsProgram, foreseeArms } from "../../runtime/generate/parallel-arms.ts";
import { foreseeLosses, type LossPlace, type LossSettings } from "../../runtime/loss/loss-evaluator.ts";
import { lossProgram } from "../../runtime/loss/parallel-loss.ts";
import type { ComputeDevice } from "../../runtime/measurement.ts";
import { EarlyProcesses } from "../../runtime/process/early-processes.ts";
import { defaultThreads } from "../../runtime/session/onnx-session.ts";
import type { Terminal } from "../console/terminal.ts";
import { generatedOf, type MixFlags } from "./calibration-mix.ts";
import { type DeviceFlags, type DtypeFlags, demoCalibration, type WorkerFlags } from "./options.ts";

/** Loading a model again, if other sequences come than were foreseen, should cost little. */
const mostWeightBytes = 2 ** 31;
/** Sequences that `-c` may bring where nobody says how many: as many as fill any run, out of a text of many bytes. */
const many = { sequences: 256, bytes: 2 ** 20 };
/** Tokens of generated prompts where `--lengths` does not say. */
const usualLength = 4096;

type PlaceFlags = DeviceFlags & WorkerFlags & DtypeFlags & { memory?: number };

/** Opens what is foreseen in processes that have been started. */
type Opening = (place: LossPlace, early: EarlyProcesses) => unknown;

export class EarlyStart {
  readonly #program: string;
  readonly #flags: PlaceFlags;
  #started: { place: LossPlace; processes: EarlyProcesses } | undefined;
  #opening: Opening | undefined;

  /** Of a command that measures losses, or that has prompts answered; what nobody took ends with it. */
  constructor(work: "losses" | "answers", flags: PlaceFlags, terminal: Terminal) {
    this.#program = work === "losses" ? lossProgram : armsProgram;
    this.#flags = flags;
    terminal.atEnd(() => this.#end());
    const place = namedGpus(flags);
    if (place !== undefined) this.#start(place);
  }

  /** For `openDevices`: `auto` is about to try this device. */
  readonly onTrial = (device: ComputeDevice): void => {
    const { workers } = this.#flags;
    if (this.#started === undefined) this.#start({ device, ...(workers === undefined ? {} : { workers }) });
  };

  /** Losses of sequences, whose lengths are known or guessed. */
  async foreseeLosses(
    model: ModelFolder,
    lengths: readonly number[] | undefined,
    settings: Pick<LossSettings, "objective" | "together"> = {},
  ): Promise<void> {
    if (lengths === undefined || model.weightBytes > mostWeightBytes) return;
    const { dtype, memory } = this.#flags;
    await this.#foresee((place, early) =>
      foreseeLosses(model, lengths, {
        ...{ ...place, ...settings, early, dtype, threads: this.#threads ?? defaultThreads() },
        ...(memory === undefined ? {} : { memory }),
      }),
    );
  }

  /** @param lengths of the prompts, where they are given */
  async foreseeAnswers(
    model: ModelFolder,
    patterns: readonly Pattern[],
    lengths: readonly number[] = [usualLength],
  ): Promise<void> {
    if (model.weightBytes > mostWeightBytes) return;
    const tokens = Math.min(model.config.maxPositionEmbeddings, Math.max(...lengths));
    const threads = this.#threads === undefined ? {} : { threads: this.#threads };
    const { dtype } = this.#flags;
    await this.#foresee((place, early) => foreseeArms(model, patterns, tokens, { ...place, ...threads, early, dtype }));
  }

  /** The processes, if that is where it is computed after all; ends them otherwise. */
  at(place: LossPlace): EarlyProcesses | undefined {
    if (devicesOf(place).includes("cpu")) this.#end();
    return this.#started?.processes;
  }

  #end(): void {
    this.#started?.processes.end();
    this.#started = undefined;
  }

  get #threads(): number | undefined {
    const { threads } = this.#flags;
    return threads === undefined ? undefined : Math.min(threads, defaultThreads());
  }

  #start(place: LossPlace): void {
    const processes = new EarlyProcesses(this.#program, devicesOf(place).length);
    this.#started = { place, processes };
    void this.#opening?.(place, processes);
  }

  async #foresee(opening: Opening): Promise<void> {
    this.#opening = opening;
    if (this.#started !== undefined) await opening(this.#started.place, this.#started.processes);
  }
}

/** Where it is computed, if that is on GPUs that are asked for by name. */
function namedGpus({ device, devices, workers }: PlaceFlags): LossPlace | undefined {
  if (devices === "all") return undefined;
  if (devices !== undefined) return devices.includes("cpu") ? undefined : { devices };
  if (device === "auto" || device === "cpu") return undefined;
  return { device, ...(workers === undefined ? {} : { workers }) };
}

function devicesOf(place: LossPlace): readonly ComputeDevice[] {
  return "devices" in place ? place.devices : new Array<ComputeDevice>(place.workers ?? 1).fill(place.device);
}

/** Lengths of the sequences that `-c` will bring, unless only reading it can tell. */
export async function foreseenLengths(model: ModelFolder, flags: MixFlags): Promise<number[] | undefined> {
  const [source = demoCalibration, ...others] = flags.calibration;
  const differ = flags.objective === "answer" || generatedOf(source) !== undefined;
  if (others.length > 0 || differ || !flags.pack) return undefined;
  const size = flags.sequences === undefined ? await stat(source).catch(() => undefined) : undefined;
  if (flags.sequences === undefined && !(size !== undefined && size.size >= many.bytes)) return undefined;
  return new Array<number>(flags.sequences ?? many.sequences).fill(chooseLength(model.config, flags));
}
