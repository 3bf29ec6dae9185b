/**
 * Windows spread over processes of their own. Threads would not do: `session.run` blocks its event loop, and a worker
 * thread that is ended during a run takes the whole process with it (docs/log.md). Every window is computed by one process
 * alone, so that losses do not depend on who dies: a child that does is replaced, opens the same windows and gets the same
 * request, which names its base pattern, so that boundary states are computed anew. Windows go round, so that any block of
 * consecutive ones is work for every process.
 */

import { fileURLToPath } from "node:url";
import type { FailedReply } from "../../base/failed-reply.ts";
import { counted } from "../../base/quantities.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { ComputeDevice, PatternRequest, SequenceLoss } from "../measurement.ts";
import type { EarlyProcesses } from "../process/early-processes.ts";
import { orInterrupted } from "../process/interrupted-child.ts";
import { openAll, ReplaceableProcess, type ReplaceableSettings } from "../process/replaceable-process.ts";
import {
  type BackendSettings,
  chosen,
  noExecutions,
  SequenceLosses,
  type SequenceResults,
  sumExecutions,
  type TogetherOptions,
} from "./loss-backend.ts";

/** A recording is of this process alone. */
type ProcessSettings = Omit<BackendSettings, "recording">;

/** Parent to child. Everything passes through structured clone. */
export type LossRequest =
  | { kind: "open"; path: string; windows: Int32Array[]; settings: ProcessSettings }
  | { kind: "evaluate"; requests: readonly PatternRequest[]; options: Omit<TogetherOptions, "signal"> };

/** Child to parent, one for each request. */
export type LossReply =
  | { kind: "opened"; plan: string[]; sideBySide: number; isWarm: boolean }
  | { kind: "evaluated"; results: SequenceResults[] }
  | FailedReply;

type Opened = Extract<LossReply, { kind: "opened" }>;
type Evaluated = Extract<LossReply, { kind: "evaluated" }>;

/** The program of a process that computes losses. */
export const lossProgram = fileURLToPath(new URL("./loss-process.js", import.meta.url));

/** Of all processes together: threads, bytes, windows that are asked for at once. */
export interface ParallelSettings extends Omit<ProcessSettings, "device" | "numbers"> {
  /** One process for each, in the order of the windows; one alone where layers come and go. */
  devices: readonly ComputeDevice[];
  /** Hears of a child that died and was replaced. */
  onReplacement?: ReplaceableSettings["onReplacement"];
  /** Children that were started before the windows were known. */
  early?: EarlyProcesses | undefined;
  /** The child's program; another one in tests. */
  program?: string;
}

/** Bytes of a block of memory that goes back to the system as soon as it is freed. */
const largeBlock = 2 ** 18;

export class ParallelLosses extends SequenceLosses {
  readonly plan: string[];
  readonly sideBySide: number;
  override readonly isWarm: boolean;
  readonly patternsAtOnce: number;
  readonly #workers: readonly ReplaceableProcess<Opened>[];
  readonly #windows: number;

  private constructor(
    workers: readonly ReplaceableProcess<Opened>[],
    windows: number,
    {
      sideBySide,
      plan,
      patternsAtOnce,
      isWarm,
    }: Pick<SequenceLosses, "sideBySide" | "plan" | "patternsAtOnce" | "isWarm">,
  ) {
    super();
    this.#workers = workers;
    this.#windows = windows;
    this.sideBySide = sideBySide;
    this.isWarm = isWarm;
    this.patternsAtOnce = patternsAtOnce;
    this.plan = plan;
  }

  static async open(
    model: ModelFolder,
    windows: readonly Int32Array[],
    { onReplacement, early, program = lossProgram, ...settings }: ParallelSettings,
  ): Promise<ParallelLosses> {
    const shares = sharesOf(model, windows, settings);
    const count = shares.length;
    const inParts = settings.room !== undefined;
    const workers = shares.map(({ device, opening }, index) => {
      return new ReplaceableProcess<Opened>({
        name: `worker ${index + 1} of ${count} on ${device}`,
        program,
        opening,
        hint: inParts ? partsHint : deathHint(device),
        // The C library keeps freed memory for itself otherwise: what a layer leaves is to be the next one's, or the system's.
        ...(inParts ? { environment: { MALLOC_MMAP_THRESHOLD_: String(largeBlock) } } : {}),
        onReplacement,
        early: early?.processes[index],
      });
    });
    const opened = await openAll(workers);
    const plans = opened.map(({ plan }) => plan);
    const devices = shares.map(({ device }) => device);
    return new ParallelLosses(workers, windows.length, {
      sideBySide: count * Math.max(...opened.map(({ sideBySide }) => sideBySide)),
      isWarm: opened.every(({ isWarm }) => isWarm),
      patternsAtOnce: inParts ? Number.POSITIVE_INFINITY : 1,
      plan: joinPlans(devices, plans, threadsOfEach(settings.threads, count), settings.devices.length - count),
    });
  }

