/** What a search needs of a serving engine. One file for each engine: `vllm.ts`, `sglang.ts`. */
import { z } from "zod";
import { InputError, RuntimeFailure } from "../base/errors.ts";
import { quoted } from "../base/quoted.ts";
import type { HttpClient } from "./http-client.ts";

/**
 * What the kit says of one rank (a worker, a scheduler). `letters`: F and S as switched, `-` for a layer without an
 * indexer, `.` for one of another rank.
 */
export const rankSchema = z.object({
  boot_id: z.string().min(1),
  rank: z.int().min(0),
  letters: z
    .string()
    .regex(/^[FS.-]*$/)
    .optional(),
  error: z.string().optional(),
  calls: z.array(z.int().min(0).nullable()).optional(),
  head_dtype: z.string().nullish(),
});

export const describedRank = rankSchema.extend({
  engine: z.string(),
  engine_version: z.string().nullish(),
  /** Letters of the pattern that the server started with. */
  boot_letters: z
    .string()
    .regex(/^[FS.-]*$/)
    .nullish(),
  num_hidden_layers: z.int().min(1),
  vocab_size: z.int().min(1).nullish(),
  index_topk: z.int().min(1).nullish(),
  max_model_len: z.int().min(1).nullish(),
  first_layer: z.int().min(0).nullish(),
  last_layer: z.int().min(0).nullish(),
  dtype: z.string().nullish(),
  kv_cache_dtype: z.string().nullish(),
  tensor_parallel_size: z.int().min(1).nullish(),
  pipeline_parallel_size: z.int().min(1).nullish(),
  /** Settings of the server under which a switched pattern is not what would be measured. */
  obstacles: z.array(z.string()).optional(),
});

export type RankState = z.infer<typeof rankSchema>;
export type DescribedRank = z.infer<typeof describedRank>;

/** What serves, and how. */
export interface EngineDescription {
  engine: "vllm" | "sglang";
  /** As people write it, with the version: `vLLM 0.33.0`. */
  title: string;
  version: string;
  /** What requests call the model. */
  servedModel: string;
  layers: number;
  vocabSize: number | undefined;
  indexTopk: number | undefined;
  /** Tokens of the longest sequence. */
  maxModelLength: number | undefined;
  /** Layers that some rank begins with, ascending; 0 is the first. */
  stageStarts: number[];
  dtype: string | undefined;
  kvCacheDtype: string | undefined;
  headDtype: string | undefined;
  tensorParallel: number;
  pipelineParallel: number;
  obstacles: string[];
  /** The pattern that the server started with; undefined where the kit does not tell. */
  bootLetters: string | undefined;
  state: PatternState;
}

/** What runs at a moment. */
export interface PatternState {
  /** Changes when the server starts anew. */
  bootId: string;
  /** One letter for each layer: F, S, or `-` for a layer that has no indexer there. */
  letters: string;
}

export interface ScoreRequest {
  ids: readonly number[];
  /** The first token that is scored, from 1. */
  from: number;
  signal?: AbortSignal | undefined;
}

/** Log-probabilities of the tokens `ids[from..]`, each after all tokens before it, in nats. */
export type TokenLogprobs = Float64Array;

export interface GenerateRequest {
  ids: readonly number[];
  maxTokens: number;
  /** Before so many tokens none of `stopIds` may come. */
  minTokens: number;
  stop: readonly string[];
  /** Tokens that end it, the ends of sequence among them. */
  stopIds: readonly number[];
  /** The most likely tokens where absent. */
  sampling?: { temperature: number; seed: number } | undefined;
  signal?: AbortSignal | undefined;
}

/** Tokens whose log-probabilities stand for a distribution. */
export interface LikelyTokens {
  /** [rows, width], the likeliest first. */
  ids: Int32Array;
  logprobs: Float64Array;
  width: number;
}

export abstract class EngineAdapter {
  abstract readonly engine: "vllm" | "sglang";
  protected readonly client: HttpClient;
  /** Names of the metrics that count requests under way and waiting. */
  protected abstract readonly requestMetrics: readonly string[];

  constructor(client: HttpClient) {
    this.client = client;
  }

  get url(): string {
    return this.client.url;
  }

  async close(): Promise<void> {
    await this.client.close();
  }

  /** Requests that are under way; undefined where the server does not tell. */
  async running(signal?: AbortSignal): Promise<number | undefined> {
    return await sumMetric(this.client, this.requestMetrics, signal);
  }

  abstract describe(signal?: AbortSignal): Promise<EngineDescription>;
  /** Gets logits as exact as the engine can; nothing where it is so already. */
  abstract prepare(signal?: AbortSignal): Promise<string | undefined>;
  /**
   * Switches every rank, and answers with what they read back.
   * @param letters F, S, and `-` for layers without an indexer
   */
  abstract set(letters: string, signal?: AbortSignal): Promise<PatternState>;
  abstract state(signal?: AbortSignal): Promise<PatternState>;
  /** Runs of each layer's indexer since the last reset (on SGLang: since the last switch), rank by rank. */
  abstract count(reset: boolean, signal?: AbortSignal): Promise<(number | null)[][]>;
  abstract score(request: ScoreRequest): Promise<TokenLogprobs>;
  /**
   * Log-probabilities of each of these tokens as the one after `ids`.
   * @returns undefined where the engine takes a request for each
   */
  abstract scoreNext(
    ids: readonly number[],
    tokens: readonly number[],
    signal?: AbortSignal,
  ): Promise<readonly number[] | undefined>;
  /** The tokens that follow, a stop token and those of a stop text included. */
  abstract generate(request: GenerateRequest): Promise<number[]>;
  /** The likeliest tokens at each scored position; undefined where the engine cannot score given tokens later on. */
  abstract readonly distributions:
    | {
        likely(request: ScoreRequest, width: number): Promise<LikelyTokens>;
        /** Log-probabilities of the token itself, then of the given ones: [rows, 1 + width]. */
        scoreGiven(request: ScoreRequest, given: LikelyTokens): Promise<Float64Array>;
      }
    | undefined;
  /** Forgets what earlier prompts have left in caches. */
  abstract reset(signal?: AbortSignal): Promise<void>;
  /** Undoes `prepare`; with `always` also that of a run that was killed. */
  abstract restore(signal?: AbortSignal, always?: boolean): Promise<void>;
}

