/** Whether work is worth a GPU, which takes seconds to open and as long for a token of a small model as for one of a large one. */
import { defaultThreads } from "../session/onnx-session.ts";

/** What a command computes, as far as it is known before its device is chosen. */
export interface Work {
  /** Elements of the model's weights. */
  parameters: number;
  layers: number;
  /** Tokens through all layers in whole sequences or prompts, counted once for each pattern. */
  passed: number;
  /** Tokens that are decoded, each after the one before it. */
  decoded: number;
  /** Sequences or prompts that processes on a CPU compute side by side, as far as there are cores; a GPU decodes one prompt. */
  sideBySide: number;
}

/** What it takes to open a GPU, longer than to load a model on the CPU: its context, libraries and a first run (docs/gpu.md). */
const openingSeconds = 1.5;
/** Multiply-adds a second and core of a whole pass, indexers, attention and all (docs/gpu.md). */
const coreSpeed = 8e9;
/** Cores that one sequence or prompt keeps busy (docs/gpu.md). */
const coresOfOne = 8;
/** The same of a whole GPU, an H200 in float32, where launches take most of the time (docs/gpu.md). */
const gpuSpeed = 1e12;
/** Seconds of a decoded token and layer: what a GPU's launches and caches take, and a CPU's operators (docs/gpu.md). */
const decodedLayer = { gpu: 0.9e-3, cpu: 0.3e-3 };
/** Bytes a second of a CPU's memory: a decoded token reads all weights. */
const memorySpeed = 20e9;

/** About what work takes on the CPU. */
function cpuSeconds(work: Work, threads = defaultThreads()): number {
  const { parameters, layers, passed, decoded, sideBySide } = work;
  const passing = (parameters * passed) / (Math.min(threads, coresOfOne * sideBySide) * coreSpeed);
  const processes = Math.min(sideBySide, threads);
  return passing + decoded * ((layers * decodedLayer.cpu) / processes + (4 * parameters) / memorySpeed);
}

/** Is work done on the CPU before a GPU would have done it, opening included? */
export function isLeftToCpu(work: Work, threads?: number): boolean {
  const { parameters, layers, passed, decoded } = work;
  const onGpu = openingSeconds + (parameters * passed) / gpuSpeed + decoded * layers * decodedLayer.gpu;
  return cpuSeconds(work, threads) < onGpu;
}
