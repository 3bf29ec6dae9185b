/** What the answers of `/v1/completions` and `/v1/chat/completions` share: from a request's fields to events or one body. */
import type { Context } from "hono";
import { stream } from "hono/streaming";
import type { z } from "zod";
import { asApiError, errorBody } from "./api-error.ts";
import type { SequenceEvent, SequenceRequest } from "./model-runner.ts";
import type { samplingFields, servingFields } from "./request-fields.ts";
import { collect, type SequenceResult } from "./sequence-results.ts";
import { executeBeside, requestSignal, type ServerContext } from "./server-context.ts";
import type { TokenTexts } from "./token-text.ts";

type TextBody = z.infer<z.ZodObject<typeof servingFields & typeof samplingFields>>;

/** A sequence of the answer. */
export interface Choice {
  index: number;
  request: SequenceRequest;
  /** The first choice of a prompt: usage counts a prompt once. */
  first: boolean;
}

/** Writes the answer of one request, whole or piece by piece. */
export abstract class TextAnswer<Body extends TextBody, Sequence extends Choice = Choice> {
  protected readonly body: Body;
  protected readonly texts: TokenTexts;
  readonly #usage = new UsageCount();
  readonly #context: ServerContext;
  readonly #head: { id: string; created: number; model: string };

  constructor(idPrefix: string, body: Body, context: ServerContext, texts: TokenTexts) {
    this.body = body;
    this.texts = texts;
    this.#context = context;
    const created = Math.floor(Date.now() / 1000);
    this.#head = { id: `${idPrefix}-${crypto.randomUUID()}`, created, model: body.model ?? context.patterns.model };
  }

  /** The kind of object that a body is, and that an event is. */
  protected abstract readonly object: { whole: string; event: string };
  /** The choice of a sequence that is done. */
  protected abstract choice(sequence: Sequence, result: SequenceResult): unknown;
  /** What an event adds to the choice of a sequence; undefined where there is nothing to send. */
  protected abstract piece(sequence: Sequence, event: SequenceEvent): object | undefined;

  /** Fields of the whole body beside its choices. */
  protected whole(): object {
    return {};
  }

  #event(choices: readonly unknown[], more = {}): unknown {
    return { ...this.#head, object: this.object.event, choices, ...more };
  }

  async #stream(sequence: Sequence, events: AsyncGenerator<SequenceEvent>, send: (data: unknown) => void) {
    const { index, request, first } = sequence;
    for await (const event of events) {
      if (event.kind === "prompt") this.#usage.add(request, first, event.reused, 0);
      else if (event.kind === "token") this.#usage.addTokens(1);
      const piece = this.piece(sequence, event);
      if (piece !== undefined) send(this.#event([{ index, ...piece }]));
    }
  }

  async respond(c: Context, sequences: readonly Sequence[]): Promise<Response> {
    const { runner } = this.#context;
    const requests = sequences.map(({ request }) => request);
    if (this.body.stream === true) {
      return streamEvents(c, this.#context, requests, async (send, signal) => {
        for (const one of sequences) await this.#stream(one, runner.run(one.request, signal), send);
        if (this.body.stream_options?.include_usage === true) send(this.#event([], { usage: this.#usage.fields() }));
      });
    }
    return c.json(
      await executeBeside(c, this.#context, requests, async (signal) => {
        const choices: unknown[] = [];
        for (const one of sequences) {
          const result = await collect(runner.run(one.request, signal));
          this.#usage.add(one.request, one.first, result.reused, result.tokens.length);
          choices.push(this.choice(one, result));
        }
        return { ...this.#head, object: this.object.whole, choices, usage: this.#usage.fields(), ...this.whole() };
      }),
    );
  }
}

/** Tokens of one request, as `usage` tells them. */
class UsageCount {
  #prompt = 0;
  #completion = 0;
  #reused = 0;

  /**
   * @param first false for a further continuation of a prompt that is counted already
   * @param reused rows of the prompt that came from an earlier request
   */
  add({ ids }: { ids: readonly number[] }, first: boolean, reused: number, generated: number): void {
    if (first) {
      this.#prompt += ids.length;
      this.#reused += reused;
    }
    this.#completion += generated;
  }

  addTokens(generated: number): void {
    this.#completion += generated;
  }

  fields() {
    return {
      prompt_tokens: this.#prompt,
      completion_tokens: this.#completion,
      total_tokens: this.#prompt + this.#completion,
      prompt_tokens_details: { cached_tokens: this.#reused },
    };
  }
}

/**
 * Answers with what `work` sends, one server-sent event each, and `[DONE]` at the end. Once it has begun, an error is an event as well.
 * Nobody waits for a slow reader: what it has not taken yet is held, at most one answer.
 */
function streamEvents(
  c: Context,
  context: ServerContext,
  sequences: readonly SequenceRequest[],
  work: (send: (data: unknown) => void, signal: AbortSignal) => Promise<void>,
): Response {
  c.header("Content-Type", "text/event-stream; charset=utf-8");
  c.header("Cache-Control", "no-cache");
  return stream(c, async (out) => {
    const gone = new AbortController();
    out.onAbort(() => gone.abort());
    const signal = AbortSignal.any([gone.signal, requestSignal(c, context)]);
    const send = (data: unknown): void => void out.write(`data: ${JSON.stringify(data)}\n\n`);
    try {
      await context.runner.share(sequences, () => work(send, signal), signal);
      await out.write("data: [DONE]\n\n");
    } catch (error) {
      const known = asApiError(error);
      if (known.status === 500) context.report(error);
      if (!gone.signal.aborted) send(errorBody(known));
    }
  });
}
