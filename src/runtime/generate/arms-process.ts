/** The child of `parallel-arms.ts`: opens the model and answers prompts under its patterns. */
import { Tokenizer } from "../../checkpoint/tokenizer/tokenizer.ts";
import { openModel } from "../../graph/model-folder.ts";
import { serveRequests } from "../process/child-service.ts";
import { Arms } from "./arms.ts";
import type { ArmReply, ArmRequest } from "./parallel-arms.ts";

let arms: Arms | undefined;
let opened = "";

serveRequests(answer);

async function answer(request: ArmRequest): Promise<ArmReply> {
  if (request.kind === "open") {
    const { path, patterns, settings } = request;
    // A process that was started early is asked again once the prompts are there.
    if (arms === undefined || opened !== JSON.stringify(request)) {
      await arms?.release();
      arms = await Arms.open(await openModel(path), await Tokenizer.load(path), patterns, settings);
      opened = JSON.stringify(request);
    }
    return { kind: "opened", plan: arms.plan };
  }
  if (arms === undefined) throw new Error("asked for an answer before the model was opened");
  return { kind: "answered", answers: await arms.answer(request.prompt, request.patterns) };
}
