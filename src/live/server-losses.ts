/**
 * Losses that a serving engine computes: the `PatternEvaluator` of `--server`. Every evaluation switches the server,
 * checks what all ranks read back, scores the sequences in a fixed order, and checks again that it was the same server
 * with the same pattern all the time.
 */
import { InputError, RuntimeFailure } from "../base/errors.ts";
import { sum } from "../base/sum.ts";
import { fullLayers, type Pattern } from "../pattern/pattern.ts";
import { meanLoss } from "../runtime/loss/mean-loss.ts";
import {
  type EvaluateContext,
  type EvaluateOptions,
  evaluateInTurn,
  type Measurement,
  type Objective,
  type PatternEvaluator,
  type PatternRequest,
  type SequenceLoss,
} from "../runtime/measurement.ts";
import { meanDivergence } from "./divergence.ts";
import type { LikelyTokens } from "./engine-adapter.ts";
import type { LiveModel } from "./live-model.ts";
import { LostServer } from "./server-error.ts";
import { inTurn, SwitchedServer } from "./switched-server.ts";

export interface ServerLossSettings {
  objective: Objective;
  /** Up to this position every pattern selects all keys: scores begin there. */
  indexTopk: number;
  /** Position of the first token that counts, for each window, where that is later. */
  scoredFrom?: readonly number[];
  /** Requests under way at a time, on each server. */
  concurrency: number;
  /** Hears of restarts and of servers that are given up. */
  note: (words: string) => void;
}

/** Tokens of the model's own distribution that the KL objective compares. */
const likelyTokens = 16;
export class ServerLosses implements PatternEvaluator {
  readonly sideBySide: number;
  readonly #windows: readonly Int32Array[];
  readonly #settings: ServerLossSettings;
  readonly #served: LiveModel;
  readonly #workers: SwitchedServer[];
  readonly #own: Pattern;
  /** Which server a sequence goes to. */
  readonly #places: number[];
  /** Of the own pattern, on the server that has measured it first. */
  readonly #ownLosses = new Map<number, number>();
  /** What is added to a sequence's loss since it has moved to another server. */
  readonly #offsets = new Map<number, number>();
  /** Of the own pattern, for the KL objective. */
  readonly #likely = new Map<number, LikelyTokens>();

  /**
   * @throws InputError for a sequence that the server cannot score, or whose loss no pattern can move, and for the
   *   objective `kl` on an engine that cannot score given tokens
   */
  constructor(served: LiveModel, windows: readonly Int32Array[], settings: ServerLossSettings) {
    this.#served = served;
    this.#windows = windows;
    this.#settings = settings;
    this.#workers = served.replicas.map((replica) => new SwitchedServer(replica, settings.note));
    this.#own = served.ownPattern;
    this.#places = Array.from(windows, (_, index) => index % this.#workers.length);
    this.sideBySide = settings.concurrency * this.#workers.length;
    this.#requireScorable();
  }

  get plan(): string[] {
    const { concurrency, indexTopk } = this.#settings;
    const servers = this.#workers.map(({ adapter, description }) => `server: ${adapter.url}, ${description.title}`);
    return [
      ...servers,
      `requests: ${concurrency} at a time on each server; tokens are scored from position ${indexTopk} on`,
    ];
  }

  evaluateAll(requests: readonly PatternRequest[], context?: EvaluateContext): AsyncIterable<Measurement> {
    return evaluateInTurn(this, requests, context);
  }

