/** Ranges of layers in a thread of their own, which answers requests in their order. */
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { RuntimeFailure } from "../../base/errors.ts";
import { isFailed, toError } from "../../base/failed-reply.ts";
import type { HandedTensors, LayerSettings } from "./cached-layers.ts";

export interface LayerRequest {
  /** Which of the thread's ranges. */
  range: number;
  start: number;
  inputs: HandedTensors;
}

interface Waiting {
  resolve: (outputs: HandedTensors) => void;
  reject: (error: unknown) => void;
}

export class LayerThread {
  /** @throws what opening the graphs failed with */
  readonly opened: Promise<unknown>;
  readonly #worker: Worker;
  readonly #waiting: Waiting[] = [];
  #failure: unknown;

  /** @param program another one in tests */
  constructor(
    settings: readonly LayerSettings[],
    program = fileURLToPath(new URL("./layer-program.js", import.meta.url)),
  ) {
    this.#worker = new Worker(program, { workerData: settings });
    this.#worker.on("message", (reply: HandedTensors) => {
      const waiting = this.#waiting.shift();
      if (isFailed(reply)) waiting?.reject(toError(reply));
      else waiting?.resolve(reply);
      // A thread with nothing to do does not keep the process alive.
      if (this.#waiting.length === 0) this.#worker.unref();
    });
    this.#worker.on("error", (error) => this.#fail(error));
    this.#worker.on("exit", (code) =>
      this.#fail(
        new RuntimeFailure(`The thread of "${settings.map(({ name }) => name).join('", "')}" ended (${code})`),
      ),
    );
    this.opened = this.#answer();
  }

  /** @throws what the thread failed with */
  ask(request: LayerRequest): Promise<HandedTensors> {
    const answer = this.#answer();
    this.#worker.postMessage(request);
    return answer;
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }

  #answer(): Promise<HandedTensors> {
    const answer = new Promise<HandedTensors>((resolve, reject) => {
      if (this.#failure !== undefined) reject(this.#failure);
      else this.#waiting.push({ resolve, reject });
    });
    // Whoever waits hears of a failure; until then nobody may.
    answer.catch(() => undefined);
    this.#worker.ref();
    return answer;
  }

  #fail(failure: unknown): void {
    this.#failure ??= failure;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure);
  }
}
