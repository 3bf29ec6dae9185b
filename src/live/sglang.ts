/**
 * SGLang with the kit's plugin. A pattern goes to all schedulers by `/set_internal_state`, as words of 32 layers, because
 * that route takes numbers only; `/server_info` has what the first scheduler reads back.
 */
import { z } from "zod";
import { InputError, RuntimeFailure } from "../base/errors.ts";
import { quoted } from "../base/quoted.ts";
import {
  type DescribedRank,
  describedRank,
  EngineAdapter,
  type EngineDescription,
  type GenerateRequest,
  joinDescriptions,
  joinRanks,
  type PatternState,
  requireLogprobs,
  type ScoreRequest,
  type TokenLogprobs,
} from "./engine-adapter.ts";

const infoSchema = z.object({
  version: z.string().nullish(),
  served_model_name: z.string().nullish(),
  model_path: z.string().nullish(),
  internal_states: z.array(z.object({ indexcache: z.unknown().optional() })).optional(),
});

const setSchema = z.union([z.array(z.boolean()), z.boolean()]);
const scoreSchema = z.object({
  meta_info: z.object({
    input_token_logprobs: z.array(z.tuple([z.number().nullable(), z.int(), z.unknown()])),
  }),
});

const continuedSchema = z.object({ output_ids: z.array(z.int().min(0)).min(1) });
const nextSchema = z.object({
  meta_info: z.object({
    output_token_ids_logprobs: z.array(z.array(z.tuple([z.number().nullable(), z.int(), z.unknown()]))).min(1),
  }),
});

const wordBits = 32;
/** Bytes that a token takes in an answer: some 35. */
const tokenBytes = 200;
/** Of a generated token: its id and its text, which may be long and escaped. */
const generatedBytes = 2000;

const pluginHint =
  "start the server with SGLANG_PLUGINS=indexcache and the kit on PYTHONPATH (`indexcache kit FOLDER` writes it and prints the command)";

export class SglangAdapter extends EngineAdapter {
  readonly engine = "sglang";
  protected readonly requestMetrics = ["sglang:num_running_reqs", "sglang:num_queue_reqs"];
  /** `token_ids_logprob` is one list for all positions. */
  readonly distributions = undefined;
  #vocabSize = Number.POSITIVE_INFINITY;

  async describe(signal?: AbortSignal): Promise<EngineDescription> {
    const { info, ranks } = await this.#info(signal);
    const version = info.version ?? undefined;
    const named = ranks.map((rank) => ({ ...rank, engine_version: rank.engine_version ?? version }));
    const description = joinDescriptions(this.url, "sglang", info.served_model_name ?? info.model_path ?? "", named);
    this.#vocabSize = description.vocabSize ?? Number.POSITIVE_INFINITY;
    return description;
  }

  async prepare(): Promise<string | undefined> {
    return undefined;
  }

  async restore(): Promise<void> {}

  async set(letters: string, signal?: AbortSignal): Promise<PatternState> {
    const done = await this.client.json("POST", "/set_internal_state", setSchema, {
      body: { server_args: wordsOf(letters) },
      signal,
    });
    if ([done].flat().includes(false)) {
      const { ranks } = await this.#info(signal, true);
      const why = ranks.find(({ error }) => error !== undefined)?.error ?? "it does not say why";
      throw new RuntimeFailure(`${this.url} cannot switch to ${letters}: ${quoted(why, 400)}`);
    }
    // Pages that another pattern has written have no index keys of layers that were Shared.
    await this.reset(signal);
    return this.state(signal);
  }

