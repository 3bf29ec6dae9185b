/** The served model: prompts are scored and continued, each under the pattern of its request; requests take turns, step by step. */
import type { DsaConfig } from "../checkpoint/config/model-config.ts";
import type { Tokenizer } from "../checkpoint/tokenizer/tokenizer.ts";
import { cachedBytes } from "../graph/frames/generation-graph.ts";
import type { ModelFolder } from "../graph/model-folder.ts";
import type { Pattern } from "../pattern/pattern.ts";
import type { Finish } from "../runtime/generate/continuation.ts";
import { generate } from "../runtime/generate/generation.ts";
import { createSampler, type SamplingOptions } from "../runtime/generate/sampling.ts";
import type { ComputeDevice } from "../runtime/measurement.ts";
import { chunksOf } from "../runtime/stages/chunks.ts";
import { StageModel } from "../runtime/stages/stage-model.ts";
import { StagedSequence } from "../runtime/stages/staged-sequence.ts";
import { ExecutionQueue } from "./execution-queue.ts";
import { type NeededScores, PrefixCache, type PromptScores } from "./prefix-cache.ts";
import { RowDistribution, type RowScore, type ScoredToken } from "./row-score.ts";

export interface SequenceRequest {
  ids: readonly number[];
  pattern: Pattern;
  /** 0 scores the prompt only. */
  maxTokens: number;
  sampling: SamplingOptions;
  stop: readonly string[];
  /** Any of these ends the text. */
  eosIds: readonly number[];
  /** Before so many tokens none of them may come. */
  minTokens?: number | undefined;
  /** Asks for scores of the prompt's tokens after position `from`. */
  promptScores?: NeededScores | undefined;
  /** Asks for scores of the generated tokens, with so many most likely ones. */
  tokenScores?: number | undefined;
  /** Asks for the log-probabilities of these tokens at each generated position. */
  givenTokens?: readonly number[] | undefined;
  /** Sees the distribution after every prompt row from `from` on; such a request reuses no row from there on. */
  reader?: { from: number; read: (position: number, row: RowDistribution) => void } | undefined;
}

export type SequenceEvent =
  /** `scores[i]` is of the token at position `from + i + 1`; `reused` rows came from an earlier request. */
  | { kind: "prompt"; scores: readonly RowScore[]; reused: number }
  | { kind: "token"; id: number; text: string; score: RowScore | undefined; given: readonly ScoredToken[] }
  | { kind: "done"; text: string; finish: Finish; tokens: number };

export interface RunnerSettings {
  device: ComputeDevice;
  threads: number;
  /** Bytes of caches that are kept for requests that begin alike. */
  prefixBytes: number;
}

/** What has been done since the server started. */
export interface RunnerCounts {
  promptTokens: number;
  reusedTokens: number;
  generatedTokens: number;
  /** Runs of each layer's indexer. */
  indexerRuns: number[];
}

export class ModelRunner {
  readonly config: DsaConfig;
  readonly tokenizer: Tokenizer | undefined;
  readonly queue = new ExecutionQueue();
  readonly prefixes: PrefixCache;
  readonly counts: RunnerCounts;
  readonly #stages: StageModel;

  private constructor(stages: StageModel, tokenizer: Tokenizer | undefined, prefixBytes: number) {
    this.config = stages.config;
    this.tokenizer = tokenizer;
    this.prefixes = new PrefixCache(stages.config, prefixBytes);
    this.counts = {
      promptTokens: 0,
      reusedTokens: 0,
      generatedTokens: 0,
      indexerRuns: Array.from(stages.config.indexerLayers, () => 0),
    };
    this.#stages = stages;
  }

  /** Loads every layer and every indexer that the model has, once for all patterns. */
  static async open(
    model: ModelFolder,
    tokenizer: Tokenizer | undefined,
    { device, threads, prefixBytes }: RunnerSettings,
  ): Promise<ModelRunner> {
    const stages = await StageModel.open(model, { device, threads }, { purpose: "logits" });
    return new ModelRunner(stages, tokenizer, prefixBytes);
  }

  /** Tokens that a prompt and its continuation may have together: the last one is not run any more. */
  get mostTokens(): number {
    return this.config.maxPositionEmbeddings + 1;
  }

  /** Bytes that the caches take for each token under a pattern. */
  bytesPerToken(pattern: Pattern): number {
    const { latent, indexerKey } = cachedBytes(this.config, pattern, 4);
    return latent + indexerKey;
  }

  /**
   * Does the work of one request on its sequences; requests that are under way take turns. One whose sequence begins as an
   * earlier one's does, by pattern and first chunk, waits for its rows; sequences that are too short have none to reuse.
   * @throws InterruptedError if the signal has come before it may begin
   */
  async share<T>(sequences: readonly SequenceRequest[], work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const { indexTopk } = this.config;
    const long = sequences.filter(({ ids }) => ids.length >= indexTopk);
    const beginnings = long.map(({ ids, pattern }) => `${pattern} ${ids.slice(0, indexTopk).join(" ")}`);
    return await this.queue.share(beginnings, work, signal);
  }

