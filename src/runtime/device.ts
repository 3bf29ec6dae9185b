/** Which execution provider to use: asked for by name, or the fastest one that really creates a session. */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { RuntimeFailure } from "../base/errors.ts";
import { OnnxType } from "../checkpoint/dtype.ts";
import { encodeModel, GraphBuilder } from "../graph/graph-builder.ts";
import type { Device } from "./measurement.ts";
import { firstLine, loadRuntime } from "./onnx-session.ts";

export interface ChosenDevice {
  device: Exclude<Device, "auto">;
  /** One line for each provider that was tried and does not work. */
  notes: string[];
}

/**
 * @throws RuntimeFailure where a provider is asked for by name and cannot create a session
 */
export async function chooseDevice(wanted: Device): Promise<ChosenDevice> {
  if (wanted === "cpu") return { device: "cpu", notes: [] };
  // WebGPU is slower than the CPU for these graphs so far: it is used when it is asked for.
  const candidates = wanted === "auto" ? (["cuda"] as const) : [wanted];
  const notes: string[] = [];
  for (const device of candidates) {
    const failure = await tryDevice(device);
    if (failure === undefined) return { device, notes };
    notes.push(`${device} is not available: ${failure}`);
  }
  if (wanted !== "auto") throw new RuntimeFailure(notes[0] ?? "", { hint: "use --device cpu" });
  return { device: "cpu", notes };
}

/** Why a provider cannot create a session here, or undefined where it can. */
async function tryDevice(device: "webgpu" | "cuda"): Promise<string | undefined> {
  // Looked for first: the runtime's own attempt writes a red paragraph to stderr that nobody can turn off.
  if (device === "cuda" && !hasCudaLibraries())
    return "onnxruntime-node has no CUDA libraries (npm does not carry them)";
  const { InferenceSession } = await loadRuntime();
  try {
    const options = { executionProviders: [device], logSeverityLevel: 4 as const };
    const session = await InferenceSession.create(probe(), options);
    await session.release();
    return undefined;
  } catch (error) {
    return explain(device, firstLine(error));
  }
}

/** The smallest graph that needs a provider. */
function probe(): Uint8Array {
  const graph = new GraphBuilder();
  const x = graph.input("x", OnnxType.float, [1]);
  graph.output("y", graph.node("Add", [x, x]), OnnxType.float, [1]);
  return encodeModel(graph.model("probe"));
}

function explain(device: "webgpu" | "cuda", message: string): string {
  return device === "webgpu" && /vulkan|adapter|dawn/i.test(message) ? "no Vulkan driver was found" : message;
}

/** Are the provider's libraries beside the runtime's own? */
function hasCudaLibraries(): boolean {
  const root = dirname(createRequire(import.meta.url).resolve("onnxruntime-node/package.json"));
  const folder = join(root, "bin", "napi-v6", process.platform, process.arch);
  const suffix = process.platform === "win32" ? "onnxruntime_providers_cuda.dll" : "libonnxruntime_providers_cuda.so";
  return existsSync(join(folder, suffix));
}
