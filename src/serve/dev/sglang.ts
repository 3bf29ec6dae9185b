/** SGLang's own routes, as its 0.5.23 release has them with the kit's plugin: what `indexcache search --server` uses there. */
import type { Context, Hono } from "hono";
import { z } from "zod";
import { toolVersion } from "../../base/version.ts";
import { ApiError, checkBody } from "../api-error.ts";
import type { SequenceRequest } from "../model-runner.ts";
import { mostLogprobs, stopTexts, tokenId, tokenIds } from "../request-fields.ts";
import type { RowScore } from "../row-score.ts";
import {
  collect,
  requireInVocabulary,
  requireRunnable,
  type SequenceResult,
  sequenceFields,
} from "../sequence-results.ts";
import { encodeText, execute, readJson, type ServerContext } from "../server-context.ts";
import type { PatternSwitch, RpcResult } from "./pattern-switch.ts";

const samplingSchema = z.object({
  max_new_tokens: z.int().min(0).nullish(),
  min_new_tokens: z.int().min(0).nullish(),
  temperature: z.number().min(0).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  top_k: z.int().min(-1).nullish(),
  /** SGLang's own name of the seed. */
  sampling_seed: z.int().nullish(),
  stop: stopTexts,
  stop_token_ids: z.array(tokenId).nullish(),
  ignore_eos: z.boolean().nullish(),
  n: z.literal(1, "is not supported by this server").nullish(),
});

const each = <T extends z.ZodType>(schema: T) => z.union([schema, z.array(schema).min(1)]).nullish();

const generateSchema = z.object({
  text: each(z.string()),
  input_ids: each(tokenIds),
  rid: each(z.string().max(200)),
  sampling_params: samplingSchema.nullish(),
  return_logprob: each(z.boolean()),
  /** The first position whose token is listed; -1 is the last. */
  logprob_start_len: each(z.int().min(-1)),
  top_logprobs_num: each(z.int().min(0).max(mostLogprobs)),
  /** Tokens whose log-probabilities are told at every generated position. */
  token_ids_logprob: z.union([tokenIds, z.array(tokenIds).min(1)]).nullish(),
  stream: z.literal(false, "is not supported by this server").nullish(),
});

const stateSchema = z.object({ server_args: z.record(z.string(), z.number()) });

/** SGLang's default of `max_new_tokens`. */
const defaultTokens = 128;

/** Layers of a word of the pattern. */
const wordBits = 32;
const wordName = /^indexcache_shared_(\d{1,4})$/;

export function addSglangRoutes(app: Hono, context: ServerContext, patternSwitch: PatternSwitch): void {
  const { runner, patterns } = context;

  app.on(["POST", "PUT"], "/set_internal_state", async (c) => {
    const { server_args: words } = checkBody(await readJson(c), stateSchema);
    const result = await execute(c, context, async () => setWords(words, context, patternSwitch));
    return c.json([result.error === undefined]);
  });

  app.on(["GET", "POST"], "/flush_cache", async (c) => {
    await execute(c, context, async () => runner.prefixes.clear());
    return c.text("Cache flushed.\n");
  });

  app.on(["POST", "PUT"], "/generate", async (c) => {
    const body = checkBody(await readJson(c), generateSchema);
    const prompts = promptsOf(body, context);
    const rows = prompts.map((ids, index) => rowOf(body, ids, index));
    const sampling = body.sampling_params ?? samplingSchema.parse({});
    const request = ({ ids, start, top, given }: Row): SequenceRequest => ({
      ids,
      pattern: patterns.current,
      maxTokens: sampling.max_new_tokens ?? defaultTokens,
      ...sequenceFields(runner, { ...sampling, seed: sampling.sampling_seed, min_tokens: sampling.min_new_tokens }),
      ...(start === undefined ? {} : { promptScores: { from: start, top }, tokenScores: top, givenTokens: given }),
    });
    for (const row of rows) requireRunnable(runner, request(row), "input_ids");
    const given = rows.flatMap((row) => row.given);
    requireInVocabulary(given, runner.config.vocabSize, "token_ids_logprob");
    const answers = await execute(c, context, async (signal) => {
      const results: unknown[] = [];
      for (const row of rows) {
        const started = performance.now();
        const result = await collect(runner.run(request(row), signal));
        results.push(answer(row, result, runner.config.vocabSize, (performance.now() - started) / 1000));
      }
      return results;
    });
    return c.json(isBatch(body) ? answers : answers[0]);
  });

  app.get("/get_server_info", (c) => c.json(sglangServerInfo(context, patternSwitch)));
  app.on("GET", ["/model_info", "/get_model_info"], (c: Context) =>
    c.json({ model_path: patterns.model, tokenizer_path: patterns.model, is_generation: true }),
  );
}

/** What `/server_info` shows: arguments and, for each scheduler, what the plugin adds to its state. */
export function sglangServerInfo(
  { patterns, runner }: ServerContext,
  patternSwitch: PatternSwitch,
): Record<string, unknown> {
  const { calls } = patternSwitch.count(false);
  const error = patternSwitch.refused;
  const state = { ...patternSwitch.describe(), calls, error };
  return {
    model_path: patterns.model,
    served_model_name: patterns.model,
    context_length: runner.config.maxPositionEmbeddings,
    tp_size: 1,
    pp_size: 1,
    dp_size: 1,
    disable_radix_cache: true,
    disable_cuda_graph: true,
    version: toolVersion,
    internal_states: [{ indexcache: state }],
  };
}

