/**
 * cuDNN, which CUDA's provider needs for nothing and opens where it finds it: in float16 its attention under a bias is about
 * twice as fast as the provider's own.
 */
import process from "node:process";
import type { ComputeDevice } from "../measurement.ts";
import { cudaIndex } from "../session/execution-provider.ts";
import type { Gpu } from "./gpu.ts";
import { hasLibrary } from "./native-libraries.ts";

export const cudnnLibrary = "libcudnn.so.9";
/** ONNX Runtime's own variable; it decides for itself where the variable is not set, and not by what we know. */
const switchName = "ORT_ENABLE_CUDNN_FLASH_ATTENTION";
/** Compute capabilities of GPUs that ONNX Runtime 1.30 takes it on: Ampere, Ada and Hopper. */
const capabilities = { from: 8, below: 10 };

/** Will attention on this device be cuDNN's? Sees to it that it is, before a session is opened, where it can be. */
export async function usesCudnn(device: ComputeDevice, gpu: Gpu | undefined): Promise<boolean> {
  if (cudaIndex(device) === undefined || process.env[switchName] === "0" || !(await hasLibrary(cudnnLibrary)))
    return false;
  const capability = Number(gpu?.computeCapability ?? 0);
  if (!(capability >= capabilities.from && capability < capabilities.below)) return false;
  process.env[switchName] = "1";
  return true;
}
