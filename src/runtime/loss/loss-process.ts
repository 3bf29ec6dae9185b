/** The child of `parallel-loss.ts`: opens the model, answers for its own windows, ends with its parent. */
import { openModel } from "../../graph/model-folder.ts";
import { serveRequests } from "../process/child-service.ts";
import type { SequenceLosses } from "./loss-backend.ts";
import { openLosses } from "./open-losses.ts";
import type { LossReply, LossRequest } from "./parallel-loss.ts";

let losses: SequenceLosses | undefined;

serveRequests(answer);

async function answer(request: LossRequest): Promise<LossReply> {
  if (request.kind === "open") {
    losses = await openLosses(await openModel(request.path), request.windows, request.settings);
    return { kind: "opened", plan: losses.plan, sideBySide: losses.sideBySide };
  }
  if (losses === undefined) throw new Error("asked for a loss before the model was opened");
  return { kind: "evaluated", results: await losses.evaluateAll(request.requests, request.options) };
}
