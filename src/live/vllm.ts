/**
 * vLLM with the kit's worker extension, in development mode. Ranks answer through `/collective_rpc`; scores come from
 * `/inference/v1/generate`, or, where a release has no scores of given tokens there, from `/v1/completions`.
 */
import { z } from "zod";
import { RuntimeFailure } from "../base/errors.ts";
import {
  type DescribedRank,
  describedRank,
  EngineAdapter,
  type EngineDescription,
  type GenerateRequest,
  joinDescriptions,
  joinRanks,
  type LikelyTokens,
  type PatternState,
  type RankState,
  rankSchema,
  requireDone,
  requireLogprobs,
  type ScoreRequest,
  type TokenLogprobs,
} from "./engine-adapter.ts";
import { ServerRefusal } from "./server-error.ts";

const modelsSchema = z.object({ data: z.array(z.object({ id: z.string() })).min(1) });
const versionSchema = z.object({ version: z.string() });

/** Of one position: by token id, as a string. */
const positionSchema = z.record(z.string(), z.object({ logprob: z.number(), rank: z.number().nullish() }));
const completionSchema = z.object({
  choices: z.array(z.object({ prompt_logprobs: z.array(positionSchema.nullable()).nullish() })).length(1),
});
const continuedSchema = z.object({
  choices: z.array(z.object({ token_ids: z.array(z.int().min(0)).nullish() })).length(1),
});
const generateSchema = z.object({ prompt_token_id_logprobs: z.string().nullish() });

/** Characters that a position takes in an answer: some 80 for one token; names of tokens may be long. */
const positionBytes = 600;
/** Of a generated token: its id and its text, which may be long and escaped. */
const generatedBytes = 2000;
/** Of a prompt's token, whose id comes back as well. */
const promptIdBytes = 16;
/** Given tokens of a position. */
const mostGiven = 20;

export const extensionHint =
  "start the server with --worker-extension-cls indexcache_live.vllm.PatternExtension and the kit on PYTHONPATH (`indexcache kit FOLDER` writes it and prints the command)";

export class VllmAdapter extends EngineAdapter {
  readonly engine = "vllm";
  protected readonly requestMetrics = ["vllm:num_requests_running", "vllm:num_requests_waiting"];
  #model = "";
  /** Whether this release scores given tokens; found out by `prepare`. */
  #scoresGiven = false;
  #headBefore: string | undefined;