/** @throws RuntimeFailure for what a rank could not do */
export function requireDone(url: string, ranks: readonly RankState[], what: string): void {
  const failed = ranks.find(({ error }) => error !== undefined);
  if (failed === undefined) return;
  throw new RuntimeFailure(`${url}: rank ${failed.rank} ${what}: ${quoted(failed.error, 400)}`);
}

/**
 * One state out of those of all ranks.
 * @throws RuntimeFailure where two ranks that hold the same layer disagree, or none holds a layer
 */
export function joinRanks(url: string, ranks: readonly RankState[]): PatternState {
  const letters: string[] = [];
  const from: number[] = [];
  for (const { rank, letters: own } of ranks) {
    for (const [layer, letter] of [...(own ?? "")].entries()) {
      const known = letters[layer];
      if (known === undefined || known === ".") {
        letters[layer] = letter;
        from[layer] = rank;
      } else if (letter !== "." && letter !== known) {
        throw new RuntimeFailure(
          `${url}: layer ${layer} is ${known} on rank ${from[layer]} and ${letter} on rank ${rank}: ranks differ`,
          { hint: "start the server anew: under tensor parallelism all ranks must run the same layers" },
        );
      }
    }
  }
  const absent = letters.indexOf(".");
  if (letters.length === 0 || absent >= 0) {
    throw new RuntimeFailure(
      letters.length === 0
        ? `${url}: no rank says which layers are Full`
        : `${url}: no rank that answered holds layer ${absent}`,
    );
  }
  return { bootId: ranks.map((rank) => rank.boot_id).join("+"), letters: letters.join("") };
}

/** One description out of those of all ranks. */
export function joinDescriptions(
  url: string,
  engine: EngineAdapter["engine"],
  servedModel: string,
  ranks: readonly DescribedRank[],
): EngineDescription {
  requireDone(url, ranks, "cannot say what it runs");
  const [first] = ranks;
  if (first === undefined) throw new InputError(`${url}: no rank answers`);
  const name = { vllm: "vLLM", sglang: "SGLang", indexcache: "indexcache" }[first.engine] ?? first.engine;
  const version = first.engine_version ?? "unknown";
  const boots = ranks.map((rank) => ({ ...rank, letters: rank.boot_letters ?? undefined }));
  return {
    engine,
    title: `${name} ${version}`,
    version,
    servedModel,
    layers: first.num_hidden_layers,
    vocabSize: first.vocab_size ?? undefined,
    indexTopk: first.index_topk ?? undefined,
    maxModelLength: first.max_model_len ?? undefined,
    stageStarts: [...new Set(ranks.flatMap((rank) => rank.first_layer ?? []))].sort((left, right) => left - right),
    dtype: first.dtype ?? undefined,
    kvCacheDtype: first.kv_cache_dtype ?? undefined,
    headDtype: first.head_dtype ?? undefined,
    tensorParallel: first.tensor_parallel_size ?? 1,
    pipelineParallel: first.pipeline_parallel_size ?? 1,
    obstacles: [...new Set(ranks.flatMap((rank) => rank.obstacles ?? []))],
    bootLetters: boots.every(({ letters }) => letters !== undefined) ? joinRanks(url, boots).letters : undefined,
    state: joinRanks(url, ranks),
  };
}

/** @throws RuntimeFailure for what is no log-probability: NaN, or above 0 by more than rounding */
export function requireLogprobs(url: string, values: TokenLogprobs): TokenLogprobs {
  const wrong = values.findIndex((value) => !Number.isFinite(value) || value > 1e-3);
  if (wrong < 0) return values;
  throw new RuntimeFailure(`${url}: the log-probability of a scored token (number ${wrong}) is ${values[wrong]}`, {
    hint: "the model computes no probabilities there: look at its dtype, and at what the server logs",
  });
}

/** The sum of a server's metrics with one of the names; undefined where it has none of them, or does not tell. */
async function sumMetric(
  client: HttpClient,
  names: readonly string[],
  signal: AbortSignal | undefined,
): Promise<number | undefined> {
  const text = await client.text("GET", "/metrics", { signal, once: true }).catch((error: unknown) => {
    if (error instanceof RuntimeFailure || error instanceof InputError) return "";
    throw error;
  });
  let total: number | undefined;
  for (const line of text.split("\n")) {
    const form = /^([\w:]+)(?:\{[^}]*\})?\s+([\d.eE+-]+)$/.exec(line.trim());
    if (form === null || !names.includes(form[1] as string)) continue;
    total = (total ?? 0) + Number(form[2]);
  }
  return total;
}
