/**
 * Which frame of graphs computes what, by device and dtype: every command takes its evaluator and its decoders by what is
 * said here (docs/design.md has the frames, docs/gpu.md why).
 */
import { UsageError } from "../../base/errors.ts";
import type { ComputeDevice, Dtype } from "../measurement.ts";
import { providerOf } from "../session/execution-provider.ts";

/** Losses: `stages` run layer by layer and chunk by chunk, `sequences` are whole sequences in one graph. */
export type LossFrame = "stages" | "sequences";

/** Tokens: `joined` stages of a pattern with caches in JavaScript, or a `generation` graph with caches on the device. */
export type DecodingFrame = "joined" | "generation";

/** Whole sequences in one graph fill a GPU, and only their graphs have float16; layer by layer saves a CPU more work. */
export function lossFrame(device: ComputeDevice, dtype: Dtype): LossFrame {
  return device === "cpu" && dtype === "float32" ? "stages" : "sequences";
}

/** Of the GPUs only CUDA has the operators of generation graphs. */
export function decodingFrame(device: ComputeDevice): DecodingFrame {
  return providerOf(device) === "cuda" ? "generation" : "joined";
}

/** @throws UsageError for a dtype that the device does not generate in */
export function requireDecodingDtype(device: ComputeDevice, dtype: Dtype): void {
  if (dtype === "float32" || decodingFrame(device) === "generation") return;
  throw new UsageError(`--dtype ${dtype} generates on CUDA only, and this is ${device}: leave it out`);
}
