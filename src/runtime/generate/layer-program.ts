/** The program of a thread that runs ranges of layers: `layer-thread.ts` is its other end. */
import { parentPort, workerData } from "node:worker_threads";
import { toReply } from "../../base/failed-reply.ts";
import { CachedLayers, type LayerSettings } from "./cached-layers.ts";
import type { LayerRequest } from "./layer-thread.ts";

const opening = CachedLayers.openAll(workerData as LayerSettings[]);
/** One answer at a time: a run reads what the run before it has written. The first is that the graphs are open. */
let last: Promise<unknown> = reply(opening.then(() => ({})));

parentPort?.on("message", ({ range, start, inputs }: LayerRequest) => {
  const run = (ranges: CachedLayers[]) => (ranges[range] as CachedLayers).run(start, inputs);
  last = last.then(() => reply(opening.then(run)));
});

async function reply(answer: Promise<object>): Promise<void> {
  parentPort?.postMessage(await answer.catch(toReply));
}
