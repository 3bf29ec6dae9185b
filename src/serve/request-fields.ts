/** Fields that requests of several endpoints share. */
import { z } from "zod";

/** Most likely tokens that a request may ask for, as vLLM's default. */
export const mostLogprobs = 20;

/** Prompts of one request, and continuations of each. */
const mostPrompts = 2048;
const mostChoices = 128;

export const tokenId = z.int().min(0);
export const tokenIds = z.array(tokenId).min(1, "must hold at least one token");

/** One prompt or several, as text or as token ids. */
export const prompts = z.union(
  [z.string(), tokenIds, z.array(z.string()).min(1).max(mostPrompts), z.array(tokenIds).min(1).max(mostPrompts)],
  "must be a text, a list of token ids, or a list of either",
);

export const stopTexts = z
  .union(
    [z.string().min(1), z.array(z.string().min(1)).max(64)],
    "must be a text, or a list of up to 64, none of them empty",
  )
  .nullish()
  .transform((stop) => (stop == null ? [] : typeof stop === "string" ? [stop] : stop));

/** What decides the next token, and when to end. */
export const samplingFields = {
  temperature: z.number().min(0).max(100).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  /** -1 and 0 stand for all tokens. */
  top_k: z.int().min(-1).nullish(),
  seed: z.int().nullish(),
  stop: stopTexts,
  stop_token_ids: z.array(tokenId).nullish(),
  ignore_eos: z.boolean().nullish(),
  /** Before so many tokens no token ends the text; stop texts still do. */
  min_tokens: z.int().min(0).nullish(),
  n: z.int().min(1).max(mostChoices).nullish(),
};

export const servingFields = {
  model: z.string().nullish(),
  /** Letters, `full`, `uniform:N`, `freq:N`, or a name that `/v1/models` lists after the @. */
  pattern: z.string().nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.object({ include_usage: z.boolean().nullish() }).nullish(),
  prompt_logprobs: z.int().min(0).max(mostLogprobs).nullish(),
};

/** Fields whose only accepted values are those that change nothing: ignoring others would answer another question. */
export const unsupportedFields = {
  best_of: z.literal(1, "is not supported by this server").nullish(),
  suffix: z.literal("", "is not supported by this server").nullish(),
  presence_penalty: z.literal(0, "is not supported by this server").nullish(),
  frequency_penalty: z.literal(0, "is not supported by this server").nullish(),
  repetition_penalty: z.literal(1, "is not supported by this server").nullish(),
  min_p: z.literal(0, "is not supported by this server").nullish(),
  logit_bias: z.strictObject({}, "is not supported by this server").nullish(),
  response_format: z.looseObject({ type: z.literal("text", "is not supported by this server") }).nullish(),
  structured_outputs: z.null("is not supported by this server").optional(),
  guided_json: z.null("is not supported by this server").optional(),
  tools: z.array(z.unknown()).max(0, "are not supported by this server").nullish(),
  use_beam_search: z.literal(false, "is not supported by this server").nullish(),
};
