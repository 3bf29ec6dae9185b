/** One execution of the model at a time, in the order of arrival. */
import { InterruptedError } from "../base/errors.ts";

export class ExecutionQueue {
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #running = 0;

  /** Executions that wait for their turn. */
  get waiting(): number {
    return this.#waiting;
  }

  /** 1 while the model runs. */
  get running(): number {
    return this.#running;
  }

  /**
   * Does the work once everything that came before is done.
   * @throws InterruptedError where the signal has come before its turn
   */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const before = this.#last;
    let done = (): void => undefined;
    this.#last = new Promise<void>((resolve) => {
      done = resolve;
    });
    this.#waiting++;
    await before;
    this.#waiting--;
    this.#running++;
    try {
      if (signal?.aborted) throw new InterruptedError("Interrupted");
      return await work();
    } finally {
      this.#running--;
      done();
    }
  }
}
