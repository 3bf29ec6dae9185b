/**
 * A share of the windows and the child process that computes it. A child that dies (killed, out of memory, a crash of
 * native code) is replaced: a new one opens the same windows and gets the same request. Nothing is lost with it but time,
 * because boundary states are only a shortcut: the request names their base pattern, and the new child computes them anew.
 */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { InputError, RuntimeFailure } from "../base/errors.ts";
import type { Pattern } from "../pattern/pattern.ts";
import type { ComputeDevice, EvaluateOptions } from "./measurement.ts";
import { keptWords, lastWords } from "./native-words.ts";
import type { ProcessSettings } from "./open-losses.ts";
import type { SequenceResults } from "./sequence-losses.ts";

/** Parent to child. Everything passes through structured clone. */
export type LossRequest =
  | { kind: "open"; path: string; windows: Int32Array[]; settings: ProcessSettings }
  | { kind: "evaluate"; pattern: Pattern; options: Omit<EvaluateOptions, "signal"> };

/** Child to parent, one for each request. */
export type LossReply =
  | { kind: "opened"; plan: string[]; sideBySide: number }
  | ({ kind: "evaluated" } & SequenceResults)
  | { kind: "failed"; error: "input" | "runtime" | "unknown"; message: string; hint: string | undefined };

type Opened = Extract<LossReply, { kind: "opened" }>;
type Evaluated = Extract<LossReply, { kind: "evaluated" }>;

export interface WorkerSettings {
  /** For people: `worker 2 of 3 on cuda:1`. */
  name: string;
  open: Extract<LossRequest, { kind: "open" }>;
  /** Hears of a child that died and was replaced. */
  onReplacement?: ((words: string) => void) | undefined;
  /** The child's program; another one in tests. */
  program?: string | undefined;
}

/** A child that dies over the same request again and again does not die by chance. */
const replacementsPerRequest = 2;

export class LossWorker {
  readonly #settings: WorkerSettings;
  #process: LossProcess | undefined;
  #opened: Opened | undefined;
  #ended = false;
  /** Settles with the last request: a reply belongs to the request before it, so there is one at a time. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(settings: WorkerSettings) {
    this.#settings = settings;
  }

  open(): Promise<Opened> {
    return this.#inTurn(async (_, opened) => opened);
  }

  /** @throws the child's own error, or RuntimeFailure where children die one after the other */
  evaluate(pattern: Pattern, options: Omit<EvaluateOptions, "signal">): Promise<Evaluated> {
    return this.#inTurn((process) => process.ask<Evaluated>({ kind: "evaluate", pattern, options }));
  }

  end(): void {
    this.#ended = true;
    this.#process?.end();
  }

  #inTurn<T>(work: (process: LossProcess, opened: Opened) => Promise<T>): Promise<T> {
    const done = this.#last.then(() => this.#outliveDeaths(work));
    this.#last = done.catch(() => undefined);
    return done;
  }

  async #outliveDeaths<T>(work: (process: LossProcess, opened: Opened) => Promise<T>): Promise<T> {
    const { name, open, onReplacement } = this.#settings;
    for (let deaths = 1; ; deaths++) {
      try {
        const process = this.#process ?? this.#start();
        this.#opened ??= await process.ask<Opened>(open);
        return await work(process, this.#opened);
      } catch (error) {
        if (!(error instanceof Death)) throw error;
        this.#process = undefined;
        this.#opened = undefined;
        if (deaths > replacementsPerRequest) {
          const hint = deathHint(open.settings.device);
          throw new RuntimeFailure(`${capitalized(name)} died ${deaths} times in a row (${error.message})`, { hint });
        }
        onReplacement?.(`${name} died (${error.message}) and was replaced`);
      }
    }
  }

  #start(): LossProcess {
    // Nobody would end a child that is started now.
    if (this.#ended) throw new Error("a loss worker was asked after its end");
    this.#process = new LossProcess(this.#settings.program);
    return this.#process;
  }
}

/** How a child ended without an answer. */
class Death extends Error {}

/** One child: a request at a time, and a death that is noticed. */
class LossProcess {
  readonly #child: ChildProcess;
  #death: Death | undefined;
  #settle: ((outcome: LossReply | Death) => void) | undefined;

  constructor(program = fileURLToPath(new URL("./loss-process.js", import.meta.url))) {
    // What native code writes as it dies is for the one sentence that tells of it.
    this.#child = fork(program, [], { serialization: "advanced", stdio: ["ignore", "ignore", "pipe", "ipc"] });
    let words = "";
    this.#child.stderr?.on("data", (block: Buffer) => {
      words = (words + block.toString()).slice(-keptWords);
    });
    this.#child.on("message", (reply) => this.#settle?.(reply as LossReply));
    // Not "exit": its stderr may still be on the way then.
    this.#child.on("close", (code, signal) => {
      const how = signal === null ? `exit code ${code}` : `killed by ${signal}`;
      const last = lastWords(words);
      this.#die(last === undefined ? how : `${how}: ${last}`);
    });
    this.#child.on("error", (error) => this.#die(error.message));
  }

  /** @throws the child's own error, or Death */
  async ask<R extends Opened | Evaluated>(request: LossRequest): Promise<R> {
    const outcome = await new Promise<LossReply | Death>((resolve) => {
      this.#settle = resolve;
      if (this.#death !== undefined) resolve(this.#death);
      // A child that cannot be told anything is of no use any more; "close" says how it ended.
      else this.#child.send(request, (error) => error !== null && this.#child.kill("SIGKILL"));
    });
    if (outcome instanceof Death) throw outcome;
    if (outcome.kind === "failed") throw toError(outcome);
    return outcome as R;
  }

  end(): void {
    // A child in the middle of a run cannot be asked to stop, and has nothing to save.
    this.#settle = undefined;
    this.#child.kill("SIGKILL");
  }

  #die(how: string): void {
    this.#death ??= new Death(how);
    this.#settle?.(this.#death);
  }
}

function deathHint(device: ComputeDevice): string {
  return device === "cpu"
    ? "if memory ran out, use fewer workers; a search with -o can go on with --resume, its journal holds every finished evaluation"
    : "shorter sequences or --dtype float16 take less memory; a search with -o can go on with --resume --device cpu, its journal holds every finished evaluation";
}

function toError({ error, message, hint }: Extract<LossReply, { kind: "failed" }>): Error {
  const details = hint === undefined ? {} : { hint };
  if (error === "input") return new InputError(message, details);
  return error === "runtime" ? new RuntimeFailure(message, details) : new Error(message);
}

function capitalized(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
