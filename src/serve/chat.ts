/** `POST /v1/chat/completions`: messages go through the model's template, and the assistant answers. */
import type { Hono } from "hono";
import { z } from "zod";
import { checkBody } from "./api-error.ts";
import { chatIds, chatMessages, templateVariables } from "./chat-messages.ts";
import { streamEvents } from "./event-stream.ts";
import type { SequenceRequest } from "./model-runner.ts";
import { promptLogprobs } from "./prompt-logprobs.ts";
import { mostLogprobs, samplingFields, servingFields, unsupportedFields } from "./request-fields.ts";
import type { RowScore } from "./row-score.ts";
import {
  collect,
  endingIds,
  finishReason,
  requireRunnable,
  type SequenceResult,
  samplingOf,
} from "./sequence-results.ts";
import { executeBeside, readJson, type ServerContext } from "./server-context.ts";
import type { TokenTexts } from "./token-text.ts";
import { UsageCount } from "./usage-count.ts";

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
  const { runner } = context;
  app.post("/v1/chat/completions", async (c) => {
    const body = checkBody(await readJson(c), schema);
    const requests = requestsOf(body, context);
    const answer = new ChatAnswer(body, context, texts);
    if (body.stream === true) {
      return streamEvents(c, context, requests, async (send, signal) => {
        for (const [index, request] of requests.entries()) await answer.stream(index, request, send, signal);
        answer.endStream(send);
      });
    }
    return c.json(
      await executeBeside(c, context, requests, async (signal) => {
        const choices: unknown[] = [];
        for (const [index, request] of requests.entries()) {
          choices.push(answer.choice(index, request, await collect(runner.run(request, signal))));
        }
        return answer.whole(choices);
      }),
    );
  });
}

function requestsOf(body: Body, context: ServerContext): SequenceRequest[] {
  const { runner, patterns } = context;
  const pattern = patterns.of(body.model ?? undefined, body.pattern ?? undefined);
  const ids = chatIds(context, body.messages, body);
  const room = Math.max(1, runner.mostTokens - ids.length);
  return Array.from({ length: body.n ?? 1 }, (_, sample) => {
    const request: SequenceRequest = {
      ids,
      pattern,
      maxTokens: body.max_completion_tokens ?? body.max_tokens ?? room,
      sampling: samplingOf(body, sample),
      stop: body.stop,
      eosIds: endingIds(runner, body),
      minTokens: body.min_tokens ?? undefined,
      ...(body.prompt_logprobs == null ? {} : { promptScores: { from: 0, top: body.prompt_logprobs } }),
      ...(body.logprobs === true ? { tokenScores: body.top_logprobs ?? 0 } : {}),
    };
    requireRunnable(runner, request, "messages");
    return request;
  });
}

/** Writes the answer of one request, whole or piece by piece. */
class ChatAnswer {
  readonly #body: Body;
  readonly #texts: TokenTexts;
  readonly #runner: ServerContext["runner"];
  readonly #head: { id: string; created: number; model: string };
  readonly #usage = new UsageCount();
  #promptScores: readonly RowScore[] = [];

  constructor(body: Body, { runner, patterns }: ServerContext, texts: TokenTexts) {
    this.#body = body;
    this.#texts = texts;
    this.#runner = runner;
    const created = Math.floor(Date.now() / 1000);
    this.#head = { id: `chatcmpl-${crypto.randomUUID()}`, created, model: body.model ?? patterns.model };
  }

  choice(index: number, request: SequenceRequest, result: SequenceResult): unknown {
    this.#usage.add(request, index === 0, result.reused, result.tokens.length);
    this.#promptScores = result.promptScores;
    const scores = result.tokens.flatMap(({ score }) => (score === undefined ? [] : [score]));
    return {
      index,
      message: { role: "assistant", content: result.text },
      logprobs: this.#logprobs(scores),
      finish_reason: finishReason(result.finish),
    };
  }

  whole(choices: readonly unknown[]): unknown {
    const { prompt_logprobs: top } = this.#body;
    const prompt = top == null ? {} : { prompt_logprobs: promptLogprobs(this.#promptScores, top, this.#texts) };
    return { ...this.#head, object: "chat.completion", choices, usage: this.#usage.fields(), ...prompt };
  }

  async stream(index: number, request: SequenceRequest, send: (data: unknown) => void, signal: AbortSignal) {
    const piece = (delta: unknown, scores: readonly RowScore[] | undefined, finish: string | null): void => {
      const logprobs = scores === undefined ? null : this.#logprobs(scores);
      const choice = { index, delta, logprobs, finish_reason: finish };
      send({ ...this.#head, object: "chat.completion.chunk", choices: [choice] });
    };
    for await (const event of this.#runner.run(request, signal)) {
      if (event.kind === "prompt") {
        this.#usage.add(request, index === 0, event.reused, 0);
        piece({ role: "assistant", content: "" }, undefined, null);
      } else if (event.kind === "token") {
        this.#usage.addTokens(1);
        if (event.text === "" && event.score === undefined) continue;
        piece({ content: event.text }, event.score === undefined ? undefined : [event.score], null);
      } else {
        piece(event.text === "" ? {} : { content: event.text }, undefined, finishReason(event.finish));
      }
    }
  }

  endStream(send: (data: unknown) => void): void {
    if (this.#body.stream_options?.include_usage !== true) return;
    send({ ...this.#head, object: "chat.completion.chunk", choices: [], usage: this.#usage.fields() });
  }

  #logprobs(scores: readonly RowScore[]): unknown {
    if (this.#body.logprobs !== true) return null;
    const entry = (id: number, logprob: number) => {
      const token = this.#texts.of(id);
      return { token, logprob, bytes: [...Buffer.from(token)] };
    };
    const top = this.#body.top_logprobs ?? 0;
    return {
      content: scores.map((score) => ({
        ...entry(score.id, score.logprob),
        top_logprobs: score.top.slice(0, top).map(({ id, logprob }) => entry(id, logprob)),
      })),
    };
  }
}
