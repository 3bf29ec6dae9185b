/**
 * Arms on a serving engine. A pattern is a switch of the whole server, so arms cannot alternate request by request: a batch of
 * items is answered under one pattern, then the same batch under the next, and only then come other items. Pairs stay pairs:
 * both sides of an item are answered within one batch, in the same company of other requests and on the same server. The order of
 * the arms turns around from batch to batch, so that what drifts with time favours none of them, and one switch is spared.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { InterruptedError, RuntimeFailure } from "../base/errors.ts";
import { sum } from "../base/sum.ts";
import type { Pattern } from "../pattern/pattern.ts";
import type { ArmAnswer, ArmRunner, PromptRequest } from "../runtime/generate/arms.ts";
import { Continuation, type TextStream } from "../runtime/generate/continuation.ts";
import type { EngineAdapter } from "./engine-adapter.ts";
import type { LiveModel } from "./live-model.ts";
import { LostServer } from "./server-error.ts";
import { inTurn, SwitchedServer } from "./switched-server.ts";

export interface ServerArmSettings {
  /** Positions of the model; no sequence gets longer, whatever the server allows. */
  window: number;
  /** Requests under way at a time, on each server. */
  concurrency: number;
  /** Hears of restarts and of servers that are given up. */
  note: (words: string) => void;
}

/** What turns tokens into the text of an answer. */
export interface AnswerTokenizer {
  readonly eosIds: readonly number[];
  detokenizer(): TextStream;
}

/** Items of a batch, as a multiple of the requests that are under way at a time: at its end some of these are idle. */
const batchMultiple = 4;
/** Prompt tokens of a batch beyond which it grows no further than `concurrency` items: what Ctrl-C in mid-batch costs. */
const batchTokens = 1 << 18;
/** Milliseconds that a server waits for more items before it begins with those that are there. */
const gathering = 20;

/** One item that waits for its answers. */
interface Job {
  request: PromptRequest;
  patterns: readonly Pattern[];
  signal: AbortSignal | undefined;
  resolve: (answers: ArmAnswer[]) => void;
  reject: (error: unknown) => void;
}

interface Worker {
  server: SwitchedServer;
  queue: Job[];
  /** While it answers batches. */
  working: Promise<void> | undefined;
  /** Answered so far. */
  batches: number;
}

/** A pattern, or the second arm of the same pattern: it has a switch and requests of its own, as any other. */
interface Phase {
  pattern: Pattern;
  /** Which arm of which job it is. */
  arms: { job: Job; arm: number }[];
}

export class ServerArms implements ArmRunner {
  readonly concurrency: number;
  readonly inHand: number;
  readonly plan: string[];
  readonly #served: LiveModel;
  readonly #tokenizer: AnswerTokenizer;
  readonly #settings: ServerArmSettings;
  readonly #workers: Worker[];
  /** Aborted at the end, or by the first failure that no other server can make up for. */
  readonly #end = new AbortController();

