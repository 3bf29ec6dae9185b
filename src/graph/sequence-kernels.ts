/**
 * Which of several equal formulations a provider runs well: found by profiles and timings of onnxruntime-node 1.30.0 on an
 * H200 (docs/gpu.md), and the reason that a sequence graph is built for one provider.
 */
import { OnnxType } from "../checkpoint/dtype.ts";
import type { GraphSettings } from "./graph-builder.ts";
import type { ExpertForm } from "./mlp-graph.ts";

export type Provider = "cpu" | "cuda" | "webgpu";

export interface Kernels {
  /**
   * Up to how many chunks of all layers together are written out; more are a `Loop`. A GPU waits for the host whenever a
   * body computes where its chunk begins; WebGPU has no kernel for loops, and would fetch every tensor from the device.
   */
  writtenOut: number;
  experts: ExpertForm;
  /** A product with a transposed matrix as one operator; two where it would fall back to the CPU. */
  fusedMatMul: boolean;
  /** Logarithms of softmax as one operator, without a second tensor of exponentials. */
  logSoftmax: boolean;
  /** float16 product, relu and a float32 result in one kernel: a third of the traffic of two. */
  reluProduct: boolean;
  /**
   * How attention is told where the keys end: by `lengths`, by lengths and `offsets`, or by `slices` that end there. On
   * CUDA the first keeps the fused kernel in float16 at full speed and crashes the other one, which float32 takes. WebGPU
   * has neither.
   */
  keyBounds: "lengths" | "offsets" | "slices";
  /** Gathering one element of a latent row takes as long as this many multiply-adds of reading all keys. */
  gatherCost: number;
}

export function kernelsOf(provider: Provider, precision: GraphSettings["precision"]): Kernels {
  const half = precision === OnnxType.float16;
  return {
    writtenOut: { cpu: 0, cuda: 64, webgpu: Number.POSITIVE_INFINITY }[provider],
    experts: provider === "webgpu" ? "dense" : "fused",
    fusedMatMul: provider !== "webgpu",
    logSoftmax: provider !== "webgpu",
    reluProduct: provider === "cuda" && half,
    keyBounds: provider === "webgpu" ? "slices" : provider === "cuda" && half ? "lengths" : "offsets",
    gatherCost: half ? 900 : 210,
  };
}
