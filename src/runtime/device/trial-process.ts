/** The child of `device-trial.ts`: runs the trial graph on one device and says how that went. */
import process from "node:process";
import { Random } from "../../base/random.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import { encodeModel, GraphBuilder } from "../../graph/graph-builder.ts";
import type { ComputeDevice } from "../measurement.ts";
import { type Feeds, floats, loadRuntime, OnnxSession } from "../session/onnx-session.ts";
import { firstLine } from "../session/runtime-error.ts";
import type { TrialReply, TrialRequest } from "./device-trial.ts";

/** Large enough for a GPU to be one, small enough for two CPU cores to take a fraction of a second. */
const side = 1024;
const selected = 32;

/** Floating-point operations of one matrix product. */
const flopsPerProduct = 2 * side ** 3;

interface TrialInputs {
  x: Float32Array;
  order: Float32Array;
}

const trialShapes = { x: [side, side], order: [side] } as const;

/**
 * `products` matrix products one after the other, then a softmax over the rows that have the largest keys. The keys are
 * whole numbers of their own, so that every device selects the same rows and differences are those of the products.
 */
function trialGraph(products: number): Uint8Array {
  const random = Random.forPart(0, "weight");
  const graph = new GraphBuilder();
  // Columns of length 1: a product neither grows nor fades, however many there are.
  const spread = Math.sqrt(3 / side);
  const weight = Float32Array.from({ length: side * side }, () => spread * (2 * random.unit() - 1));
  const matrix = graph.reshape(graph.float(weight), [side, side]);
  let x = graph.input("x", OnnxType.float, [side, side]);
  const order = graph.input("order", OnnxType.float, [side]);
  for (let i = 0; i < products; i++) x = graph.node("MatMul", [x, matrix]);
  const [, rows = ""] = graph.nodes("TopK", [order, graph.int([selected])], {}, 2);
  const logits = graph.node("Gather", [x, rows], { axis: 0 });
  graph.output("y", graph.node("Softmax", [logits], { axis: 0 }), OnnxType.float, [selected, side]);
  return encodeModel(graph.model("trial"));
}

function trialInputs(): TrialInputs {
  const random = Random.forPart(0, "inputs");
  return {
    x: Float32Array.from({ length: side * side }, () => 4 * random.unit() - 2),
    order: Float32Array.from(random.shuffled(Array.from({ length: side }, (_, i) => i))),
  };
}

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
