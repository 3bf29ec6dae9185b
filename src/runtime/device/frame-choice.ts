/**
 * Which graphs compute what, by device and dtype: every command takes its evaluator and its decoders by what is said here
 * (docs/design.md has the frames, docs/gpu.md why).
 */
import { UsageError } from "../../base/errors.ts";
import type { CacheForm } from "../../graph/frames/generation-caches.ts";
import type { ComputeDevice, Dtype } from "../measurement.ts";
import { providerOf } from "../session/execution-provider.ts";

/** Losses: `stages` run layer by layer and chunk by chunk, `sequences` are whole sequences in one graph. */
export type LossFrame = "stages" | "sequences";

/** Whole sequences in one graph fill a GPU, and only their graphs have float16; layer by layer saves a CPU more work. */
export function lossFrame(device: ComputeDevice, dtype: Dtype): LossFrame {
  return device === "cpu" && dtype === "float32" ? "stages" : "sequences";
}

/**
 * Tokens: how a decoder's graph has its caches. Of the GPUs only CUDA has the operators of generation graphs, whose caches
 * have a fixed size; the one that writes into a cache in place has no kernel for float32.
 * @throws UsageError for a dtype that the device does not generate in
 */
export function cacheForm(device: ComputeDevice, dtype: Dtype): CacheForm {
  if (providerOf(device) === "cuda") return dtype === "float16" ? "resident" : "fed";
  if (dtype === "float32") return "growing";
  throw new UsageError(`--dtype ${dtype} generates on CUDA only, and this is ${device}: leave it out`);
}
