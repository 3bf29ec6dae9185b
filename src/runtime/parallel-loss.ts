/**
 * Windows spread over processes of their own. Threads would not do: `session.run` blocks its event loop, and a worker
 * thread that is ended during a run takes the whole process with it (docs/log.md). Every window is computed by one process
 * alone, so that losses do not depend on who dies; `loss-worker.ts` replaces those.
 */
import { InterruptedError } from "../base/errors.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import type { Pattern } from "../pattern/pattern.ts";
import type { EvaluateOptions, SequenceLosses } from "./loss.ts";
import { LossWorker, type WorkerSettings } from "./loss-worker.ts";
import type { ComputeDevice, Dtype, LayerExecutions, SequenceLoss } from "./measurement.ts";

export interface ParallelSettings extends Pick<WorkerSettings, "onReplacement" | "program"> {
  /** One process for each, in the order of the windows. */
  devices: readonly ComputeDevice[];
  dtype: Dtype;
  /** CPU threads of all processes together. */
  threads: number;
  /** Bytes of boundary states of all processes together. */
  stateBytes: number;
}

export class ParallelLosses implements SequenceLosses {
  readonly plan: string[];
  readonly #workers: LossWorker[];

  private constructor(workers: LossWorker[], plan: string[]) {
    this.#workers = workers;
    this.plan = plan;
  }

  static async open(
    model: ModelFolder,
    windows: readonly Int32Array[],
    { devices: given, dtype, threads: allThreads, stateBytes, onReplacement, program }: ParallelSettings,
  ): Promise<ParallelLosses> {
    // A process without windows would load the model for nothing.
    const devices = given.slice(0, windows.length);
    const count = devices.length;
    const threads = Math.max(1, Math.floor(allThreads / count));
    const workers = devices.map((device, index) => {
      const from = Math.floor((index * windows.length) / count);
      const to = Math.floor(((index + 1) * windows.length) / count);
      const settings = { device, dtype, threads, stateBytes: Math.floor(stateBytes / count) };
      return new LossWorker({
        name: `worker ${index + 1} of ${count} on ${device}`,
        open: { kind: "open", path: model.path, windows: windows.slice(from, to), settings },
        onReplacement,
        program,
      });
    });
    try {
      const plans = await Promise.all(workers.map((worker) => worker.open()));
      return new ParallelLosses(workers, joinPlans(devices, plans, threads, given.length - count));
    } catch (error) {
      for (const worker of workers) worker.end();
      throw error;
    }
  }

  async evaluate(pattern: Pattern, { base, signal }: EvaluateOptions) {
    if (signal?.aborted) throw new InterruptedError("Interrupted");
    let stop = (): void => undefined;
    const interrupted = new Promise<never>((_, reject) => {
      stop = () => reject(new InterruptedError("Interrupted"));
    });
    signal?.addEventListener("abort", stop);
    try {
      const asked = Promise.all(this.#workers.map((worker) => worker.evaluate(pattern, base)));
      const replies = await Promise.race([asked, interrupted]);
      const executions: LayerExecutions = { body: 0, indexer: 0, naiveBody: 0, naiveIndexer: 0 };
      const sequences: SequenceLoss[] = [];
      for (const reply of replies) {
        sequences.push(...reply.sequences);
        for (const key of Object.keys(executions) as (keyof LayerExecutions)[])
          executions[key] += reply.executions[key];
      }
      return { sequences, executions };
    } finally {
      // A search asks hundreds of times with one signal.
      signal?.removeEventListener("abort", stop);
    }
  }

  async release(): Promise<void> {
    for (const worker of this.#workers) worker.end();
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
