/** Server-sent events: the answer as it is made. */
import type { Context } from "hono";
import { stream } from "hono/streaming";
import { asApiError, errorBody } from "./api-error.ts";
import type { SequenceRequest } from "./model-runner.ts";
import { requestSignal, type ServerContext } from "./server-context.ts";

/**
 * Answers with what `work` sends, one event each, and `[DONE]` at the end. Once it has begun, an error is an event as well.
 * Nobody waits for a slow reader: what it has not taken yet is held, at most one answer.
 */
export function streamEvents(
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
