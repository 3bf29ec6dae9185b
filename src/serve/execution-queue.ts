/**
 * Who may use the model when. Several requests are under way at a time and take turns, one step each: a chunk of a prompt or a
 * decoded token. What changes the server for all requests, such as a switch of the pattern, is alone.
 */
import { InterruptedError } from "../base/errors.ts";

/** Requests that are under way at a time at most: each holds the caches of its sequence. */
const mostUnderWay = 4;

interface Entry {
  /** How its prompts begin; undefined for what has to be alone. */
  beginnings: ReadonlySet<string> | undefined;
  start: () => void;
}

export class ExecutionQueue {
  readonly #underWay = new Set<Entry>();
  #waiting: Entry[] = [];
  #lastStep: Promise<unknown> = Promise.resolve();

  /** Executions that wait until they may begin. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Executions that have begun. */
  get running(): number {
    return this.#underWay.size;
  }

  /**
   * Does the work while nothing else is under way, once everything that came before is done.
   * @throws InterruptedError if the signal has come before its turn
   */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return await this.#begin(undefined, work, signal);
  }

  /**
   * Does the work beside that of other requests, whose steps take turns with its own (`step`). It waits for earlier requests
   * with a prompt that begins as one of its own does, to reuse their rows.
   * @throws InterruptedError if the signal has come before it may begin
   */
  async share<T>(beginnings: Iterable<string>, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return await this.#begin(new Set(beginnings), work, signal);
  }

  /**
   * Runs the model once, after the steps that were asked for before. Only inside `run` and `share`.
   * @throws InterruptedError if the signal has come before its turn
   */
  async step<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const before = this.#lastStep;
    let done = (): void => undefined;
    this.#lastStep = new Promise<void>((resolve) => {
      done = resolve;
    });
    await before;
    try {
      if (signal?.aborted) throw new InterruptedError("Interrupted");
      return await work();
    } finally {
      done();
    }
  }

  async #begin<T>(beginnings: Entry["beginnings"], work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const entry: Entry = { beginnings, start: () => undefined };
    await new Promise<void>((resolve) => {
      entry.start = resolve;
      this.#waiting.push(entry);
      this.#admit();
    });
    try {
      if (signal?.aborted) throw new InterruptedError("Interrupted");
      return await work();
    } finally {
      this.#underWay.delete(entry);
      this.#admit();
    }
  }

  /** Starts what may begin: nothing overtakes what has to be alone, or what begins as it does itself. */
  #admit(): void {
    const ahead = new Set(this.#underWay);
    for (const entry of this.#waiting) {
      if (this.#mayBegin(entry, ahead)) {
        this.#underWay.add(entry);
        entry.start();
      }
      ahead.add(entry);
    }
    this.#waiting = this.#waiting.filter((entry) => !this.#underWay.has(entry));
  }

  #mayBegin({ beginnings }: Entry, ahead: ReadonlySet<Entry>): boolean {
    if (beginnings === undefined) return ahead.size === 0;
    if (this.#underWay.size >= mostUnderWay) return false;
    return [...ahead].every((other) => other.beginnings !== undefined && !meet(beginnings, other.beginnings));
  }
}

function meet(left: ReadonlySet<string>, right: ReadonlySet<string>): boolean {
  return [...left].some((one) => right.has(one));
}