/** Bit i of word w says that layer 32 w + i is Shared. A new pattern counts its indexers' runs from 0. */
function setWords(
  words: Readonly<Record<string, number>>,
  { patterns }: ServerContext,
  patternSwitch: PatternSwitch,
): RpcResult {
  const layers = patterns.indexers.length;
  const needed = Math.ceil(layers / wordBits);
  const given = new Map<number, number>();
  for (const [name, value] of Object.entries(words)) {
    const index = wordName.exec(name)?.[1];
    if (index === undefined) return patternSwitch.refuse(`Updating ${name.slice(0, 80)} is not supported`);
    if (!(Number.isInteger(value) && value >= 0 && value < 2 ** wordBits)) {
      return patternSwitch.refuse(`${name} must be a whole number of ${wordBits} bits`);
    }
    given.set(Number(index), value);
  }
  if (given.size !== needed || [...given.keys()].some((index) => index >= needed)) {
    return patternSwitch.refuse(
      `${layers} layers take the words indexcache_shared_0 to indexcache_shared_${needed - 1}, and no others`,
    );
  }
  const beyond = layers % wordBits;
  if (beyond > 0 && (given.get(needed - 1) ?? 0) >= 2 ** beyond) {
    return patternSwitch.refuse(`indexcache_shared_${needed - 1} has bits for layers that the model does not have`);
  }
  const letters = Array.from(patterns.indexers, (_, layer) => {
    const word = given.get(Math.floor(layer / wordBits)) ?? 0;
    return Math.floor(word / 2 ** (layer % wordBits)) % 2 === 1 ? "S" : "F";
  });
  const result = patternSwitch.set(letters.join(""));
  if (result.error === undefined) patternSwitch.count(true);
  return result;
}

type GenerateBody = z.infer<typeof generateSchema>;

interface Row {
  ids: number[];
  id: string;
  /** The first position that is listed; undefined where no log-probabilities are wanted. */
  start: number | undefined;
  top: number;
  /** Tokens whose log-probabilities are wanted as well. */
  given: readonly number[];
}

function isBatch({ text, input_ids: ids }: GenerateBody): boolean {
  return Array.isArray(text) || Array.isArray(ids?.[0]);
}

function promptsOf({ text, input_ids: ids }: GenerateBody, context: ServerContext): number[][] {
  if ((text == null) === (ids == null)) throw new ApiError(400, "Give either text or input_ids", "input_ids");
  if (ids != null) return Array.isArray(ids[0]) ? (ids as number[][]) : [ids as number[]];
  return [text ?? []].flat().map((one) => encodeText(context, one, true));
}

function rowOf(body: GenerateBody, ids: number[], index: number): Row {
  const at = <T>(value: T | T[] | null | undefined, absent: T): T =>
    (Array.isArray(value) ? value[index] : value) ?? absent;
  const start = at(body.logprob_start_len, -1);
  if (start >= ids.length) {
    throw new ApiError(400, `logprob_start_len is ${start}, the prompt has ${ids.length} tokens`, "logprob_start_len");
  }
  return {
    ids,
    id: at(body.rid, crypto.randomUUID()),
    start: at(body.return_logprob, false) ? (start < 0 ? ids.length - 1 : start) : undefined,
    top: at(body.top_logprobs_num, 0),
    given: givenOf(body, index),
  };
}

function givenOf({ token_ids_logprob: given }: GenerateBody, index: number): readonly number[] {
  if (given == null) return [];
  return Array.isArray(given[0]) ? ((given as number[][])[index] ?? []) : (given as number[]);
}

type Listed = [logprob: number | null, id: number, text: null];

function answer(row: Row, result: SequenceResult, vocabSize: number, seconds: number): Record<string, unknown> {
  const { ids, id, start } = row;
  const { finish, tokens, reused } = result;
  const last = tokens.at(-1)?.id;
  const reason =
    finish === "length" || finish === "window"
      ? { type: "length", length: tokens.length }
      : { type: "stop", matched: finish === "eos" ? last : null };
  return {
    text: result.text,
    output_ids: tokens.map((token) => token.id),
    meta_info: {
      id,
      finish_reason: reason,
      prompt_tokens: ids.length,
      completion_tokens: tokens.length,
      cached_tokens: reused,
      e2e_latency: seconds,
      ...(start === undefined ? {} : logprobFields(row, result, vocabSize)),
    },
  };
}

/** The list begins with the token at `start`, which has no log-probability there, wherever that is. */
function logprobFields({ ids, start = 0, top, given }: Row, result: SequenceResult, vocabSize: number) {
  const generated = result.tokens.flatMap(({ score }) => (score === undefined ? [] : [score]));
  const tokens = (scores: readonly RowScore[]) => scores.map(({ logprob, id }): Listed => [logprob, id, null]);
  const likely = (scores: readonly RowScore[]) =>
    scores.map((score) => score.top.slice(0, top).map(({ logprob, id }): Listed => [logprob, id, null]));
  const first: Listed = [null, ids[start] as number, null];
  // SGLang takes the vocabulary's last token for a placeholder of an image, and lists token 0 in its place.
  const prompt = [first, ...tokens(result.promptScores)].map(
    ([logprob, id, text]): Listed => [logprob, id < vocabSize - 1 ? id : 0, text],
  );
  return {
    input_token_logprobs: prompt,
    output_token_logprobs: tokens(generated),
    ...(given.length === 0
      ? {}
      : {
          output_token_ids_logprobs: result.tokens.map((token) =>
            token.given.map(({ logprob, id }): Listed => [logprob, id, null]),
          ),
        }),
    ...(top === 0
      ? {}
      : { input_top_logprobs: [null, ...likely(result.promptScores)], output_top_logprobs: likely(generated) }),
  };
}
