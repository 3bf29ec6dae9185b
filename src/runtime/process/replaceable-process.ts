/**
 * A child process that answers requests and is replaced when it dies (killed, out of memory, a crash of native code): a
 * new one is opened as the first was and gets the same request. What a child keeps can only be a shortcut, so that
 * nothing is lost with it but time.
 */
import { type ChildProcess, fork } from "node:child_process";
import { InterruptedError, RuntimeFailure } from "../../base/errors.ts";
import { isFailed, toError } from "../../base/failed-reply.ts";
import { keptWords, lastWords } from "./native-words.ts";

export interface ReplaceableSettings {
  /** For people: `worker 2 of 3 on cuda:1`. */
  name: string;
  /** Path of the child's program; `child-service.ts` is its other end. */
  program: string;
  /** Environment variables of the child, beside those of this process. */
  environment?: Readonly<Record<string, string>> | undefined;
  /** The first request to every child. Requests pass through structured clone. */
  opening: object;
  /** What to do where children die one after the other. */
  hint: string;
  /** Hears of a child that died and was replaced. */
  onReplacement?: ((words: string) => void) | undefined;
  /** The first child, which was started before it was known what for, and gets it back: it may be asked for more. */
  early?: EarlyProcess | undefined;
}

/** A child that dies over the same request again and again does not die by chance. */
const replacementsPerRequest = 2;

/** @typeParam Opened the reply to `opening` */
export class ReplaceableProcess<Opened> {
  readonly #settings: ReplaceableSettings;
  #child: Child | undefined;
  #opened: Opened | undefined;
  #ended = false;
  /** Requests that are not answered. */
  #waiting = 0;
  /** Settles with the last request: a reply belongs to the request before it, so there is one at a time. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(settings: ReplaceableSettings) {
    this.#settings = settings;
  }

  /**
   * Asks once everything that was asked before is answered.
   * @throws the child's own error, or RuntimeFailure where children die one after the other
   * @throws InterruptedError where Ctrl-C ended the child
   */
  inTurn<T>(work: (child: Pick<Child, "ask">, opened: Opened) => Promise<T>): Promise<T> {
    this.#waiting++;
    const done = this.#last.then(() => this.#outliveDeaths(work)).finally(() => this.#waiting--);
    this.#last = done.catch(() => undefined);
    return done;
  }

  end(): void {
    this.#ended = true;
    const { early } = this.#settings;
    if (this.#child !== undefined && this.#waiting === 0 && early !== undefined) early.giveBack(this.#child);
    else this.#child?.end();
    this.#child = undefined;
  }

  async #outliveDeaths<T>(work: (child: Child, opened: Opened) => Promise<T>): Promise<T> {
    const { name, opening, hint, onReplacement } = this.#settings;
    for (let deaths = 1; ; deaths++) {
      try {
        const child = this.#child ?? (await this.#start());
        this.#opened ??= await child.ask<Opened>(opening);
        return await work(child, this.#opened);
      } catch (error) {
        if (!(error instanceof Death)) throw error;
        // Ctrl-C reaches the whole process group, and a child that is still starting does not ignore it yet.
        if (error.signal === "SIGINT") throw new InterruptedError("Interrupted");
        this.#child = undefined;
        this.#opened = undefined;
        if (deaths > replacementsPerRequest) {
          throw new RuntimeFailure(`${capitalized(name)} died ${deaths} times in a row (${error.message})`, { hint });
        }
        onReplacement?.(`${name} died (${error.message}) and was replaced`);
      }
    }
  }

  async #start(): Promise<Child> {
    const { program, environment, early } = this.#settings;
    const child = (await early?.take()) ?? new Child(program, environment);
    this.#child = child;
    if (!this.#ended) return child;
    // Nobody else would end a child that is started now.
    child.end();
    throw new Error("a worker was asked after its end");
  }
}

/**
 * A child that is started while its work is still being read, and may be given some that is foreseen: opening a GPU takes
 * seconds. Whether it comes of use shows when it is taken; failures are for the true work to meet again, and to tell.
 */
export class EarlyProcess {
  #child: Child;
  #done: Promise<unknown> = Promise.resolve();
  #isTaken = false;
  #isEnded = false;

