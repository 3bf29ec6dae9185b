/** The child's end of `replaceable-process.ts`: answers one request after the other and ends with its parent. */
import { IndexCacheError, InputError } from "../../base/errors.ts";
import type { FailedReply } from "./replaceable-process.ts";

/** Answers every request of the parent; an error becomes the reply that throws it again over there. */
export function serveRequests<Request>(answer: (request: Request) => Promise<object>): void {
  // Ctrl-C reaches the whole process group; the parent decides what it means.
  process.on("SIGINT", () => undefined);
  process.on("disconnect", () => process.exit());
  process.on("message", (request: Request) => {
    answer(request)
      .catch(toReply)
      .then((reply) => process.send?.(reply));
  });
}

/** How the other end learns of an error. */
export function toReply(error: unknown): FailedReply {
  if (error instanceof IndexCacheError) {
    const kind = error instanceof InputError ? "input" : "runtime";
    return { kind: "failed", error: kind, message: error.message, hint: error.hint };
  }
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { kind: "failed", error: "unknown", message, hint: undefined };
}
