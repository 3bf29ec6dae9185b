/** What every endpoint sees of the server. */
import type { Context } from "hono";
import { ApiError } from "./api-error.ts";
import type { ServerMetrics } from "./metrics.ts";
import type { ModelRunner, SequenceRequest } from "./model-runner.ts";
import type { ServedPatterns } from "./served-patterns.ts";

export interface ServerContext {
  runner: ModelRunner;
  patterns: ServedPatterns;
  metrics: ServerMetrics;
  /** Differs between two starts: a client sees that the server it knew is gone. */
  bootId: string;
  /** Seconds since 1970 at which the server started. */
  started: number;
  /** Aborted when running requests are to end. */
  shutdown: AbortSignal;
  /** Hears of errors that are no client's fault. */
  report: (error: unknown) => void;
}

/**
 * The body of a request.
 * @throws ApiError for a body that is not JSON, or not declared as such: a web page's form cannot declare it unasked
 */
export async function readJson(c: Context): Promise<unknown> {
  const type = c.req.header("content-type") ?? "";
  if (!/^application\/([\w.+-]*\+)?json\b/i.test(type)) {
    throw new ApiError(415, "The body must be JSON, with the header Content-Type: application/json");
  }
  try {
    return await c.req.json();
  } catch (error) {
    if (error instanceof SyntaxError) throw new ApiError(400, `The body is not JSON: ${error.message.slice(0, 200)}`);
    throw error;
  }
}

/** A signal for the work of one request: the client has gone, or the server ends. */
export function requestSignal(c: Context, { shutdown }: ServerContext): AbortSignal {
  return AbortSignal.any([c.req.raw.signal, shutdown]);
}

/** Does what changes the server for all requests, or must not be mixed with others, while no request is under way. */
export async function execute<T>(
  c: Context,
  context: ServerContext,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const signal = requestSignal(c, context);
  return await context.runner.queue.run(() => work(signal), signal);
}

/** Runs the model for one request's sequences; requests that are under way take turns. */
export async function executeBeside<T>(
  c: Context,
  context: ServerContext,
  sequences: readonly SequenceRequest[],
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const signal = requestSignal(c, context);
  return await context.runner.share(sequences, () => work(signal), signal);
}

/** The tokenizer's ids of a text. */
export function encodeText({ runner }: ServerContext, text: string, specialTokens: boolean): number[] {
  const { tokenizer } = runner;
  if (tokenizer === undefined) {
    throw new ApiError(400, "The model has no tokenizer: send token ids instead of text", "prompt");
  }
  return specialTokens ? tokenizer.encode(text) : tokenizer.encodePlain(text);
}
