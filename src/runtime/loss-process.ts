/** The child of `loss-worker.ts`: opens the model, answers for its own windows, ends with its parent. */
import { IndexCacheError, InputError } from "../base/errors.ts";
import { openModel } from "../graph/model-folder.ts";
import type { LossReply, LossRequest } from "./loss-worker.ts";
import { openLosses } from "./open-losses.ts";
import type { SequenceLosses } from "./sequence-losses.ts";

let losses: SequenceLosses | undefined;

// Ctrl-C reaches the whole process group; the parent decides what it means.
process.on("SIGINT", () => undefined);
process.on("disconnect", () => process.exit());
process.on("message", (request: LossRequest) => {
  answer(request)
    .catch(toReply)
    .then((reply) => process.send?.(reply));
});

async function answer(request: LossRequest): Promise<LossReply> {
  if (request.kind === "open") {
    losses = await openLosses(await openModel(request.path), request.windows, request.settings);
    return { kind: "opened", plan: losses.plan, sideBySide: losses.sideBySide };
  }
  if (losses === undefined) throw new Error("asked for a loss before the model was opened");
  return { kind: "evaluated", ...(await losses.evaluate(request.pattern, request.options)) };
}

function toReply(error: unknown): LossReply {
  if (error instanceof IndexCacheError) {
    const kind = error instanceof InputError ? "input" : "runtime";
    return { kind: "failed", error: kind, message: error.message, hint: error.hint };
  }
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { kind: "failed", error: "unknown", message, hint: undefined };
}