  async evaluate(pattern: Pattern, options: EvaluateOptions = {}): Promise<Measurement> {
    const { signal } = options;
    const indices = options.sequences ?? [...this.#windows.keys()];
    const absent = indices.find((index) => this.#windows[index] === undefined);
    if (absent !== undefined || indices.length === 0) {
      throw new RangeError(indices.length === 0 ? "no windows to evaluate" : `there is no window ${absent}`);
    }
    const started = performance.now();
    const results = new Map<number, SequenceLoss>();
    for (let left = [...indices]; left.length > 0; left = left.filter((index) => !results.has(index))) {
      await this.#shareOut(pattern, left, results, signal);
    }
    const sequences = indices.map((index) => results.get(index) as SequenceLoss);
    const layers = pattern.length * indices.length;
    const indexers = fullLayers(pattern).length * indices.length;
    const rows = sum(indices.map((index) => this.#window(index).length)) * pattern.length;
    return {
      pattern,
      ...meanLoss(sequences),
      sequences,
      seconds: (performance.now() - started) / 1000,
      executions: {
        body: layers,
        indexer: indexers,
        naiveBody: layers,
        naiveIndexer: indexers,
        rows: { run: rows, prefix: 0, invariant: 0, kept: 0 },
      },
    };
  }

  async release(): Promise<void> {
    await this.#served.release();
  }

  /** Gives every server its sequences; one that is lost leaves them to the others, which are then asked again. */
  async #shareOut(
    pattern: Pattern,
    indices: readonly number[],
    results: Map<number, SequenceLoss>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const failures = await Promise.all(
      this.#workers.map(async (worker, place): Promise<unknown> => {
        const own = indices.filter((index) => this.#places[index] === place);
        if (own.length === 0) return undefined;
        try {
          const losses = await this.#measure(worker, pattern, own, signal);
          for (const [at, index] of own.entries()) results.set(index, this.#moved(index, losses[at] as SequenceLoss));
          if (pattern === this.#own) this.#rememberOwn(own, results);
        } catch (error) {
          if (!(error instanceof LostServer) || this.#workers.filter(({ lost }) => !lost).length < 2) return error;
          worker.lost = true;
          this.#settings.note(`${worker.adapter.url} is lost (${error.message}): the other servers take its sequences`);
        }
        return undefined;
      }),
    );
    signal?.throwIfAborted();
    const failure = failures.find((error) => error !== undefined);
    if (failure !== undefined) throw failure;
    await this.#handOver(signal);
  }

  /** Sequences of lost servers go to the others, in turn, and their own pattern's losses are measured anew there. */
  async #handOver(signal: AbortSignal | undefined): Promise<void> {
    const alive = [...this.#workers.keys()].filter((place) => this.#workers[place]?.lost === false);
    const orphans = [...this.#places.keys()].filter((index) => !alive.includes(this.#places[index] as number));
    if (orphans.length === 0) return;
    for (const [at, index] of orphans.entries()) this.#places[index] = alive[at % alive.length] as number;
    for (const place of alive) {
      const taken = orphans.filter((index) => this.#places[index] === place && this.#ownLosses.has(index));
      if (taken.length === 0) continue;
      for (const index of taken) this.#likely.delete(index);
      const losses = await this.#measure(this.#workers[place] as SwitchedServer, this.#own, taken, signal);
      for (const [at, index] of taken.entries()) {
        this.#offsets.set(index, (this.#ownLosses.get(index) as number) - (losses[at] as SequenceLoss).loss);
      }
    }
  }

  /** A difference between two servers is none between patterns. */
  #moved(index: number, loss: SequenceLoss): SequenceLoss {
    const offset = this.#offsets.get(index);
    return offset === undefined ? loss : { ...loss, loss: loss.loss + offset };
  }

  #rememberOwn(indices: readonly number[], results: ReadonlyMap<number, SequenceLoss>): void {
    for (const index of indices) {
      const loss = results.get(index)?.loss;
      if (loss !== undefined && !this.#ownLosses.has(index)) this.#ownLosses.set(index, loss);
    }
  }

  async #measure(
    worker: SwitchedServer,
    pattern: Pattern,
    indices: readonly number[],
    signal: AbortSignal | undefined,
  ): Promise<SequenceLoss[]> {
    await this.#requireLikely(worker, indices, signal);
    const { concurrency } = this.#settings;
    return await worker.under(
      pattern,
      () => inTurn(indices, concurrency, signal, (index, within) => this.#score(worker, index, within)),
      signal,
    );
  }

  async #score(worker: SwitchedServer, index: number, signal: AbortSignal): Promise<SequenceLoss> {
    const request = this.#request(index, signal);
    const tokens = request.ids.length - request.from;
    if (this.#settings.objective === "nll") {
      return { loss: -sum(await worker.adapter.score(request)) / tokens, tokens };
    }
    const own = this.#likely.get(index) as LikelyTokens;
    const scored = (await worker.adapter.distributions?.scoreGiven(request, own)) as Float64Array;
    const itself = Array.from({ length: tokens }, (_, row) => scored[row * (own.width + 1)] as number);
    const wrong = itself.find((value) => !Number.isFinite(value));
    if (wrong !== undefined)
      throw new RuntimeFailure(`${worker.adapter.url}: a token has the log-probability ${wrong}`);
    return { loss: -sum(itself) / tokens, tokens, kl: meanDivergence(own, scored) };
  }

  /** The distributions of the model's own pattern, which divergences are from. */
  async #requireLikely(
    worker: SwitchedServer,
    indices: readonly number[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { distributions } = worker.adapter;
    if (this.#settings.objective === "nll" || distributions === undefined) return;
    const missing = indices.filter((index) => !this.#likely.has(index));
    if (missing.length === 0) return;
    const found = await worker.under(
      this.#own,
      () =>
        inTurn(missing, this.#settings.concurrency, signal, (index, within) =>
          distributions.likely(this.#request(index, within), likelyTokens),
        ),
      signal,
    );
    for (const [at, index] of missing.entries()) this.#likely.set(index, found[at] as LikelyTokens);
  }

  #request(index: number, signal: AbortSignal) {
    return { ids: [...this.#window(index)], from: this.#scoredFrom(index), signal };
  }

  #scoredFrom(index: number): number {
    const { indexTopk, scoredFrom } = this.#settings;
    return Math.max(indexTopk, scoredFrom?.[index] ?? 0);
  }

  #window(index: number): Int32Array {
    return this.#windows[index] as Int32Array;
  }

  #requireScorable(): void {
    const { indexTopk, objective } = this.#settings;
    const { maxModelLength, title } = this.#served.description;
    const short = this.#windows.findIndex((window) => window.length <= indexTopk);
    if (short >= 0) {
      throw new InputError(
        `Sequence ${short} has ${this.#window(short).length} tokens, not more than index_topk (${indexTopk}): no pattern changes anything there`,
        { hint: "give a longer --sequence-length" },
      );
    }
    const longest = Math.max(...this.#windows.map((window) => window.length));
    if (maxModelLength !== undefined && longest + 1 > maxModelLength) {
      throw new InputError(
        `Sequences of ${longest} tokens and one more do not fit into the server's ${maxModelLength} (--max-model-len there)`,
        { hint: `give --sequence-length ${maxModelLength - 1} or less, or start the server with more` },
      );
    }
    if (objective === "kl" && this.#workers.some(({ adapter }) => adapter.distributions === undefined)) {
      throw new InputError(
        `--objective kl needs log-probabilities of given tokens at every position, which ${title} does not offer`,
        { hint: "vLLM 0.33 does (prompt_logprob_token_ids); search by the loss, which is the default" },
      );
    }
  }
}