  async evaluateAll(
    requests: readonly PatternRequest[],
    { signal, ...options }: TogetherOptions = {},
  ): Promise<SequenceResults[]> {
    const everywhere = [...Array(this.#windows).keys()];
    const asked = requests
      .slice(0, this.patternsAtOnce)
      .map((request) => ({ ...request, sequences: request.sequences ?? everywhere }));
    const replies = await orInterrupted(
      () => Promise.all(this.#workers.map((worker, place) => this.#ask(worker, place, asked, options))),
      signal,
    );
    const answered = Math.min(...replies.map(({ length }) => length));
    return asked.slice(0, answered).map(({ sequences }, at) => {
      const parts = replies.map((results) => results[at] as SequenceResults);
      return {
        // Every reply has its windows in the order of the request.
        sequences: sequences.map((index) => parts[index % parts.length]?.sequences.shift() as SequenceLoss),
        executions: sumExecutions(parts.map(({ executions }) => executions)),
      };
    });
  }

  async release(): Promise<void> {
    for (const worker of this.#workers) worker.end();
  }

  /** Asks a process for its own among the windows; one that has none answers at once. */
  async #ask(
    worker: ReplaceableProcess<Opened>,
    place: number,
    asked: readonly (PatternRequest & { sequences: readonly number[] })[],
    options: TogetherOptions,
  ): Promise<SequenceResults[]> {
    const count = this.#workers.length;
    const requests = asked.map((request) => ({
      ...request,
      sequences: request.sequences.filter((index) => index % count === place).map((index) => Math.floor(index / count)),
    }));
    if (requests.every(({ sequences }) => sequences.length === 0)) {
      return requests.map(() => ({ sequences: [], executions: noExecutions() }));
    }
    const request: LossRequest = { kind: "evaluate", requests, options };
    return (await worker.inTurn((child) => child.ask<Evaluated>(request))).results;
  }
}

/** What each process opens: its own among the windows, and its share of threads and memory. */
export function sharesOf(
  model: ModelFolder,
  windows: readonly Int32Array[],
  { devices: given, ...all }: Omit<ParallelSettings, "onReplacement" | "early" | "program">,
): { device: ComputeDevice; opening: Extract<LossRequest, { kind: "open" }> }[] {
  // A process without windows would load the model for nothing.
  const devices = given.slice(0, windows.length);
  const count = devices.length;
  const share = {
    ...all,
    threads: threadsOfEach(all.threads, count),
    stateBytes: Math.floor(all.stateBytes / count),
    spillBytes: Math.floor((all.spillBytes ?? 0) / count),
    together: all.together === undefined ? undefined : Math.ceil(all.together / count),
  };
  return devices.map((device, index) => {
    const numbers = [...windows.keys()].filter((window) => window % count === index);
    const scoredFrom = all.scoredFrom === undefined ? undefined : chosen(all.scoredFrom, numbers);
    const settings: ProcessSettings = { ...share, device, numbers, scoredFrom };
    return { device, opening: { kind: "open", path: model.path, windows: chosen(windows, numbers), settings } };
  });
}

function threadsOfEach(threads: number, processes: number): number {
  return Math.max(1, Math.floor(threads / processes));
}

/** Processes on the same kind of device have plans alike: the first one's stands for them. */
function joinPlans(
  devices: readonly ComputeDevice[],
  plans: readonly string[][],
  threads: number,
  idle: number,
): string[] {
  const unused = idle === 0 ? [] : [`devices without a sequence of their own: ${idle}`];
  const title = `${devices.length} processes of ${counted(threads, "thread")}`;
  if (new Set(devices).size === 1) return [`${title}; each:`, ...(plans[0] ?? []), ...unused];
  const lines = plans.flatMap((plan, index) => plan.map((line) => `${devices[index]}: ${line}`));
  return [title, ...lines, ...unused];
}

const partsHint =
  "if memory ran out, give less of it with --memory; a search with -o can continue with --resume, its journal holds every finished evaluation";

function deathHint(device: ComputeDevice): string {
  return device === "cpu"
    ? "if memory ran out, use fewer workers; a search with -o can continue with --resume, its journal holds every finished evaluation"
    : "shorter sequences or --dtype float16 take less memory; a search with -o can continue with --resume --device cpu, its journal holds every finished evaluation";
}
