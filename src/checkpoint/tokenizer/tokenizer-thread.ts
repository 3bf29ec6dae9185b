/**
 * Calls into the thread that runs a checkpoint's tokenizer and chat template. They are answered at once, as if they were
 * calls of a function, and end in time and within a memory of their own: a regular expression or template of a stranger
 * may never end, and only a thread can be stopped in the middle of one.
 */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from "node:worker_threads";
import { builtProgram } from "../../base/built-program.ts";

/** What the thread does, takes and returns. */
export interface TokenizerCalls {
  load(): true;
  encode(text: string, special: boolean): Int32Array;
  /** `encode` of each, with special tokens. */
  encodeAll(texts: readonly string[]): Int32Array[];
  decode(ids: readonly number[], options: { skipsSpecial: boolean; cleansBlanks: boolean }): string;
  idOf(token: string): number | undefined;
  render(template: string, names: Readonly<Record<string, unknown>>): string;
}

export interface TokenizerStart {
  /** Text of tokenizer.json. */
  tokenizer: string;
  /** Content of tokenizer_config.json. */
  config: Record<string, unknown>;
  /** Set to 1 by the thread when an answer is there. */
  signal: Int32Array;
}

export interface TokenizerRequest {
  call: keyof TokenizerCalls;
  input: readonly unknown[];
}

export type TokenizerReply = { value: unknown } | { failure: string };

/** The call failed, with the words of the library that ran it. */
export class TokenizerFailure extends Error {}

/** The call was stopped. */
export class TokenizerOverrun extends Error {}

/**
 * Milliseconds of computing. Most tokenizers load in a second and take a second for a megabyte of text; what slows a busy
 * machine down, caches and memory that others use, may take ten times as long.
 */
const limits: Record<keyof TokenizerCalls, (input: readonly unknown[]) => number> = {
  load: () => 45_000,
  encode: ([text]) => 20_000 + (text as string).length / 20,
  encodeAll: ([texts]) => 20_000 + (texts as string[]).reduce((sum, { length }) => sum + length, 0) / 20,
  decode: ([ids]) => 20_000 + (ids as readonly number[]).length,
  idOf: () => 20_000,
  render: () => 20_000,
};

/** The largest tokenizers take 300 MiB. */
const memoryMiB = 2048;

export class TokenizerThread {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #signal: Int32Array;
  readonly #patience: number;
  /** Why there is no thread any more. */
  #ended: TokenizerOverrun | undefined;

  /** @param patience times the usual limits */
  constructor(start: Omit<TokenizerStart, "signal">, patience = 1) {
    this.#patience = patience;
    this.#signal = new Int32Array(new SharedArrayBuffer(4));
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    this.#worker = new Worker(builtProgram("./tokenizer-worker.js", import.meta.url), {
      workerData: { ...start, signal: this.#signal, port: port2 },
      transferList: [port2],
      resourceLimits: { maxOldGenerationSizeMb: memoryMiB },
    });
    // What ends the thread shows in the call that waits for it.
    this.#worker.on("error", () => undefined);
    this.#worker.unref();
  }

  /**
   * @throws TokenizerFailure if the call fails
   * @throws TokenizerOverrun if it does not end in time, and every later call
   */
  call<Name extends keyof TokenizerCalls>(
    call: Name,
    ...input: Parameters<TokenizerCalls[Name]>
  ): ReturnType<TokenizerCalls[Name]> {
    return this.begin(call, ...input)();
  }

  /**
   * Begins a call, so that other threads can be asked meanwhile.
   * @returns waits for the answer, as `call` does; to be called before the next call begins
   */
  begin<Name extends keyof TokenizerCalls>(
    call: Name,
    ...input: Parameters<TokenizerCalls[Name]>
  ): () => ReturnType<TokenizerCalls[Name]> {
    if (this.#ended !== undefined) throw this.#ended;
    const limit = this.#patience * limits[call](input);
    Atomics.store(this.#signal, 0, 0);
    this.#port.postMessage({ call, input } satisfies TokenizerRequest);
    return () => {
      if (!this.#isAnswered(limit)) {
        this.end();
        this.#ended = new TokenizerOverrun(
          `it did not end within ${Math.ceil(limit / 1000)} s of computing and ${memoryMiB / 1024} GiB of memory`,
        );
        throw this.#ended;
      }
      const reply = receiveMessageOnPort(this.#port)?.message as TokenizerReply;
      if ("failure" in reply) throw new TokenizerFailure(reply.failure);
      return reply.value as ReturnType<TokenizerCalls[Name]>;
    };
  }

  end(): void {
    void this.#worker.terminate();
    this.#port.close();
  }

  /**
   * Sleeps until the answer is there; false where it is not after `limit` milliseconds of computing. Only the signal's value
   * tells: where this thread saw the last answer before the other end came to notify it, that notice wakes it now.
   */
  #isAnswered(limit: number): boolean {
    const patience = new ComputingTime(limit, clocks);
    while (Atomics.load(this.#signal, 0) === 0) {
      const wait = patience.left();
      if (wait <= 0) return false;
      Atomics.wait(this.#signal, 0, 0, wait);
    }
    return true;
  }
}

/** Milliseconds since some moment: of the day, and of the processor for all threads of this process. */
export interface Clocks {
  wall(): number;
  processor(): number;
}

const clocks: Clocks = {
  wall: () => performance.now(),
  processor: () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  },
};

/** A process that gets less of a processor than this, while it is waited for, has nothing to do any more. */
const leastShare = 0.002;

/**
 * How long a thread is waited for: until it has had `limit` milliseconds of a processor, however long a busy machine takes to
 * give them. Node tells other threads' shares only together, so that a thread never gets less than it is given the blame for,
 * and as much time has to go by as well. A thread that ended without an answer (it ran out of memory) computes nothing: after
 * a `limit` in which the whole process stood still the wait is over, too.
 */
export class ComputingTime {
  readonly #limit: number;
  readonly #clocks: Clocks;
  readonly #start: { wall: number; processor: number };
  #window: { wall: number; processor: number };

  constructor(limit: number, from: Clocks) {
    this.#limit = limit;
    this.#clocks = from;
    this.#start = this.#now();
    this.#window = this.#start;
  }

  /** Milliseconds until there is reason to look again; 0 where the time is over. */
  left(): number {
    const now = this.#now();
    const passed = Math.min(now.wall - this.#start.wall, now.processor - this.#start.processor);
    if (passed >= this.#limit) return 0;
    if (now.wall - this.#window.wall >= this.#limit) {
      if (now.processor - this.#window.processor < leastShare * (now.wall - this.#window.wall)) return 0;
      this.#window = now;
    }
    return Math.ceil(Math.min(this.#limit - passed, this.#window.wall + this.#limit - now.wall));
  }

  #now(): { wall: number; processor: number } {
    return { wall: this.#clocks.wall(), processor: this.#clocks.processor() };
  }
}
