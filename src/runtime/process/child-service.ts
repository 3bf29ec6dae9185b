/** The child's end of `replaceable-process.ts`: answers one request after the other and ends with its parent. */
import { toReply } from "../../base/failed-reply.ts";

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
