/** The program of a thread that runs a range of layers: `layer-thread.ts` is its other end. */
import { parentPort, workerData } from "node:worker_threads";
import { toReply } from "../process/child-service.ts";
import { CachedLayers, type LayerSettings } from "./cached-layers.ts";
import type { LayerRequest } from "./layer-thread.ts";

const opening = CachedLayers.open(workerData as LayerSettings);
/** One answer at a time: a run reads what the run before it has written. The first is that the graph is open. */
let last: Promise<unknown> = reply(opening.then(() => ({})));

parentPort?.on("message", ({ start, inputs }: LayerRequest) => {
  last = last.then(() => reply(opening.then((layers) => layers.run(start, inputs))));
});

async function reply(answer: Promise<object>): Promise<void> {
  parentPort?.postMessage(await answer.catch(toReply));
}
