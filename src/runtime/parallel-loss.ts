/**
 * Windows spread over processes of their own. Threads would not do: `session.run` blocks its event loop, and a worker
 * thread that is ended during a run takes the whole process with it (docs/log.md). Every window is computed by one process
 * alone, so that losses do not depend on how many there are.
 */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { InputError, InterruptedError, RuntimeFailure } from "../base/errors.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import type { Pattern } from "../pattern/pattern.ts";
import type { EvaluateOptions, SequenceLosses } from "./loss.ts";
import type { LayerExecutions, SequenceLoss } from "./measurement.ts";
import type { StagedSettings } from "./staged-loss.ts";

/** Parent to child. Everything passes through structured clone. */
export type LossRequest =
  | { kind: "open"; path: string; windows: Int32Array[]; settings: StagedSettings }
  | { kind: "evaluate"; pattern: Pattern; base: Pattern | undefined };

/** Child to parent, one for each request. */
export type LossReply =
  | { kind: "opened"; plan: string[] }
  | { kind: "evaluated"; sequences: SequenceLoss[]; executions: LayerExecutions }
  | { kind: "failed"; error: "input" | "runtime" | "unknown"; message: string; hint: string | undefined };

export interface ParallelSettings extends StagedSettings {
  workers: number;
}

export class ParallelLosses implements SequenceLosses {
  readonly plan: string[];
  readonly #workers: LossProcess[];

  private constructor(workers: LossProcess[], plan: string[]) {
    this.#workers = workers;
    this.plan = plan;
  }

  static async open(
    model: ModelFolder,
    windows: readonly Int32Array[],
    { workers: count, device, threads, stateBytes }: ParallelSettings,
  ): Promise<ParallelLosses> {
    const workers: LossProcess[] = [];
    const settings = { device, threads, stateBytes: Math.floor(stateBytes / count) };
    try {
      const opened = Array.from({ length: count }, async (_, index) => {
        const from = Math.floor((index * windows.length) / count);
        const to = Math.floor(((index + 1) * windows.length) / count);
        const worker = new LossProcess();
        workers.push(worker);
        const request: LossRequest = { kind: "open", path: model.path, windows: windows.slice(from, to), settings };
        const reply = await worker.ask(request);
        return reply.kind === "opened" ? reply.plan : [];
      });
      const [plan = []] = await Promise.all(opened);
      return new ParallelLosses(workers, [`${count} processes of ${threads} thread(s); each:`, ...plan]);
    } catch (error) {
      for (const worker of workers) worker.end();
      throw error;
    }
  }

  async evaluate(pattern: Pattern, { base, signal }: EvaluateOptions) {
    if (signal?.aborted) throw new InterruptedError("Interrupted");
    const interrupted = new Promise<never>((_, reject) => {
      signal?.addEventListener("abort", () => reject(new InterruptedError("Interrupted")), { once: true });
    });
    const asked = Promise.all(this.#workers.map((worker) => worker.ask({ kind: "evaluate", pattern, base })));
    const replies = await Promise.race([asked, interrupted]);
    const sequences: SequenceLoss[] = [];
    const executions: LayerExecutions = { body: 0, indexer: 0, naiveBody: 0, naiveIndexer: 0 };
    for (const reply of replies) {
      if (reply.kind !== "evaluated") throw new RuntimeFailure(`A loss process answered "${reply.kind}"`);
      sequences.push(...reply.sequences);
      for (const key of Object.keys(executions) as (keyof LayerExecutions)[]) executions[key] += reply.executions[key];
    }
    return { sequences, executions };
  }

  async release(): Promise<void> {
    for (const worker of this.#workers) worker.end();
  }
}

/** One child: requests one at a time, and a death that is noticed. */
class LossProcess {
  readonly #child: ChildProcess;

  constructor() {
    const program = fileURLToPath(new URL("./loss-process.js", import.meta.url));
    this.#child = fork(program, [], { serialization: "advanced", stdio: ["ignore", "ignore", "inherit", "ipc"] });
  }

  /** @throws the child's own error, or RuntimeFailure where it died */
  ask(request: LossRequest): Promise<LossReply> {
    return new Promise((resolve, reject) => {
      const settle = () => {
        this.#child.off("message", onMessage);
        this.#child.off("exit", onExit);
      };
      const onMessage = (message: unknown) => {
        settle();
        const reply = message as LossReply;
        if (reply.kind === "failed") reject(toError(reply));
        else resolve(reply);
      };
      const onExit = (code: number | null, signal: NodeJS.Signals | null) => {
        settle();
        reject(
          new RuntimeFailure(`A loss process ended (${signal ?? `exit code ${code}`})`, {
            hint: "if memory ran out, use fewer processes: --workers 1",
          }),
        );
      };
      this.#child.on("message", onMessage);
      this.#child.on("exit", onExit);
      this.#child.send(request, (error) => {
        if (error !== null) onExit(this.#child.exitCode, this.#child.signalCode);
      });
    });
  }

  end(): void {
    // A child in the middle of a run cannot be asked to stop, and has nothing to save.
    this.#child.removeAllListeners();
    this.#child.kill("SIGKILL");
  }
}

function toError({ error, message, hint }: Extract<LossReply, { kind: "failed" }>): Error {
  const details = hint === undefined ? {} : { hint };
  if (error === "input") return new InputError(message, details);
  return error === "runtime" ? new RuntimeFailure(message, details) : new Error(message);
}
