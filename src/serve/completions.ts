/** `POST /v1/completions`: texts or token ids go on, and their tokens are scored. */
import type { Hono } from "hono";
import { z } from "zod";
import { ApiError, checkBody } from "./api-error.ts";
import { CompletionLogprobs } from "./completion-logprobs.ts";
import type { SequenceEvent, SequenceRequest } from "./model-runner.ts";
import { promptLogprobs } from "./prompt-logprobs.ts";
import { mostLogprobs, prompts, samplingFields, servingFields, unsupportedFields } from "./request-fields.ts";
import { finishReason, requireRunnable, type SequenceResult, sequenceFields } from "./sequence-results.ts";
import { encodeText, readJson, type ServerContext } from "./server-context.ts";
import { type Choice, TextAnswer } from "./text-answer.ts";
import type { TokenTexts } from "./token-text.ts";

const schema = z.object({
  ...servingFields,
  ...samplingFields,
  ...unsupportedFields,
  prompt: prompts,
  max_tokens: z.int().min(0).nullish(),
  /** The prompt's text, and with `logprobs` its scores, come before what is generated. */
  echo: z.boolean().nullish(),
  logprobs: z.int().min(0).max(mostLogprobs).nullish(),
  add_special_tokens: z.boolean().nullish(),
  return_tokens_as_token_ids: z.boolean().nullish(),
  /** The ids of prompt and continuation beside their texts, as vLLM has them. */
  return_token_ids: z.boolean().nullish(),
});

type Body = z.infer<typeof schema>;

/** OpenAI's default of `max_tokens`. */
const defaultTokens = 16;

interface Completion extends Choice {
  /** What `echo` repeats. */
  promptText: string;
}

export function addCompletionsRoute(app: Hono, context: ServerContext, texts: TokenTexts): void {
  app.post("/v1/completions", async (c) => {
    const body = checkBody(await readJson(c), schema);
    return await new CompletionAnswer("cmpl", body, context, texts).respond(c, choicesOf(body, context));
  });
}

/** @throws ApiError for a prompt that cannot run */
function choicesOf(body: Body, context: ServerContext): Completion[] {
  const { runner } = context;
  const { prompt, logprobs, echo } = body;
  const pattern = context.patterns.of(body.model ?? undefined, body.pattern ?? undefined);
  const maxTokens = body.max_tokens ?? defaultTokens;
  if (maxTokens === 0 && echo !== true && body.prompt_logprobs == null) {
    throw new ApiError(400, "max_tokens is 0: only echo or prompt_logprobs have an answer then", "max_tokens");
  }
  const tops = [...(echo === true && logprobs != null ? [logprobs] : []), body.prompt_logprobs ?? []].flat();
  const choices: Completion[] = [];
  for (const one of listOf(prompt)) {
    const ids = typeof one === "string" ? encodeText(context, one, body.add_special_tokens ?? true) : one;
    for (let sample = 0; sample < (body.n ?? 1); sample++) {
      const request: SequenceRequest = {
        ...sequenceFields(runner, body, sample),
        pattern,
        ids,
        maxTokens,
        ...(tops.length === 0 ? {} : { promptScores: { from: 0, top: Math.max(...tops) } }),
        ...(logprobs == null ? {} : { tokenScores: logprobs }),
      };
      requireRunnable(runner, request, "prompt");
      const promptText = echo !== true ? "" : typeof one === "string" ? one : (runner.tokenizer?.decode(ids) ?? "");
      choices.push({ index: choices.length, request, promptText, first: sample === 0 });
    }
  }
  return choices;
}

function listOf(prompt: Body["prompt"]): (string | number[])[] {
  if (typeof prompt === "string") return [prompt];
  return typeof prompt[0] === "number" ? [prompt as number[]] : (prompt as (string | number[])[]);
}

class CompletionAnswer extends TextAnswer<Body, Completion> {
  protected readonly object = { whole: "text_completion", event: "text_completion" };
  /** Characters of the streamed choice so far that have log-probabilities. */
  #offset = 0;

  protected choice({ index, request, promptText }: Completion, result: SequenceResult): unknown {
    const { echo, prompt_logprobs: top } = this.body;
    const list = this.#list(0);
    if (echo === true) list?.addPrompt(request.ids, result.promptScores);
    for (const { score } of result.tokens) if (score !== undefined) list?.add(score);
    return {
      index,
      text: promptText + result.text,
      logprobs: list?.fields() ?? null,
      finish_reason: finishReason(result.finish),
      ...(this.body.return_token_ids === true
        ? { prompt_token_ids: request.ids, token_ids: result.tokens.map(({ id }) => id) }
        : {}),
      ...(top == null ? {} : { prompt_logprobs: promptLogprobs(result.promptScores, top, this.texts) }),
    };
  }

  protected piece({ request, promptText }: Completion, event: SequenceEvent): object | undefined {
    const { echo, prompt_logprobs: top, return_token_ids: wantsIds } = this.body;
    const withIds = wantsIds === true;
    const piece = (text: string, list: CompletionLogprobs | undefined, finish: string | null, more = {}): object => {
      if (list !== undefined) this.#offset = list.offset;
      return { text, logprobs: list?.fields() ?? null, finish_reason: finish, ...more };
    };
    if (event.kind === "done") return piece(event.text, undefined, finishReason(event.finish));
    if (event.kind === "token") {
      const list = this.#list(this.#offset);
      if (event.score !== undefined) list?.add(event.score);
      if (event.text === "" && list === undefined && !withIds) return undefined;
      return piece(event.text, list, null, withIds ? { token_ids: [event.id] } : {});
    }
    this.#offset = 0;
    if (echo !== true && top == null && !withIds) return undefined;
    const list = echo === true ? this.#list(0) : undefined;
    list?.addPrompt(request.ids, event.scores);
    return piece(promptText, list, null, {
      ...(top == null ? {} : { prompt_logprobs: promptLogprobs(event.scores, top, this.texts) }),
      ...(withIds ? { prompt_token_ids: request.ids } : {}),
    });
  }

  #list(offset: number): CompletionLogprobs | undefined {
    const { logprobs, return_tokens_as_token_ids: asIds } = this.body;
    return logprobs == null ? undefined : new CompletionLogprobs(this.texts, logprobs, asIds === true, offset);
  }
}
