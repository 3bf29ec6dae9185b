/** The child of `parallel-loss.ts`: opens the model, answers for its own windows, ends with its parent. */
import { type ModelFolder, openModel } from "../../graph/model-folder.ts";
import { serveRequests } from "../process/child-service.ts";
import type { SequenceLosses } from "./loss-backend.ts";
import { openLosses } from "./open-losses.ts";
import type { LossReply, LossRequest } from "./parallel-loss.ts";

let model: ModelFolder | undefined;
let losses: SequenceLosses | undefined;

serveRequests(answer);

async function answer(request: LossRequest): Promise<LossReply> {
  if (request.kind === "open") {
    if (model?.path !== request.path) model = await openModel(request.path);
    const earlier = losses;
    losses = undefined;
    losses = await openLosses(model, request.windows, request.settings, earlier);
    return { kind: "opened", plan: losses.plan, sideBySide: losses.sideBySide, isWarm: losses.isWarm };
  }
  if (losses === undefined) throw new Error("asked for a loss before the model was opened");
  return { kind: "evaluated", results: await losses.evaluateAll(request.requests, request.options) };
}
