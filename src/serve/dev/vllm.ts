/**
 * vLLM's routes for development, as its 0.33 release has them with VLLM_SERVER_DEV_MODE=1 and the kit's worker extension:
 * what `indexcache search --server` uses there.
 */
import type { Hono } from "hono";
import { z } from "zod";
import { ApiError, checkBody } from "../api-error.ts";
import type { SequenceRequest } from "../model-runner.ts";
import { promptLogprobs } from "../prompt-logprobs.ts";
import { mostLogprobs, samplingFields, tokenId, tokenIds } from "../request-fields.ts";
import type { RowDistribution } from "../row-score.ts";
import { collect, finishReason, requireInVocabulary, requireRunnable, sequenceFields } from "../sequence-results.ts";
import { execute, readJson, type ServerContext } from "../server-context.ts";
import type { TokenTexts } from "../token-text.ts";
import type { PatternSwitch, RpcResult } from "./pattern-switch.ts";

const rpcSchema = z.object({
  method: z.string(),
  args: z.array(z.string()).nullish(),
  kwargs: z.record(z.string(), z.string()).nullish(),
  timeout: z.number().nullish(),
});

const generateSchema = z.object({
  token_ids: tokenIds,
  model: z.string().nullish(),
  request_id: z.string().max(200).nullish(),
  stream: z.literal(false, "is not supported by this server").nullish(),
  sampling_params: z.object({
    ...samplingFields,
    n: z.literal(1, "is not supported by this server").nullish(),
    max_tokens: z.int().min(1).nullish(),
    prompt_logprobs: z.int().min(0).max(mostLogprobs).nullish(),
    /** One list for each prompt token after `prompt_logprob_start`; -1 fills up rows that are shorter. */
    prompt_logprob_token_ids: z.array(z.array(z.int().min(-1)).min(1).max(mostLogprobs)).nullish(),
    prompt_logprob_start: tokenId.nullish(),
  }),
});

/** vLLM's default of `max_tokens`. */
const defaultTokens = 16;

export function addVllmRoutes(
  app: Hono,
  context: ServerContext,
  texts: TokenTexts,
  patternSwitch: PatternSwitch,
): void {
  const { runner, patterns } = context;

  app.post("/collective_rpc", async (c) => {
    const { method, args, kwargs } = checkBody(await readJson(c), rpcSchema);
    const argument = (name: string): string | undefined => args?.[0] ?? kwargs?.[name];
    const call = (): RpcResult | undefined => {
      if (method === "indexcache_describe") return patternSwitch.describe();
      if (method === "indexcache_set") return patternSwitch.set(argument("letters"));
      if (method === "indexcache_count") return patternSwitch.count(isTrue(argument("reset")));
      if (method === "indexcache_head") return patternSwitch.head(argument("dtype"));
      return undefined;
    };
    // In turn with the requests, as an engine's workers get both through one queue.
    const result = await execute(c, context, async () => call());
    if (result === undefined)
      throw new ApiError(400, `The worker has no method ${JSON.stringify(method.slice(0, 80))}`);
    return c.json({ results: [result] });
  });

  app.post("/reset_prefix_cache", async (c) => {
    await execute(c, context, async () => runner.prefixes.clear());
    return c.json({ success: true });
  });

  app.post("/inference/v1/generate", async (c) => {
    const {
      token_ids: ids,
      model,
      request_id,
      sampling_params: sampling,
    } = checkBody(await readJson(c), generateSchema);
    const lists = sampling.prompt_logprob_token_ids ?? undefined;
    const start = sampling.prompt_logprob_start ?? 0;
    const candidates =
      lists === undefined ? undefined : new CandidateScores(ids, start, lists, runner.config.vocabSize);
    const top = sampling.prompt_logprobs ?? undefined;
    const request = (): SequenceRequest => ({
      ids,
      pattern: patterns.of(model ?? undefined, undefined),
      maxTokens: sampling.max_tokens ?? defaultTokens,
      ...sequenceFields(runner, sampling),
      ...(top === undefined ? {} : { promptScores: { from: 0, top } }),
      ...(candidates === undefined ? {} : { reader: { from: start, read: candidates.read } }),
    });
    requireRunnable(runner, request(), "token_ids");
    const result = await execute(c, context, (signal) => collect(runner.run(request(), signal)));
    return c.json({
      request_id: request_id ?? crypto.randomUUID(),
      choices: [
        {
          index: 0,
          token_ids: result.tokens.map(({ id }) => id),
          finish_reason: finishReason(result.finish),
          logprobs: null,
        },
      ],
      prompt_logprobs: top === undefined ? null : promptLogprobs(result.promptScores, top, texts),
      prompt_token_id_logprobs: candidates === undefined ? null : candidates.encoded(),
    });
  });
}

/** What `/server_info` shows of an engine's configuration. */
export function vllmServerInfo({ patterns, runner }: ServerContext): Record<string, unknown> {
  return {
    vllm_config: {
      model_config: { model: patterns.model, max_model_len: runner.config.maxPositionEmbeddings, enforce_eager: true },
      cache_config: { enable_prefix_caching: false, cache_dtype: "float32" },
      parallel_config: { tensor_parallel_size: 1, pipeline_parallel_size: 1, data_parallel_size: 1 },
      speculative_config: null,
    },
  };
}

/** Log-probabilities of chosen tokens, row by row. */
class CandidateScores {
  readonly #lists: readonly (readonly number[])[];
  readonly #start: number;
  readonly #width: number;
  readonly #values: Float32Array;

  /** @throws ApiError for lists that do not fit the prompt */
  constructor(ids: readonly number[], start: number, lists: readonly (readonly number[])[], vocabSize: number) {
    const rows = ids.length - 1 - start;
    if (lists.length !== rows || rows < 1) {
      throw new ApiError(
        400,
        `prompt_logprob_token_ids has ${lists.length} lists: a prompt of ${ids.length} tokens scored after position ${start} has ${Math.max(0, rows)} rows`,
        "sampling_params",
      );
    }
    requireInVocabulary(lists.flat(), vocabSize, "sampling_params");
    this.#lists = lists;
    this.#start = start;
    this.#width = Math.max(...lists.map(({ length }) => length));
    this.#values = new Float32Array(rows * this.#width).fill(Number.NEGATIVE_INFINITY);
  }

  readonly read = (position: number, row: RowDistribution): void => {
    const index = position - this.#start;
    for (const [column, id] of (this.#lists[index] ?? []).entries()) {
      if (id >= 0) this.#values[index * this.#width + column] = row.logprob(id);
    }
  };

  encoded(): string {
    return encodeNpy(this.#values, this.#lists.length, this.#width).toString("base64");
  }
}

function isTrue(text: string | undefined): boolean {
  return text !== undefined && /^(1|true|yes)$/i.test(text);
}

const magic = Buffer.from("\x93NUMPY\x01\x00", "latin1");
/** The data begin at a multiple of this. */
const alignment = 64;

/**
 * NumPy's file format, which vLLM sends as base64.
 * @param values `[rows, columns]`, row by row
 */
function encodeNpy(values: Float32Array, rows: number, columns: number): Buffer {
  const described = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${columns}), }`;
  const before = magic.length + 2;
  const total = Math.ceil((before + described.length + 1) / alignment) * alignment;
  const header = Buffer.alloc(total, " ");
  magic.copy(header);
  header.writeUInt16LE(total - before, magic.length);
  header.write(described, before, "latin1");
  header[total - 1] = 0x0a;
  return Buffer.concat([header, Buffer.from(values.buffer, values.byteOffset, values.byteLength)]);
}
