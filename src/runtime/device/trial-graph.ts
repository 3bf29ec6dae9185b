/** The graph that a device is tried with: the operators that a layer is made of, on data with a known result. */
import { Random } from "../../base/random.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import { encodeModel, GraphBuilder } from "../../graph/graph-builder.ts";

/** Large enough for a GPU to be one, small enough for two CPU cores to take a fraction of a second. */
const side = 1024;
const selected = 32;

/** Floating-point operations of one matrix product. */
export const flopsPerProduct = 2 * side ** 3;

export interface TrialInputs {
  x: Float32Array;
  order: Float32Array;
}

export const trialShapes = { x: [side, side], order: [side] } as const;

/**
 * `products` matrix products one after the other, then a softmax over the rows that have the largest keys. The keys are
 * whole numbers of their own, so that every device selects the same rows and differences are those of the products.
 */
export function trialGraph(products: number): Uint8Array {
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

export function trialInputs(): TrialInputs {
  const random = Random.forPart(0, "inputs");
  return {
    x: Float32Array.from({ length: side * side }, () => 4 * random.unit() - 2),
    order: Float32Array.from(random.shuffled(Array.from({ length: side }, (_, i) => i))),
  };
}
