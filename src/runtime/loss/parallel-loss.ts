/**
 * Windows spread over processes of their own. Threads would not do: `session.run` blocks its event loop, and a worker
 * thread that is ended during a run takes the whole process with it (docs/log.md). Every window is computed by one process
 * alone, so that losses do not depend on who dies; `loss-worker.ts` replaces those. Windows go round, so that any block of
 * consecutive ones is work for every process.
 */
import type { ModelFolder } from "../../graph/model-folder.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import type { ComputeDevice, Dtype, EvaluateOptions, SequenceLoss } from "../measurement.ts";
import { orInterrupted } from "../process/interruption.ts";
import type { LayerRoom } from "../stages/stage-sessions.ts";
import { noExecutions, sumExecutions } from "./layer-executions.ts";
import { chosen, type SequenceLosses, type SequenceResults } from "./loss-backend.ts";
import { LossWorker, type WorkerSettings } from "./loss-worker.ts";

const idle: SequenceResults = { sequences: [], executions: noExecutions() };

export interface ParallelSettings extends Pick<WorkerSettings, "onReplacement" | "program"> {
  /** One process for each, in the order of the windows. */
  devices: readonly ComputeDevice[];
  dtype: Dtype;
  /** CPU threads of all processes together. */
  threads: number;
  /** Bytes of boundary states of all processes together. */
  stateBytes: number;
  /** Bytes of the temporary files of all processes together. */
  spillBytes?: number;
  /** Tokens of the model's own distribution that are kept, where divergences are asked for. */
  top?: number;
  /** Windows that are asked for at once, at least; all where absent. */
  together?: number;
  /** Which layers stay in memory where not all of them have room; then there is one device. */
  room?: LayerRoom | undefined;
  /** Position of the first token that counts, for each window. */
  scoredFrom?: readonly number[];
}

export class ParallelLosses implements SequenceLosses {
  readonly plan: string[];
  readonly sideBySide: number;
  readonly #workers: LossWorker[];
  readonly #windows: number;
  readonly #walks: boolean;

  private constructor(
    workers: LossWorker[],
    windows: number,
    { sideBySide, plan, walks }: { sideBySide: number; plan: string[]; walks: boolean },
  ) {
    this.#workers = workers;
    this.#windows = windows;
    this.#walks = walks;
    this.sideBySide = sideBySide;
    this.plan = plan;
  }

  static async open(
    model: ModelFolder,
    windows: readonly Int32Array[],
    {
      devices: given,
      dtype,
      threads: allThreads,
      stateBytes,
      spillBytes = 0,
      top,
      together,
      room,
      scoredFrom,
      onReplacement,
      program,
    }: ParallelSettings,
  ): Promise<ParallelLosses> {
    // A process without windows would load the model for nothing.
    const devices = given.slice(0, windows.length);
    const count = devices.length;
    const threads = Math.max(1, Math.floor(allThreads / count));
    const workers = devices.map((device, index) => {
      const numbers = [...windows.keys()].filter((window) => window % count === index);
      const [states, spill] = [stateBytes, spillBytes].map((bytes) => Math.floor(bytes / count)) as [number, number];
      const share = { dtype, threads, stateBytes: states, spillBytes: spill };
      const settings = {
        ...{ device, ...share, numbers },
        ...(room === undefined ? {} : { room }),
        ...(top === undefined ? {} : { top }),
        ...(together === undefined ? {} : { together: Math.ceil(together / count) }),
        ...(scoredFrom === undefined ? {} : { scoredFrom: chosen(scoredFrom, numbers) }),
      };
      return new LossWorker({
        name: `worker ${index + 1} of ${count} on ${device}`,
        open: { kind: "open", path: model.path, windows: chosen(windows, numbers), settings },
        onReplacement,
        program,
      });
    });
    try {
      const opened = await Promise.all(workers.map((worker) => worker.open()));
      const plans = opened.map(({ plan }) => plan);
      const sideBySide = count * Math.max(...opened.map((worker) => worker.sideBySide));
      const plan = joinPlans(devices, plans, threads, given.length - count);
      return new ParallelLosses(workers, windows.length, { sideBySide, plan, walks: room !== undefined });
    } catch (error) {
      for (const worker of workers) worker.end();
      throw error;
    }
  }

  async evaluate(pattern: Pattern, { signal, sequences: wanted, ...options }: EvaluateOptions) {
    const indices = wanted ?? [...Array(this.#windows).keys()];
    const replies = await orInterrupted(() => this.#ask(pattern, indices, options), signal);
    const sequences = indices.map((index): SequenceLoss => {
      // Every reply has its windows in the order of the request.
      return replies[index % this.#workers.length]?.sequences.shift() as SequenceLoss;
    });
    return { sequences, executions: sumExecutions(replies.map(({ executions }) => executions)) };
  }

  /** One process alone has a model whose layers come and go: two would read each layer twice. */
  get walk(): SequenceLosses["walk"] {
    const [worker] = this.#workers;
    if (!this.#walks || worker === undefined) return undefined;
    return (requests, signal) => orInterrupted(() => worker.walk(requests), signal);
  }

  async release(): Promise<void> {
    for (const worker of this.#workers) worker.end();
  }

  /** Asks each process for its own among the windows; one that has none answers at once. */
  #ask(pattern: Pattern, indices: readonly number[], options: EvaluateOptions): Promise<SequenceResults[]> {
    const count = this.#workers.length;
    return Promise.all(
      this.#workers.map(async (worker, place) => {
        const sequences = indices.filter((index) => index % count === place).map((index) => Math.floor(index / count));
        return sequences.length === 0 ? idle : await worker.evaluate(pattern, { ...options, sequences });
      }),
    );
  }
}

/** Processes on the same kind of device have plans alike: the first one's stands for them. */
function joinPlans(
  devices: readonly ComputeDevice[],
  plans: readonly string[][],
  threads: number,
  idle: number,
): string[] {
  const unused = idle === 0 ? [] : [`devices without a sequence of their own: ${idle}`];
  const title = `${devices.length} processes of ${threads} thread(s)`;
  if (new Set(devices).size === 1) return [`${title}; each:`, ...(plans[0] ?? []), ...unused];
  const lines = plans.flatMap((plan, index) => plan.map((line) => `${devices[index]}: ${line}`));
  return [title, ...lines, ...unused];
}
