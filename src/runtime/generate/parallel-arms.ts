/** Prompts spread over processes, each with the whole model: whoever is free takes the next one. */

import { totalmem } from "node:os";
import { fileURLToPath } from "node:url";
import { counted } from "../../base/quantities.ts";
import type { Tokenizer } from "../../checkpoint/tokenizer/tokenizer.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import { availableMemory } from "../device/host-memory.ts";
import type { LossPlace } from "../loss/loss-evaluator.ts";
import { loadedPerStored, weightShare } from "../loss/weight-room.ts";
import type { ComputeDevice, Dtype } from "../measurement.ts";
import type { EarlyProcesses } from "../process/early-processes.ts";
import { orInterrupted } from "../process/interrupted-child.ts";
import { openAll, ReplaceableProcess } from "../process/replaceable-process.ts";
import { defaultThreads } from "../session/onnx-session.ts";
import { standInIds } from "../session/stand-in-ids.ts";
import { type ArmAnswer, type ArmRunner, Arms, type PromptRequest } from "./arms.ts";
import type { PrefillSettings } from "./pattern-decoders.ts";

/** Parent to child. */
export type ArmRequest =
  | { kind: "open"; path: string; patterns: readonly Pattern[]; settings: PrefillSettings }
  | { kind: "answer"; prompt: PromptRequest; patterns: readonly Pattern[] };

/** Child to parent, one for each request. */
export type ArmReply = { kind: "opened"; plan: string[] } | { kind: "answered"; answers: ArmAnswer[] };

/** The program of a process that answers. */
export const armsProgram = fileURLToPath(new URL("./arms-process.js", import.meta.url));

type Opened = Extract<ArmReply, { kind: "opened" }>;
type Answered = Extract<ArmReply, { kind: "answered" }>;

export type ParallelArmSettings = LossPlace & {
  /** Of each process. */
  threads?: number;
  /** Weights and activations; float16 on CUDA only. Default float32. */
  dtype?: Dtype;
  onReplacement?: (words: string) => void;
  /** Processes that were started before, in the order of the devices. */
  early?: EarlyProcesses | undefined;
  /** The child's program; another one in tests. */
  program?: string;
};

/** Opens what answers prompts under these patterns. */
export async function openArms(
  model: ModelFolder,
  tokenizer: Tokenizer,
  patterns: readonly Pattern[],
  settings: ParallelArmSettings,
): Promise<ArmRunner> {
  const { devices, threads } = placesOf(model, patterns, settings);
  const [device] = devices;
  // A GPU's native failure ends its process, and that is not to be this one.
  if (devices.length === 1 && device === "cpu") return Arms.open(model, tokenizer, patterns, { device, threads });
  return ParallelArms.open(model, patterns, { ...settings, devices, threads });
}

/**
 * Has early processes open the model for these patterns and answer a prompt of this many tokens, so that a GPU is warm when
 * the true ones come.
 */
export function foreseeArms(
  model: ModelFolder,
  patterns: readonly Pattern[],
  tokens: number,
  { early, dtype = "float32", ...settings }: ParallelArmSettings & { early: EarlyProcesses },
): void {
  const { devices, threads } = placesOf(model, patterns, settings as ParallelArmSettings);
  const ids = standInIds(model.config.vocabSize, tokens - foreseenTokens);
  const prompt: PromptRequest = { prompt: ids, maxNewTokens: foreseenTokens - 1, stop: [] };
  for (const [index, device] of devices.entries()) {
    const answer: ArmRequest = { kind: "answer", prompt, patterns: patterns.slice(0, 1) };
    early.processes[index]?.foresee([openingOf(model, patterns, { device, threads, dtype }), answer]);
  }
}

/** Of a foreseen prompt's tokens those that are decoded, and one: a few, for their kernels. */
const foreseenTokens = 4;

function placesOf(
  model: ModelFolder,
  patterns: readonly Pattern[],
  settings: ParallelArmSettings,
): { devices: readonly ComputeDevice[]; threads: number } {
  return {
    devices: "devices" in settings ? settings.devices : processDevices(model, patterns, settings),
    threads: settings.threads ?? threadsOfEach(model, patterns),
  };
}