  /** @param program as `ReplaceableSettings.program` */
  constructor(program: string) {
    this.#child = new Child(program);
  }

  /** Asks one thing after the other, whatever comes of it. */
  foresee(requests: readonly object[]): void {
    for (const request of requests) {
      this.#done = this.#done.then(() => (this.#isTaken ? undefined : this.#child.ask(request))).catch(() => undefined);
    }
  }

  /** The child, once it has answered what it is at; undefined where it died, or is taken already. */
  async take(): Promise<Child | undefined> {
    if (this.#isTaken) return undefined;
    this.#isTaken = true;
    await this.#done;
    return this.#child.isAlive ? this.#child : undefined;
  }

  /** A child that is asked for nothing more by who took it. */
  giveBack(child: Child): void {
    if (this.#isEnded) child.end();
    this.#child = child;
    this.#isTaken = this.#isEnded;
  }

  /** Unless it is taken. */
  end(): void {
    this.#isEnded = true;
    if (!this.#isTaken) this.#child.end();
    this.#isTaken = true;
  }
}

/**
 * Opens processes side by side, and none if one of them cannot be opened.
 * @returns what each replied
 */
export async function openAll<Opened>(workers: readonly ReplaceableProcess<Opened>[]): Promise<Opened[]> {
  try {
    return await Promise.all(workers.map((worker) => worker.inTurn(async (_, opened) => opened)));
  } catch (error) {
    for (const worker of workers) worker.end();
    throw error;
  }
}

/** How a child ended without an answer. */
class Death extends Error {
  readonly signal: NodeJS.Signals | null;

  constructor(how: string, signal: NodeJS.Signals | null = null) {
    super(how);
    this.signal = signal;
  }
}

/** One child: a request at a time, and a death that is noticed. */
class Child {
  readonly #process: ChildProcess;
  #death: Death | undefined;
  #settle: ((outcome: object | Death) => void) | undefined;

  constructor(program: string, environment: Readonly<Record<string, string>> = {}) {
    // What native code writes as it dies is for the one sentence that reports it.
    this.#process = fork(program, [], {
      serialization: "advanced",
      stdio: ["ignore", "ignore", "pipe", "ipc"],
      env: { ...process.env, ...environment },
    });
    let words = "";
    this.#process.stderr?.on("data", (block: Buffer) => {
      words = (words + block.toString()).slice(-keptWords);
    });
    this.#process.on("message", (reply) => this.#settle?.(reply as object));
    // Not "exit": its stderr may still be on the way then.
    this.#process.on("close", (code, signal) => {
      const how = signal === null ? `exit code ${code}` : `killed by ${signal}`;
      const last = lastWords(words);
      this.#die(new Death(last === undefined ? how : `${how}: ${last}`, signal));
    });
    this.#process.on("error", (error) => this.#die(new Death(error.message)));
  }

  get isAlive(): boolean {
    return this.#death === undefined;
  }

  /** @throws the child's own error, or Death */
  async ask<Reply>(request: object): Promise<Reply> {
    const outcome = await new Promise<object | Death>((resolve) => {
      this.#settle = resolve;
      if (this.#death !== undefined) resolve(this.#death);
      // A child that cannot be told anything is of no use any more; "close" says how it ended.
      else this.#process.send(request, (error) => error !== null && this.#process.kill("SIGKILL"));
    });
    if (outcome instanceof Death) throw outcome;
    if (isFailed(outcome)) throw toError(outcome);
    return outcome as Reply;
  }

  end(): void {
    // A child in the middle of a run cannot be asked to stop, and has nothing to save.
    this.#settle = undefined;
    this.#process.kill("SIGKILL");
  }

  #die(death: Death): void {
    this.#death ??= death;
    this.#settle?.(this.#death);
  }
}

function capitalized(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
