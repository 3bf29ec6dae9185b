/** The model's tokenizer over HTTP, in vLLM's shape: lm-evaluation-harness takes it instead of one of its own. */
import type { Hono } from "hono";
import { z } from "zod";
import { ApiError, checkBody } from "./api-error.ts";
import { chatIds, chatMessages, templateVariables } from "./chat-messages.ts";
import { tokenId } from "./request-fields.ts";
import { requireInVocabulary } from "./sequence-results.ts";
import { encodeText, readJson, type ServerContext } from "./server-context.ts";
import type { TokenTexts } from "./token-text.ts";

const tokenizeSchema = z.union(
  [
    z.object({
      model: z.string().nullish(),
      prompt: z.string(),
      add_special_tokens: z.boolean().nullish(),
      return_token_strs: z.boolean().nullish(),
    }),
    z.object({
      model: z.string().nullish(),
      messages: chatMessages,
      add_generation_prompt: z.boolean().nullish(),
      chat_template_kwargs: templateVariables,
      return_token_strs: z.boolean().nullish(),
    }),
  ],
  "needs a prompt, or messages",
);

const detokenizeSchema = z.object({ model: z.string().nullish(), tokens: z.array(tokenId) });

export function addTokenizerRoutes(app: Hono, context: ServerContext, texts: TokenTexts): void {
  const { runner, patterns } = context;

  app.post("/tokenize", async (c) => {
    const body = checkBody(await readJson(c), tokenizeSchema);
    patterns.of(body.model ?? undefined, undefined);
    const tokens =
      "prompt" in body
        ? encodeText(context, body.prompt, body.add_special_tokens ?? true)
        : chatIds(context, body.messages, body);
    return c.json({
      count: tokens.length,
      max_model_len: runner.config.maxPositionEmbeddings,
      tokens,
      token_strs: body.return_token_strs === true ? tokens.map((id) => texts.of(id)) : null,
    });
  });

  app.post("/detokenize", async (c) => {
    const { model, tokens } = checkBody(await readJson(c), detokenizeSchema);
    patterns.of(model ?? undefined, undefined);
    if (runner.tokenizer === undefined) throw new ApiError(400, "The model has no tokenizer");
    requireInVocabulary(tokens, runner.config.vocabSize, "tokens");
    return c.json({ prompt: runner.tokenizer.decodeWhole(tokens) });
  });

  app.get("/tokenizer_info", (c) => {
    const { tokenizer } = runner;
    if (tokenizer === undefined) throw new ApiError(404, "The model has no tokenizer");
    const { bos, eos } = tokenizer.specialTokens;
    return c.json({
      tokenizer_class: "PreTrainedTokenizerFast",
      bos_token: bos ?? null,
      eos_token: eos ?? null,
      chat_template: tokenizer.chatTemplate ?? null,
      model_max_length: runner.config.maxPositionEmbeddings,
    });
  });
}