function openingOf(model: ModelFolder, patterns: readonly Pattern[], settings: PrefillSettings): ArmRequest {
  return { kind: "open", path: model.path, patterns, settings };
}

/** By default as many processes as cores and memory suggest; a GPU has one. With one on the CPU there is no child. */
function processDevices(
  model: ModelFolder,
  patterns: readonly Pattern[],
  { device, workers }: { device: ComputeDevice; workers?: number },
): ComputeDevice[] {
  const sensible = device === "cpu" ? processesThatFit(model, patterns, availableMemory()) : 1;
  return Array.from({ length: workers ?? sensible }, () => device);
}

/**
 * Threads do not depend on the number of workers: sums over several threads round otherwise, and results are to be the
 * same whoever computes them. They are the cores' share of what this machine's memory holds.
 */
function threadsOfEach(model: ModelFolder, patterns: readonly Pattern[]): number {
  return Math.max(1, Math.floor(defaultThreads() / processesThatFit(model, patterns, totalmem())));
}

/** One process for each core: threads inside a layer's small products gain far less than prompts side by side. */
function processesThatFit(model: ModelFolder, patterns: readonly Pattern[], memory: number): number {
  const copies = new Set(patterns).size;
  const byMemory = Math.floor((weightShare * memory) / (loadedPerStored * model.weightBytes * copies));
  return Math.max(1, Math.min(defaultThreads(), byMemory));
}

class ParallelArms implements ArmRunner {
  readonly concurrency: number;
  readonly threads: number;
  readonly plan: string[];
  readonly #free: ReplaceableProcess<Opened>[];
  readonly #all: readonly ReplaceableProcess<Opened>[];
  readonly #waiting: ((worker: ReplaceableProcess<Opened>) => void)[] = [];

  private constructor(workers: ReplaceableProcess<Opened>[], threads: number, plan: string[]) {
    this.threads = threads;
    this.#all = workers;
    this.#free = [...workers];
    this.concurrency = workers.length;
    this.plan = plan;
  }

  static async open(
    model: ModelFolder,
    patterns: readonly Pattern[],
    {
      devices,
      threads,
      onReplacement,
      early,
      program = armsProgram,
      dtype = "float32",
    }: Pick<ParallelArmSettings, "onReplacement" | "early" | "program" | "dtype"> & {
      devices: readonly ComputeDevice[];
      threads: number;
    },
  ): Promise<ParallelArms> {
    const count = devices.length;
    const workers = devices.map(
      (device, index) =>
        new ReplaceableProcess<Opened>({
          name: `worker ${index + 1} of ${count} on ${device}`,
          program,
          opening: openingOf(model, patterns, { device, threads, dtype }),
          early: early?.processes[index],
          hint: "if memory ran out, use fewer workers or fewer patterns; --resume continues, its journal holds every finished item",
          onReplacement,
        }),
    );
    const [first] = await openAll(workers);
    const title = `${count} processes of ${counted(threads, "thread")}; each:`;
    return new ParallelArms(workers, threads, [title, ...(first?.plan ?? [])]);
  }

  async answer(prompt: PromptRequest, patterns: readonly Pattern[], signal?: AbortSignal): Promise<ArmAnswer[]> {
    const worker = await this.#take();
    try {
      const request: ArmRequest = { kind: "answer", prompt, patterns };
      const { answers } = await orInterrupted(() => worker.inTurn((child) => child.ask<Answered>(request)), signal);
      return answers;
    } finally {
      this.#giveBack(worker);
    }
  }

  async release(): Promise<void> {
    for (const worker of this.#all) worker.end();
  }

  #take(): Promise<ReplaceableProcess<Opened>> {
    const free = this.#free.pop();
    return free === undefined ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve(free);
  }

  #giveBack(worker: ReplaceableProcess<Opened>): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(worker);
    else next(worker);
  }
}
