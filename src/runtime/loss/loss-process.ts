/** The child of `loss-worker.ts`: opens the model, answers for its own windows, ends with its parent. */
import { openModel } from "../../graph/model-folder.ts";
import { serveRequests } from "../process/child-service.ts";
import type { SequenceLosses } from "./loss-backend.ts";
import type { LossReply, LossRequest } from "./loss-worker.ts";
import { openLosses } from "./open-losses.ts";

let losses: SequenceLosses | undefined;

serveRequests(answer);

async function answer(request: LossRequest): Promise<LossReply> {
  if (request.kind === "open") {
    losses = await openLosses(await openModel(request.path), request.windows, request.settings);
    return { kind: "opened", plan: losses.plan, sideBySide: losses.sideBySide };
  }
  if (losses === undefined) throw new Error("asked for a loss before the model was opened");
  if (request.kind === "walk") {
    if (losses.walk === undefined) throw new Error("asked for a walk of a model that is loaded whole");
    return { kind: "walked", results: await losses.walk(request.requests) };
  }
  return { kind: "evaluated", ...(await losses.evaluate(request.pattern, request.options)) };
}