  async describe(signal?: AbortSignal): Promise<EngineDescription> {
    const ranks = await this.#rpc("indexcache_describe", [], describedRank, signal);
    const models = await this.client.json("GET", "/v1/models", modelsSchema, { signal });
    this.#model = models.data[0]?.id ?? "";
    return joinDescriptions(this.url, "vllm", this.#model, await this.#withVersion(ranks, signal));
  }

  /** Releases before 0.26 ignore `head_dtype` for generation: the kit computes logits in float32 there. */
  async prepare(signal?: AbortSignal): Promise<string | undefined> {
    this.#scoresGiven = await this.#tryGiven(signal);
    const [rank] = await this.#rpc("indexcache_describe", [], describedRank, signal);
    const before = rank?.head_dtype ?? undefined;
    if (before === undefined || before === "float32") return undefined;
    const set = await this.#rpc("indexcache_head", ["float32"], rankSchema, signal);
    const failed = set.find(({ error }) => error !== undefined);
    if (failed !== undefined) return `logits stay in the model's dtype (${failed.error}), which adds to the noise`;
    this.#headBefore = before;
    return "logits are computed in float32 by the kit for the time of this run";
  }

  async restore(signal?: AbortSignal, always = false): Promise<void> {
    if (this.#headBefore === undefined && !always) return;
    await this.#rpc("indexcache_head", ["model"], rankSchema, signal);
    this.#headBefore = undefined;
  }

  async set(letters: string, signal?: AbortSignal): Promise<PatternState> {
    return joinRanks(this.url, await this.#done("indexcache_set", [letters], `cannot switch to ${letters}`, signal));
  }

  async state(signal?: AbortSignal): Promise<PatternState> {
    return joinRanks(this.url, await this.#done("indexcache_describe", [], "cannot say what it runs", signal));
  }

  async count(reset: boolean, signal?: AbortSignal): Promise<(number | null)[][]> {
    const ranks = await this.#done("indexcache_count", [reset ? "1" : "0"], "cannot count", signal);
    return ranks.map(({ calls }) => calls ?? []);
  }

  async score({ ids, from, signal }: ScoreRequest): Promise<TokenLogprobs> {
    const scored = ids.slice(from);
    if (this.#scoresGiven) {
      const own = scored.map((id) => [id]);
      return requireLogprobs(this.url, Float64Array.from(await this.#given(ids, from, own, signal)));
    }
    const positions = await this.#promptLogprobs(ids, 0, signal);
    return requireLogprobs(
      this.url,
      Float64Array.from(scored, (id, index) => {
        const value = positions[from + index]?.[String(id)]?.logprob;
        if (value === undefined) throw this.#incomplete(`gives no log-probability of the token at ${from + index}`);
        return value;
      }),
    );
  }

  async scoreNext(ids: readonly number[], tokens: readonly number[], signal?: AbortSignal) {
    const [first] = tokens;
    // As many as `--max-logprobs` allows by default.
    if (!this.#scoresGiven || first === undefined || tokens.length > mostGiven) return undefined;
    const values = await this.#given([...ids, first], ids.length, [[...tokens]], signal);
    return [...requireLogprobs(this.url, Float64Array.from(values))];
  }

  async generate({ ids, maxTokens, minTokens, stop, stopIds, sampling, signal }: GenerateRequest): Promise<number[]> {
    const body = {
      model: this.#model,
      prompt: ids,
      max_tokens: maxTokens,
      min_tokens: minTokens,
      temperature: sampling?.temperature ?? 0,
      seed: sampling?.seed,
      // generation_config.json of the served folder may sample otherwise.
      top_p: 1,
      top_k: -1,
      stop,
      stop_token_ids: stopIds,
      ignore_eos: true,
      return_token_ids: true,
    };
    const most = 65536 + generatedBytes * maxTokens + promptIdBytes * ids.length;
    const answer = await this.client.json("POST", "/v1/completions", continuedSchema, { body, signal, most });
    const tokens = answer.choices[0]?.token_ids;
    if (tokens == null || tokens.length === 0) {
      const hint = "is it older than vLLM 0.10.2, or a proxy that drops return_token_ids?";
      throw this.#incomplete("gives no ids of the generated tokens", hint);
    }
    return tokens;
  }

  get distributions(): EngineAdapter["distributions"] {
    if (!this.#scoresGiven) return undefined;
    return {
      likely: async ({ ids, from, signal }, width) => {
        const positions = await this.#promptLogprobs(ids, width, signal);
        const rows = ids.length - from;
        const likely: LikelyTokens = {
          ids: new Int32Array(rows * width).fill(-1),
          logprobs: new Float64Array(rows * width).fill(Number.NEGATIVE_INFINITY),
          width,
        };
        for (let row = 0; row < rows; row++) {
          // The token itself is listed as well, wherever it ranks.
          const top = Object.entries(positions[from + row] ?? {})
            .sort(([, left], [, right]) => right.logprob - left.logprob)
            .slice(0, width);
          for (const [column, [id, { logprob }]] of top.entries()) {
            likely.ids[row * width + column] = Number(id);
            likely.logprobs[row * width + column] = logprob;
          }
        }
        return likely;
      },
      scoreGiven: async ({ ids, from, signal }, { ids: given, width }) => {
        const lists = ids.slice(from).map((id, row) => [id, ...given.subarray(row * width, (row + 1) * width)]);
        return Float64Array.from(await this.#given(ids, from, lists, signal));
      },
    };
  }

  async reset(signal?: AbortSignal): Promise<void> {
    // 0.25 answers without a body.
    await this.client.text("POST", "/reset_prefix_cache", { signal });
  }

  /** What every rank answers, or the first one's refusal with `what` it could not do. */
  async #done(method: string, args: string[], what: string, signal?: AbortSignal): Promise<RankState[]> {
    const ranks = await this.#rpc(method, args, rankSchema, signal);
    requireDone(this.url, ranks, what);
    return ranks;
  }

  async #rpc<T>(method: string, args: string[], rank: z.ZodType<T>, signal?: AbortSignal): Promise<T[]> {
    const answer = z.object({ results: z.array(rank).min(1) });
    try {
      const { results } = await this.client.json("POST", "/collective_rpc", answer, {
        body: { method, args, kwargs: {} },
        signal,
      });
      return results;
    } catch (error) {
      throw this.#explained(error);
    }
  }

  /** What the failures of `/collective_rpc` mean. */
  #explained(error: unknown): unknown {
    if (!(error instanceof ServerRefusal)) return error;
    if (error.status === 404 || error.status === 405) {
      return new ServerRefusal(`${this.url} has no /collective_rpc: its development mode is off`, error.status, {
        hint: "start vLLM with VLLM_SERVER_DEV_MODE=1, on a host that only trusted machines reach",
        cause: error,
      });
    }
    // vLLM answers 500 to a method that its workers do not have.
    if (error.status === 500 || error.status === 400) {
      return new ServerRefusal(`${error.message}: does the server have the kit's extension?`, error.status, {
        hint: extensionHint,
        cause: error,
      });
    }
    return error;
  }

  async #withVersion(ranks: DescribedRank[], signal?: AbortSignal): Promise<DescribedRank[]> {
    if (ranks.every(({ engine_version: version }) => version != null)) return ranks;
    const { version } = await this.client.json("GET", "/version", versionSchema, { signal });
    return ranks.map((rank) => ({ ...rank, engine_version: rank.engine_version ?? version }));
  }

  async #tryGiven(signal?: AbortSignal): Promise<boolean> {
    try {
      await this.#given([1, 2, 3], 1, [[2], [3]], signal);
      return true;
    } catch (error) {
      // A release without the route, without the parameter, or one that ignores it.
      if (error instanceof ServerRefusal || error instanceof GivenUnknown) return false;
      throw error;
    }
  }

  /** @returns [rows, columns] in one array */
  async #given(
    ids: readonly number[],
    from: number,
    lists: readonly (readonly number[])[],
    signal?: AbortSignal,
  ): Promise<Float32Array> {
    const columns = lists[0]?.length ?? 0;
    const body = {
      model: this.#model === "" ? undefined : this.#model,
      token_ids: ids,
      sampling_params: {
        max_tokens: 1,
        temperature: 0,
        prompt_logprob_token_ids: lists,
        prompt_logprob_start: from - 1,
      },
    };
    const settings = { body, signal, most: 65536 + 8 * lists.length * columns };
    const answer = await this.client.json("POST", "/inference/v1/generate", generateSchema, settings);
    const encoded = answer.prompt_token_id_logprobs;
    if (encoded == null) throw new GivenUnknown(`${this.url} gives no scores of given tokens`);
    return decodeNpy(encoded, lists.length, columns);
  }

  async #promptLogprobs(ids: readonly number[], top: number, signal?: AbortSignal) {
    const body = { model: this.#model, prompt: ids, max_tokens: 1, temperature: 0, prompt_logprobs: top };
    const most = 65536 + positionBytes * (1 + top) * ids.length;
    const answer = await this.client.json("POST", "/v1/completions", completionSchema, { body, signal, most });
    const positions = answer.choices[0]?.prompt_logprobs ?? [];
    if (positions.length !== ids.length) {
      throw this.#incomplete(`gives log-probabilities of ${positions.length} tokens of a prompt of ${ids.length}`);
    }
    return positions;
  }

  #incomplete(what: string, hint?: string): RuntimeFailure {
    return new RuntimeFailure(`${this.url}/v1/completions ${what}`, { hint });
  }
}

class GivenUnknown extends RuntimeFailure {}

/**
 * Reads NumPy's file format, which vLLM sends as base64.
 * @returns `[rows, columns]`, row by row
 */
function decodeNpy(base64: string, rows: number, columns: number): Float32Array {
  const bytes = Buffer.from(base64, "base64");
  const version = bytes[6];
  const before = version === 1 ? 10 : 12;
  if (bytes.toString("latin1", 0, 6) !== "\x93NUMPY" || bytes.length < before) {
    throw new RuntimeFailure("prompt_token_id_logprobs is no .npy file");
  }
  const length = version === 1 ? bytes.readUInt16LE(8) : bytes.readUInt32LE(8);
  const header = bytes.toString("latin1", before, before + length);
  const shape = /'shape':\s*\((\d+),\s*(\d+)\)/.exec(header);
  if (!header.includes("'<f4'") || header.includes("'fortran_order': True") || shape === null) {
    throw new RuntimeFailure("prompt_token_id_logprobs is no matrix of float32 in rows");
  }
  const data = bytes.subarray(before + length);
  if (Number(shape[1]) !== rows || Number(shape[2]) !== columns || data.length !== 4 * rows * columns) {
    throw new RuntimeFailure(
      `prompt_token_id_logprobs has ${shape[1]} rows of ${shape[2]}, ${rows} of ${columns} were asked for`,
    );
  }
  return Float32Array.from({ length: rows * columns }, (_, index) => data.readFloatLE(4 * index));
}