  async state(signal?: AbortSignal): Promise<PatternState> {
    return joinRanks(this.url, (await this.#info(signal)).ranks);
  }

  async count(_reset: boolean, signal?: AbortSignal): Promise<(number | null)[][]> {
    return (await this.#info(signal)).ranks.map(({ calls }) => calls ?? []);
  }

  async score({ ids, from, signal }: ScoreRequest): Promise<TokenLogprobs> {
    // The first listed token has no log-probability, wherever the list begins.
    const body = {
      input_ids: ids,
      sampling_params: { max_new_tokens: 1, temperature: 0 },
      return_logprob: true,
      logprob_start_len: from - 1,
    };
    const most = 65536 + tokenBytes * ids.length;
    const { meta_info } = await this.client.json("POST", "/generate", scoreSchema, { body, signal, most });
    const listed = meta_info.input_token_logprobs.slice(1);
    // The vocabulary's last token is taken for a placeholder of an image and listed as token 0 (seen in 0.5.17).
    const scored = ids.slice(from).map((id) => (id < this.#vocabSize - 1 ? id : 0));
    if (listed.length !== scored.length || listed.some(([, id], index) => id !== scored[index])) {
      throw new RuntimeFailure(
        `${this.url}/generate gives log-probabilities of ${listed.length} tokens where ${scored.length} were asked for, or of others`,
      );
    }
    return requireLogprobs(
      this.url,
      Float64Array.from(listed, ([logprob]) => logprob ?? Number.NaN),
    );
  }

  async scoreNext(ids: readonly number[], tokens: readonly number[], signal?: AbortSignal) {
    const body = {
      input_ids: ids,
      sampling_params: { max_new_tokens: 1, temperature: 0 },
      return_logprob: true,
      logprob_start_len: -1,
      token_ids_logprob: tokens,
    };
    const { meta_info } = await this.client.json("POST", "/generate", nextSchema, { body, signal });
    const listed = new Map(meta_info.output_token_ids_logprobs[0]?.map(([logprob, id]) => [id, logprob]));
    return [
      ...requireLogprobs(
        this.url,
        Float64Array.from(tokens, (id) => listed.get(id) ?? Number.NaN),
      ),
    ];
  }

  async generate({ ids, maxTokens, minTokens, stop, stopIds, sampling, signal }: GenerateRequest): Promise<number[]> {
    const body = {
      input_ids: ids,
      sampling_params: {
        max_new_tokens: maxTokens,
        min_new_tokens: minTokens,
        temperature: sampling?.temperature ?? 0,
        // generation_config.json of the served folder may sample otherwise.
        top_p: 1,
        top_k: -1,
        // Heeded with --enable-deterministic-inference only.
        ...(sampling === undefined ? {} : { sampling_seed: sampling.seed % 2 ** 31 }),
        stop,
        // With ignore_eos it would not look at these either: its own ends of sequence count as well.
        stop_token_ids: stopIds,
      },
    };
    const most = 65536 + generatedBytes * maxTokens;
    return (await this.client.json("POST", "/generate", continuedSchema, { body, signal, most })).output_ids;
  }

  async reset(signal?: AbortSignal): Promise<void> {
    // Refused while a request runs: the last one may have been answered before its scheduler is through with it.
    await this.client.text("POST", "/flush_cache?timeout=30", { signal });
  }

  /** @param withErrors whether a state that holds an error is wanted rather than thrown */
  async #info(signal: AbortSignal | undefined, withErrors = false) {
    const info = await this.client.json("GET", "/server_info", infoSchema, { signal });
    const states = info.internal_states ?? [];
    const ranks: DescribedRank[] = states.map(({ indexcache }) => {
      if (indexcache === undefined) {
        throw new InputError(`${this.url} is SGLang without the kit's plugin`, { hint: pluginHint });
      }
      const told = (indexcache as { error?: unknown }).error;
      const parsed = describedRank.safeParse(indexcache);
      if (parsed.success) return withErrors ? parsed.data : withoutError(parsed.data);
      const why = typeof told === "string" ? told : parsed.error.issues[0]?.message;
      throw new InputError(`${this.url}: the kit's plugin cannot say what runs: ${quoted(why, 400)}`);
    });
    if (ranks.length === 0) throw new InputError(`${this.url}/server_info has no state of a scheduler`);
    return { info, ranks };
  }
}

/** The last switch's refusal stays in the state; it is no fault of what runs. */
function withoutError({ error: _, ...rank }: DescribedRank): DescribedRank {
  return rank;
}

/** Bit i of word w says that layer 32 w + i is Shared. */
function wordsOf(letters: string): Record<string, number> {
  const words = Array.from({ length: Math.ceil(letters.length / wordBits) }, () => 0);
  for (const [layer, letter] of [...letters].entries()) {
    const word = Math.floor(layer / wordBits);
    if (letter !== "F") words[word] = (words[word] ?? 0) + 2 ** (layer % wordBits);
  }
  return Object.fromEntries(words.map((word, index) => [`indexcache_shared_${index}`, word]));
}
