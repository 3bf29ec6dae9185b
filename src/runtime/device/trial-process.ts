/** The child of `device-trial.ts`: runs the trial graph on one device and says how that went. */
import process from "node:process";
import type { ComputeDevice } from "../measurement.ts";
import { type Feeds, floats, loadRuntime, OnnxSession } from "../session/onnx-session.ts";
import { firstLine } from "../session/runtime-error.ts";
import type { TrialReply, TrialRequest } from "./device-trial.ts";
import { flopsPerProduct, trialGraph, trialInputs, trialShapes } from "./trial-graph.ts";

/** A run should take this long, so that what it costs to begin one does not count. */
const runSeconds = 0.1;
const mostProducts = 512;

// Ctrl-C reaches the whole process group; the parent decides what it means.
process.on("SIGINT", () => undefined);
process.on("disconnect", () => process.exit());
process.on("message", (request: TrialRequest) => {
  answer(request)
    .catch((error: Error): TrialReply => ({ kind: "failed", message: firstLine(error.cause ?? error) }))
    .then((reply) => process.send?.(reply));
});

async function answer({ device, threads, seconds }: TrialRequest): Promise<TrialReply> {
  const feeds = await trialFeeds();
  const open = (where: ComputeDevice, products: number): Promise<OnnxSession> =>
    OnnxSession.create(trialGraph(products), "trial", { device: where, threads, folder: "", solo: true });
  const session = await open(device, 1);
  const y = await run(session, feeds);
  let difference: number | undefined;
  if (device !== "cpu") {
    const reference = await open("cpu", 1);
    difference = greatestDifference(y, await run(reference, feeds));
    await reference.release();
  }
  if (seconds === 0) return { kind: "ran", difference };
  // The first run has compiled kernels and taken memory.
  const once = await time(() => run(session, feeds));
  await session.release();
  const products = Math.max(1, Math.min(mostProducts, Math.round(runSeconds / once)));
  const flops = await measure(await open(device, products), feeds, products, seconds);
  return { kind: "ran", difference, flops };
}

/** Operations a second. */
async function measure(session: OnnxSession, feeds: Feeds, products: number, seconds: number): Promise<number> {
  await run(session, feeds);
  let runs = 0;
  let elapsed = 0;
  while (elapsed < seconds) {
    elapsed += await time(() => run(session, feeds));
    runs++;
  }
  await session.release();
  return (runs * products * flopsPerProduct) / elapsed;
}

async function run(session: OnnxSession, feeds: Feeds): Promise<Float32Array> {
  return floats((await session.run(feeds)).y, "y");
}

async function trialFeeds(): Promise<Feeds> {
  const { Tensor } = await loadRuntime();
  const { x, order } = trialInputs();
  return { x: new Tensor("float32", x, trialShapes.x), order: new Tensor("float32", order, trialShapes.order) };
}

/** NaN where one of them is. */
function greatestDifference(a: Float32Array, b: Float32Array): number {
  return a.reduce((greatest, value, i) => Math.max(greatest, Math.abs(value - (b[i] ?? Number.NaN))), 0);
}

async function time(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}
