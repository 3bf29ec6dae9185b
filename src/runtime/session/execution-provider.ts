/** From the name of a device to what ONNX Runtime calls it. */
import process from "node:process";
import type { InferenceSession } from "onnxruntime-node";
import type { ComputeDevice, Device } from "../measurement.ts";

/** The text of `--device`, or undefined where it names no device. `cuda:0` is `cuda`: results compare devices by name. */
export function parseDevice(text: string): Device | undefined {
  if (text === "auto" || text === "cpu" || text === "webgpu" || text === "cuda") return text;
  const index = /^cuda:(\d{1,3})$/.exec(text)?.[1];
  if (index === undefined) return undefined;
  return cudaDevice(Number(index));
}

/** The name of a GPU. */
export function cudaDevice(index: number): ComputeDevice {
  return index === 0 ? "cuda" : `cuda:${index}`;
}

/** Which GPU a CUDA device is; undefined for the others. */
export function cudaIndex(device: ComputeDevice): number | undefined {
  return device.startsWith("cuda") ? Number(device.slice("cuda:".length)) : undefined;
}

/** The providers of a session; the CPU takes the nodes that the first one has no kernel for. */
export function executionProviders(device: ComputeDevice): InferenceSession.ExecutionProviderConfig[] {
  if (device === "cpu" || device === "webgpu") return device === "cpu" ? ["cpu"] : ["webgpu", "cpu"];
  // CUDA itself counts from the fastest GPU; nvidia-smi, `queryGpus` and `cuda:N` count along the bus. Read once, by the
  // first CUDA session of the process.
  process.env.CUDA_DEVICE_ORDER ??= "PCI_BUS_ID";
  return [{ name: "cuda", deviceId: cudaIndex(device) ?? 0 }, "cpu"];
}

/** The provider of a device, whichever of its GPUs that is. */
export function providerOf(device: ComputeDevice): "cpu" | "cuda" | "webgpu" {
  return device === "cpu" || device === "webgpu" ? device : "cuda";
}
