/** Reads weight files: one after the other on this thread, or, where several are large, side by side on threads of their own. */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { builtProgram } from "../base/built-program.ts";
import { InterruptedError, RuntimeFailure } from "../base/errors.ts";
import { type FailedReply, isFailed, toError } from "../base/failed-reply.ts";
import { ReaderCount } from "./reader-count.ts";
import { type FileTask, readWeightFile } from "./weight-file.ts";

export interface ReadingSettings {
  signal?: AbortSignal | undefined;
  /** Called for bytes that were read; what it throws ends the reading. */
  onBytes?: ((bytes: number) => void) | undefined;
}

/** What a thread says: for every block, and at the end of a file. */
export type ReaderReply = { kind: "read"; bytes: number } | { kind: "done"; sha256: string | undefined } | FailedReply;

/** Called for each file that was read; what it throws counts as an error of that file. */
export type OnFile = (index: number, sha256: string | undefined) => Promise<void>;

/** More would only wait for memory; each takes some 20 MiB of it. */
const mostReaders = 16;

/** A file of fewer bytes is read before a thread is there to do it. */
const smallestShared = 64 << 20;

/**
 * @throws the error of the first file, in their order, that has one
 * @throws InterruptedError after the signal
 */
export async function readWeightFiles(
  tasks: readonly FileTask[],
  settings: ReadingSettings,
  onFile: OnFile,
  cores = availableParallelism(),
): Promise<void> {
  const large = tasks.filter(({ bytes }) => bytes >= smallestShared).length;
  const most = Math.min(large, cores, mostReaders);
  if (most < 2) await readInTurn(tasks, settings, onFile);
  else await readSideBySide(tasks, settings, onFile, new ReaderCount(most));
}

/** As `readWeightFiles`, on threads, as many as `count` says. */
export async function readSideBySide(
  tasks: readonly FileTask[],
  settings: ReadingSettings,
  onFile: OnFile,
  count: ReaderCount,
): Promise<void> {
  await new SideBySide(tasks, settings, onFile, count).finished;
}

async function readInTurn(
  tasks: readonly FileTask[],
  { signal, onBytes }: ReadingSettings,
  onFile: OnFile,
): Promise<void> {
  for (const [index, task] of tasks.entries()) {
    const sha256 = await readWeightFile(
      task,
      async (source, block, length, at) => {
        if (signal?.aborted === true) throw new InterruptedError("Interrupted");
        return (await source.read(block, 0, length, at)).bytesRead;
      },
      (bytes) => onBytes?.(bytes),
    );
    await onFile(index, sha256);
  }
}

/** A thread, and the file that it reads. */
interface Reader {
  worker: Worker;
  index: number;
  /** Has it read anything yet? */
  hasBegun: boolean;
}

class SideBySide {
  readonly finished: Promise<void>;
  readonly #tasks: readonly FileTask[];
  readonly #settings: ReadingSettings;
  readonly #onFile: OnFile;
  readonly #count: ReaderCount;
  readonly #readers = new Set<Reader>();
  #next = 0;
  /** Files whose reader has answered, and which `onFile` has not returned from. */
  readonly #told = new Set<number>();
  /** The first file that has an error: those after it do not matter any more. */
  #failed: { index: number; error: unknown } | undefined;
  #end!: { resolve: () => void; reject: (error: unknown) => void };

  constructor(tasks: readonly FileTask[], settings: ReadingSettings, onFile: OnFile, count: ReaderCount) {
    this.#tasks = tasks;
    this.#settings = settings;
    this.#onFile = onFile;
    this.#count = count;
    const ended = new Promise<void>((resolve, reject) => {
      this.#end = { resolve, reject };
    });
    const stop = () => this.#stop(new InterruptedError("Interrupted"));
    settings.signal?.addEventListener("abort", stop, { once: true });
    this.finished = ended.finally(() => settings.signal?.removeEventListener("abort", stop));
    if (settings.signal?.aborted === true) stop();
    else this.#startMore();
  }

  /** As many readers as may be, as long as there are files that matter. */
  #startMore(): void {
    while (this.#readers.size < this.#count.count && this.#hasMore()) {
      const reader = {
        worker: new Worker(builtProgram("./reading-program.js", import.meta.url)),
        index: -1,
        hasBegun: false,
      };
      this.#readers.add(reader);
      const { worker } = reader;
      worker.on("message", (reply: ReaderReply) => this.#hear(reader, reply));
      worker.on("error", (error) => this.#fail(reader.index, error));
      worker.on("exit", (code) => {
        if (!this.#readers.has(reader)) return;
        this.#drop(reader);
        const { path } = this.#tasks[reader.index] as FileTask;
        this.#fail(reader.index, new RuntimeFailure(`The thread that reads "${path}" ended (${code})`));
      });
      this.#give(reader);
    }
  }

  #hasMore(): boolean {
    return this.#failed === undefined && this.#next < this.#tasks.length;
  }

  #give(reader: Reader): void {
    reader.index = this.#next++;
    reader.worker.postMessage(this.#tasks[reader.index]);
  }

  #hear(reader: Reader, reply: ReaderReply): void {
    // What a thread still said when it was no longer wanted.
    if (!this.#readers.has(reader)) return;
    if (isFailed(reply)) this.#fail(reader.index, toError(reply));
    else if (reply.kind === "read") this.#hearOfBytes(reader, reply.bytes);
    else {
      void this.#tell(reader.index, reply.sha256);
      if (this.#hasMore() && this.#readers.size <= this.#count.count) this.#give(reader);
      else this.#drop(reader);
    }
    this.#endIfDone();
  }

  #hearOfBytes(reader: Reader, bytes: number): void {
    reader.hasBegun = true;
    try {
      this.#settings.onBytes?.(bytes);
    } catch (error) {
      this.#stop(error);
      return;
    }
    // Only what all of them do together says how quick so many are.
    if (this.#readers.size !== this.#count.count || [...this.#readers].some(({ hasBegun }) => !hasBegun)) return;
    this.#count.add(bytes, performance.now() / 1000);
    this.#startMore();
  }

  async #tell(index: number, sha256: string | undefined): Promise<void> {
    this.#told.add(index);
    try {
      await this.#onFile(index, sha256);
    } catch (error) {
      this.#fail(index, error);
    }
    this.#told.delete(index);
    this.#endIfDone();
  }

  #fail(index: number, error: unknown): void {
    if (this.#failed === undefined || index < this.#failed.index) this.#failed = { index, error };
    // Files before it may have an error, too, which would have been met first.
    for (const reader of this.#readers) if (reader.index >= this.#failed.index) this.#drop(reader);
    this.#endIfDone();
  }

  #drop(reader: Reader): void {
    this.#readers.delete(reader);
    void reader.worker.terminate();
  }

  #endIfDone(): void {
    if (this.#readers.size > 0 || this.#told.size > 0) return;
    if (this.#failed === undefined) this.#end.resolve();
    else this.#end.reject(this.#failed.error);
  }

  #stop(error: unknown): void {
    for (const reader of this.#readers) this.#drop(reader);
    this.#end.reject(error);
  }
}