  constructor(served: LiveModel, tokenizer: AnswerTokenizer, settings: ServerArmSettings) {
    const { concurrency, note } = settings;
    const largest = batchMultiple * concurrency;
    this.#served = served;
    this.#tokenizer = tokenizer;
    this.#settings = settings;
    this.#workers = served.replicas.map((replica) => ({
      server: new SwitchedServer(replica, note),
      queue: [],
      working: undefined,
      batches: 0,
    }));
    this.concurrency = concurrency * this.#workers.length;
    // While a batch is answered, the next one waits ready.
    this.inHand = 2 * largest * this.#workers.length;
    this.plan = [
      ...served.replicas.map(({ adapter, description }) => `server: ${adapter.url}, ${description.title}`),
      `requests: ${concurrency} at a time on each server; up to ${largest} items under one pattern, then under the next`,
    ];
  }

  answer(request: PromptRequest, patterns: readonly Pattern[], signal?: AbortSignal): Promise<ArmAnswer[]> {
    return new Promise((resolve, reject) => this.#enqueue({ request, patterns, signal, resolve, reject }));
  }

  async release(): Promise<void> {
    this.#end.abort(new InterruptedError("Interrupted"));
    // No switch may come after the server has got its pattern back.
    await Promise.all(this.#workers.map(({ working }) => working));
    await this.#served.release();
  }

  /** An item always goes to the same server, as long as that lives. */
  #enqueue(job: Job): void {
    const { item = 0 } = job.request;
    const own = this.#workers[item % this.#workers.length];
    const alive = this.#workers.filter(({ server }) => !server.lost);
    const worker = own?.server.lost === false ? own : alive[item % Math.max(1, alive.length)];
    if (worker === undefined || this.#end.signal.aborted) {
      job.reject(this.#end.signal.reason ?? new RuntimeFailure("No server is left"));
      return;
    }
    worker.queue.push(job);
    worker.working ??= this.#work(worker);
  }

  /** Answers batches until none is left. Never rejects: its jobs do. */
  async #work(worker: Worker): Promise<void> {
    await sleep(gathering);
    while (worker.queue.length > 0) {
      const batch = this.#takeBatch(worker.queue);
      try {
        const answers = await this.#answerBatch(worker.server, batch, worker.batches++ % 2 === 1);
        for (const [at, job] of batch.entries()) job.resolve(answers[at] as ArmAnswer[]);
      } catch (error) {
        const others = this.#workers.filter(({ server }) => !server.lost && server !== worker.server);
        if (error instanceof LostServer && others.length > 0) {
          worker.server.lost = true;
          const { url } = worker.server.adapter;
          this.#settings.note(`${url} is lost (${error.message}): the other servers take its items, all arms anew`);
          for (const job of [...batch, ...worker.queue.splice(0)]) this.#enqueue(job);
        } else {
          this.#end.abort(error);
          for (const job of [...batch, ...worker.queue.splice(0)]) job.reject(error);
        }
      }
    }
    worker.working = undefined;
  }

  #takeBatch(queue: Job[]): Job[] {
    const { concurrency } = this.#settings;
    let tokens = 0;
    let count = 0;
    while (count < queue.length && count < batchMultiple * concurrency) {
      tokens += queue[count]?.request.prompt.length ?? 0;
      if (count >= concurrency && tokens > batchTokens) break;
      count++;
    }
    return queue.splice(0, count);
  }

  /** @param backwards whether the last arm comes first */
  async #answerBatch(server: SwitchedServer, batch: readonly Job[], backwards: boolean): Promise<ArmAnswer[][]> {
    const answers = batch.map(({ patterns }) => new Array<ArmAnswer>(patterns.length));
    const phases = phasesOf(batch);
    for (const { pattern, arms } of backwards ? phases.toReversed() : phases) {
      const given = arms.flatMap(({ job }) => job.signal ?? []).slice(0, 1);
      const signal = AbortSignal.any([this.#end.signal, ...given]);
      const found = await server.under(pattern, () => this.#answerArms(server.adapter, arms, signal), signal);
      for (const [at, { job, arm }] of arms.entries()) {
        (answers[batch.indexOf(job)] as ArmAnswer[])[arm] = found[at] as ArmAnswer;
      }
    }
    return answers;
  }

  /** What the items need under one pattern: requests that depend on nothing, all in one queue. */
  async #answerArms(
    adapter: EngineAdapter,
    arms: Phase["arms"],
    signal: AbortSignal | undefined,
  ): Promise<ArmAnswer[]> {
    const parts = arms.map((): Partial<ArmAnswer>[] => []);
    const tasks = arms.flatMap(({ job: { request } }, at) =>
      this.#tasksOf(adapter, request).map((task) => async (within: AbortSignal) => {
        parts[at]?.push(await task(within));
      }),
    );
    await inTurn(tasks, this.#settings.concurrency, signal, (task, within) => task(within));
    return parts.map((own) => Object.assign({ prefillSeconds: 0, decodeSeconds: 0 }, ...own) as ArmAnswer);
  }

  #tasksOf(adapter: EngineAdapter, request: PromptRequest): ((signal: AbortSignal) => Promise<Partial<ArmAnswer>>)[] {
    const { prompt, answer, choices } = request;
    const room = this.#longest(adapter);
    const tasks = [(signal: AbortSignal) => this.#generate(adapter, request, signal)];
    if (answer !== undefined) {
      const { start, scored = start } = answer;
      const ids = answer.ids.slice(0, room - 1);
      if (ids.length > scored) {
        tasks.push(async (signal) => {
          const [seconds, logprobs] = await timed(() => adapter.score({ ids, from: scored, signal }));
          return { answerLoss: { nats: -sum(logprobs), tokens: logprobs.length }, prefillSeconds: seconds };
        });
      }
    }
    const longest = Math.max(0, ...(choices?.options ?? []).map((option) => option.length));
    if (choices !== undefined && choices.shared.length + longest < Math.min(room, this.#settings.window + 1)) {
      tasks.push(async (signal) => ({ choices: await scoreChoices(adapter, choices, signal) }));
    }
    if (prompt.length >= room)
      throw new RuntimeFailure(`A prompt of ${prompt.length} tokens leaves no room for an answer`);
    return tasks;
  }

  /**
   * The engine tells which tokens follow; what text they are, and where it ends, is decided by the rules of this tool's own
   * runtime, with the tokenizer of the folder.
   */
  async #generate(adapter: EngineAdapter, request: PromptRequest, signal: AbortSignal): Promise<Partial<ArmAnswer>> {
    const { prompt, maxNewTokens, stop, stopIds = [], minNewTokens = 0, sampling } = request;
    const { eosIds } = this.#tokenizer;
    const window = Math.min(this.#settings.window, this.#longest(adapter));
    const continuation = new Continuation(prompt.length, {
      maxNewTokens,
      window,
      eosIds,
      stop,
      stopIds,
      text: this.#tokenizer.detokenizer(),
    });
    const maxTokens = Math.min(maxNewTokens, window - prompt.length);
    const [seconds, tokens] = await timed(() =>
      adapter.generate({
        ids: prompt,
        maxTokens,
        minTokens: Math.min(minNewTokens, maxTokens),
        stop,
        stopIds: [...eosIds, ...stopIds],
        sampling,
        signal,
      }),
    );
    for (const id of tokens) {
      continuation.push(id);
      if (continuation.ended) break;
    }
    // The engine knows an end that the folder does not name.
    if (!continuation.ended) continuation.finish = "stop";
    continuation.end();
    return {
      tokens: continuation.tokens,
      text: continuation.text,
      finish: continuation.finish,
      decodeSeconds: seconds,
    };
  }

  /** Tokens of a sequence and its continuation together. */
  #longest({ url }: EngineAdapter): number {
    const served = this.#served.replicas.find(({ adapter }) => adapter.url === url)?.description.maxModelLength;
    return served ?? this.#settings.window + 1;
  }
}

