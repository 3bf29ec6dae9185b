/** `POST /v1/chat/completions`: messages go through the model's template, and the assistant answers. */
import type { Hono } from "hono";
import { z } from "zod";
import { checkBody } from "./api-error.ts";
import { chatIds, chatMessages, templateVariables } from "./chat-messages.ts";
import type { SequenceEvent, SequenceRequest } from "./model-runner.ts";
import { promptLogprobs } from "./prompt-logprobs.ts";
import { mostLogprobs, samplingFields, servingFields, unsupportedFields } from "./request-fields.ts";
import type { RowScore } from "./row-score.ts";
import { finishReason, requireRunnable, type SequenceResult, sequenceFields } from "./sequence-results.ts";
import { readJson, type ServerContext } from "./server-context.ts";
import { type Choice, TextAnswer } from "./text-answer.ts";
import type { TokenTexts } from "./token-text.ts";

const schema = z
  .object({
    ...servingFields,
    ...samplingFields,
    ...unsupportedFields,
    messages: chatMessages,
    max_tokens: z.int().min(1).nullish(),
    max_completion_tokens: z.int().min(1).nullish(),
    logprobs: z.boolean().nullish(),
    top_logprobs: z.int().min(0).max(mostLogprobs).nullish(),
    add_generation_prompt: z.boolean().nullish(),
    continue_final_message: z.literal(false, "is not supported by this server").nullish(),
    chat_template_kwargs: templateVariables,
  })
  .refine(({ logprobs, top_logprobs: top }) => logprobs === true || top == null || top === 0, {
    path: ["top_logprobs"],
    message: "needs logprobs to be true",
  });

type Body = z.infer<typeof schema>;

export function addChatRoute(app: Hono, context: ServerContext, texts: TokenTexts): void {
  app.post("/v1/chat/completions", async (c) => {
    const body = checkBody(await readJson(c), schema);
    return await new ChatAnswer("chatcmpl", body, context, texts).respond(c, choicesOf(body, context));
  });
}

function choicesOf(body: Body, context: ServerContext): Choice[] {
  const { runner } = context;
  const pattern = context.patterns.of(body.model ?? undefined, body.pattern ?? undefined);
  const ids = chatIds(context, body.messages, body);
  const room = Math.max(1, runner.mostTokens - ids.length);
  return Array.from({ length: body.n ?? 1 }, (_, index) => {
    const request: SequenceRequest = {
      ...sequenceFields(runner, body, index),
      pattern,
      ids,
      maxTokens: body.max_completion_tokens ?? body.max_tokens ?? room,
      ...(body.prompt_logprobs == null ? {} : { promptScores: { from: 0, top: body.prompt_logprobs } }),
      ...(body.logprobs === true ? { tokenScores: body.top_logprobs ?? 0 } : {}),
    };
    requireRunnable(runner, request, "messages");
    return { index, request, first: index === 0 };
  });
}

class ChatAnswer extends TextAnswer<Body> {
  protected readonly object = { whole: "chat.completion", event: "chat.completion.chunk" };
  #promptScores: readonly RowScore[] = [];

  protected choice({ index }: Choice, result: SequenceResult): unknown {
    this.#promptScores = result.promptScores;
    const scores = result.tokens.flatMap(({ score }) => (score === undefined ? [] : [score]));
    return {
      index,
      message: { role: "assistant", content: result.text },
      logprobs: this.#logprobs(scores),
      finish_reason: finishReason(result.finish),
    };
  }

  protected override whole(): object {
    const { prompt_logprobs: top } = this.body;
    return top == null ? {} : { prompt_logprobs: promptLogprobs(this.#promptScores, top, this.texts) };
  }

  protected piece(_: Choice, event: SequenceEvent): object | undefined {
    if (event.kind === "prompt") {
      return { delta: { role: "assistant", content: "" }, logprobs: null, finish_reason: null };
    }
    if (event.kind === "done") {
      const delta = event.text === "" ? {} : { content: event.text };
      return { delta, logprobs: null, finish_reason: finishReason(event.finish) };
    }
    if (event.text === "" && event.score === undefined) return undefined;
    const logprobs = event.score === undefined ? null : this.#logprobs([event.score]);
    return { delta: { content: event.text }, logprobs, finish_reason: null };
  }

  #logprobs(scores: readonly RowScore[]): unknown {
    if (this.body.logprobs !== true) return null;
    const entry = (id: number, logprob: number) => {
      const token = this.texts.of(id);
      return { token, logprob, bytes: [...Buffer.from(token)] };
    };
    const top = this.body.top_logprobs ?? 0;
    return {
      content: scores.map((score) => ({
        ...entry(score.id, score.logprob),
        top_logprobs: score.top.slice(0, top).map(({ id, logprob }) => entry(id, logprob)),
      })),
    };
  }
}
