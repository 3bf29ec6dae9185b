/** How an error of another process or thread gets to the one that asked: a reply that throws it again over there. */
import { IndexCacheError, InputError, RuntimeFailure } from "./errors.ts";

/** What is answered by one that fails without dying. */
export interface FailedReply {
  kind: "failed";
  error: "input" | "runtime" | "unknown";
  message: string;
  hint: string | undefined;
}

export function toReply(error: unknown): FailedReply {
  if (error instanceof IndexCacheError) {
    const kind = error instanceof InputError ? "input" : "runtime";
    return { kind: "failed", error: kind, message: error.message, hint: error.hint };
  }
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { kind: "failed", error: "unknown", message, hint: undefined };
}

export function isFailed(reply: object): reply is FailedReply {
  return "kind" in reply && reply.kind === "failed";
}

export function toError({ error, message, hint }: FailedReply): Error {
  const details = hint === undefined ? {} : { hint };
  if (error === "input") return new InputError(message, details);
  return error === "runtime" ? new RuntimeFailure(message, details) : new Error(message);
}