/** The first arm of every job, then the second ones, and so on; arms of one pattern together. */
function phasesOf(batch: readonly Job[]): Phase[] {
  const phases = new Map<string, Phase>();
  for (const job of batch) {
    for (const [arm, pattern] of job.patterns.entries()) {
      const repeat = job.patterns.slice(0, arm).filter((one) => one === pattern).length;
      const key = `${pattern} ${repeat}`;
      const phase = phases.get(key) ?? { pattern, arms: [] };
      phases.set(key, phase);
      phase.arms.push({ job, arm });
    }
  }
  return [...phases.values()];
}

/** One request for all labels of a token each, where the engine can; else one for each label. */
async function scoreChoices(
  adapter: EngineAdapter,
  { shared, options }: NonNullable<PromptRequest["choices"]>,
  signal: AbortSignal,
): Promise<number[]> {
  const single = options.every((option) => option.length === 1);
  const together = single ? await adapter.scoreNext(shared, options.flat(), signal) : undefined;
  if (together !== undefined) return [...together];
  const scores: number[] = [];
  for (const option of options) {
    scores.push(sum(await adapter.score({ ids: [...shared, ...option], from: shared.length, signal })));
  }
  return scores;
}

async function timed<T>(work: () => Promise<T>): Promise<[number, T]> {
  const started = performance.now();
  const result = await work();
  return [(performance.now() - started) / 1000, result];
}