  /**
   * Runs one sequence. Only inside `queue.run` or `share`.
   * @throws InterruptedError at the signal
   */
  async *run(request: SequenceRequest, signal: AbortSignal): AsyncGenerator<SequenceEvent> {
    const prompt = new PromptRun(this, this.#stages, request);
    try {
      let logits = await prompt.prefill(signal);
      yield { kind: "prompt", scores: prompt.scores, reused: prompt.reused };
      if (request.maxTokens === 0) {
        yield { kind: "done", text: "", finish: "length", tokens: 0 };
        return;
      }
      const decoder = {
        vocabularySize: this.config.vocabSize,
        indexerExecutions: { made: 0, saved: 0 },
        prefill: async () => logits,
        decode: async (id: number) => {
          logits = await prompt.decode(id, signal);
          return logits;
        },
      };
      const sample = createSampler(request.sampling);
      const { tokenScores, givenTokens = [] } = request;
      for await (const event of generate(decoder, request.ids, {
        maxNewTokens: request.maxTokens,
        window: this.mostTokens,
        sample,
        eosIds: request.eosIds,
        minNewTokens: request.minTokens ?? 0,
        stop: request.stop,
        signal,
        ...(this.tokenizer === undefined ? {} : { text: this.tokenizer.detokenizer() }),
      })) {
        if (event.kind === "prefilled") continue;
        if (event.kind === "done") {
          const { finish, tokens } = event.result;
          yield { kind: "done", text: event.text, finish, tokens: tokens.length };
          continue;
        }
        this.counts.generatedTokens++;
        const wanted = tokenScores !== undefined || givenTokens.length > 0;
        const row = wanted ? new RowDistribution(logits) : undefined;
        const score = tokenScores === undefined ? undefined : row?.score(event.id, tokenScores);
        const given = row === undefined ? [] : givenTokens.map((id) => ({ id, logprob: row.logprob(id) }));
        yield { kind: "token", id: event.id, text: event.text, score, given };
      }
    } finally {
      prompt.leave();
    }
  }

  async release(): Promise<void> {
    await this.#stages.release();
  }
}

/** A prompt on its way through the model, and the tokens that are generated after it. */
class PromptRun {
  readonly reused: number;
  readonly #runner: ModelRunner;
  readonly #request: SequenceRequest;
  readonly #sequence: StagedSequence;
  /** Those that the request asks for, or that stay with the rows for another one. */
  readonly #scores: PromptScores | undefined;
  #promptRows: number;

  constructor(runner: ModelRunner, stages: StageModel, request: SequenceRequest) {
    this.#runner = runner;
    this.#request = request;
    const { ids, pattern, promptScores, reader } = request;
    const capacity = Math.min(ids.length + request.maxTokens, runner.mostTokens);
    const unread = reader === undefined ? ids : ids.slice(0, reader.from + 1);
    const found = runner.prefixes.take(pattern, unread, promptScores, capacity);
    this.#sequence = found?.sequence ?? StagedSequence.empty(stages, pattern, capacity);
    this.#promptRows = this.#sequence.length;
    this.reused = this.#promptRows;
    this.#scores =
      promptScores === undefined ? found?.scores : scoresToExtend(promptScores, found?.scores, this.reused);
    runner.counts.promptTokens += ids.length;
    runner.counts.reusedTokens += this.reused;
  }

  /** What the request asks for, once the prompt has run. */
  get scores(): RowScore[] {
    const { promptScores } = this.#request;
    if (promptScores === undefined || this.#scores === undefined) return [];
    return this.#scores.rows.slice(promptScores.from - this.#scores.from);
  }

  /** Runs what is not known of the prompt; gives the logits after it. */
  async prefill(signal: AbortSignal): Promise<Float32Array> {
    const { ids, promptScores, reader } = this.#request;
    const from = Math.min(promptScores?.from ?? ids.length, reader?.from ?? ids.length);
    const read = (position: number, logits: Float32Array): void => {
      const next = ids[position + 1];
      if (next === undefined) return;
      const row = new RowDistribution(logits);
      if (reader !== undefined && position >= reader.from) reader.read(position, row);
      if (promptScores !== undefined && position >= promptScores.from) {
        this.#scores?.rows.push(row.score(next, this.#scores.top));
      }
    };
    let logits: Float32Array = new Float32Array();
    for (const { start, end } of chunksOf(this.#runner.config, this.reused, ids.length)) {
      const onIndexer = this.#countIndexer;
      const chunk = ids.slice(start, end);
      logits = await this.#runner.queue.step(
        () => this.#sequence.run(chunk, { wanted: { from, read }, onIndexer, signal }),
        signal,
      );
      this.#promptRows = end;
    }
    return logits;
  }

  async decode(id: number, signal: AbortSignal): Promise<Float32Array> {
    const step = () => this.#sequence.run([id], { onIndexer: this.#countIndexer, signal });
    return await this.#runner.queue.step(step, signal);
  }

  /** Hands what has run over to the next request. */
  leave(): void {
    this.#runner.prefixes.put(this.#request.ids, this.#promptRows, this.#sequence, this.#scores);
  }

  readonly #countIndexer = (layer: number): void => {
    const { indexerRuns } = this.#runner.counts;
    indexerRuns[layer] = (indexerRuns[layer] ?? 0) + 1;
  };
}

/** The scores of reused rows, or none where the request asks for none of those. */
function scoresToExtend(needed: NeededScores, known: PromptScores | undefined, reused: number): PromptScores {
  if (needed.from >= reused || known === undefined) return { ...needed, rows: [] };
  return { from: known.from, top: known.top, rows: [...known.rows] };
}
