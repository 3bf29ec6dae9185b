/** What a sequence graph needs of a device's memory, and whether it is there. */
import { RuntimeFailure } from "../../base/errors.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { OnnxType } from "../../checkpoint/dtype.ts";
import { latentWidth } from "../../graph/exported/contract.ts";
import { postAttentionBytes, type SequenceShape, selectsKeys } from "../../graph/frames/sequence-rows.ts";
import { attentionBytes, indexingBytes, rankingsBytes } from "../../graph/frames/sequence-sizes.ts";
import type { Kernels } from "../../graph/layer/kernels.ts";
import { fullLayers } from "../../pattern/pattern.ts";
import { type Gpu, gpuOf } from "../device/gpu.ts";
import type { WeightConversion } from "../device/weight-conversion.ts";
import type { ComputeDevice, Dtype } from "../measurement.ts";
import { rowBytes } from "./sequence-batch.ts";

/** Bytes, part by part. */
export interface DeviceNeed {
  weights: number;
  /** From layer to layer: hidden states, selected keys, what ranks keys apart from their scores. */
  sequences: number;
  /** Outputs that wait for the end of the run where layer boundaries are fetched. */
  boundaries: number;
  /** The widest step of a layer: index scores, attention, or what follows it. */
  step: number;
  /** What experts keep from run to run. */
  experts: number;
}

/**
 * What the allocator holds for each byte in use: its regions begin at 1 MiB, grow to a gibibyte, are not joined, and a tensor
 * leaves up to 128 MiB of its place empty. 1.4, 1.9 and 1.4 at 8,192, 32,768 and 65,536 tokens on an H200 (docs/gpu.md).
 */
const allocatorShare = 1.6;
/** CUDA's context with the kernels and workspaces of its libraries (nvidia-smi, beside what the allocator holds). */
const contextBytes = 0.7 * 2 ** 30;

interface NeedSettings {
  kernels: Kernels;
  dtype: Dtype;
  boundaries: boolean;
  conversion: WeightConversion;
}

export function deviceNeed(config: DsaConfig, shape: SequenceShape, settings: NeedSettings): DeviceNeed {
  const { dtype, boundaries, conversion, kernels } = settings;
  const size = dtype === "float16" ? 2 : 4;
  const graph = { config, shape, kernels, settings: { precision: size === 2 ? OnnxType.float16 : OnnxType.float } };
  const rows = shape.batch * shape.length;
  const hidden = rows * config.hiddenSize * size;
  const selected = selectsKeys(config, shape) ? rows * config.indexTopk * 4 : 0;
  const atOnce = postAttentionBytes(config, shape);
  const rest = atOnce || shape.chunkRows * shape.batch * rowBytes(config, 0);
  const experts = expertBytes(config, shape.batch * (atOnce > 0 ? shape.length : shape.chunkRows), kernels, size);
  return {
    weights: conversion.device,
    sequences: 2 * hidden + 2 * selected + rows * latentWidth(config) * size + rankingsBytes(graph),
    boundaries: boundaries
      ? (config.numHiddenLayers - 1) * hidden + fullLayers(config.indexerLayers).length * selected
      : 0,
    step: Math.max(indexingBytes(graph), attentionBytes(graph), rest + experts.run + conversion.run),
    experts: experts.kept,
  };
}

/** Rows of the busiest expert for each of an average one, where all are padded to its number: a guess. */
const busiest = 2;

/**
 * What the rows of a run take that go through experts at once. Each node of ONNX Runtime's kernel keeps a workspace, its first
 * matrices and rows up to a power of two: 745 and 977 MiB were asked for by every node of A.X-K2-Light's, for 3,072 and 8,192 rows.
 */
function expertBytes(
  config: DsaConfig,
  rows: number,
  { experts }: Kernels,
  size: number,
): { kept: number; run: number } {
  const { hiddenSize, moeIntermediateSize: inner, numExpertsPerTok, nRoutedExperts, sparseLayers } = config;
  const layers = sparseLayers.filter(Boolean).length;
  if (layers === 0) return { kept: 0, run: 0 };
  const perChoice = size * (hiddenSize + 3 * inner);
  if (experts === "products") {
    return { kept: 0, run: busiest * rows * numExpertsPerTok * (perChoice + size * hiddenSize) };
  }
  if (experts !== "fused") return { kept: 0, run: 0 };
  const matrices = 2 * size * nRoutedExperts * inner * hiddenSize;
  return { kept: layers * (matrices + powerOfTwo(rows) * numExpertsPerTok * perChoice), run: 0 };
}

function powerOfTwo(least: number): number {
  return 2 ** Math.ceil(Math.log2(least));
}

export function totalNeed({ weights, sequences, boundaries, step, experts }: DeviceNeed): number {
  return contextBytes + weights + experts + allocatorShare * (sequences + boundaries + step);
}

/** Bytes of a device. */
export interface DeviceMemory {
  total: number;
  free: number;
}

/** What a device has; undefined if nothing says. */
export async function deviceMemory(device: ComputeDevice): Promise<DeviceMemory | undefined> {
  return memoryOf(await gpuOf(device));
}

export function memoryOf(gpu: Gpu | undefined): DeviceMemory | undefined {
  return gpu === undefined || gpu.memoryTotal === 0 ? undefined : { total: gpu.memoryTotal, free: gpu.memoryFree };
}

/** One line with the figures. */
export function describeNeed(need: DeviceNeed): string {
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(2)} GiB`;
  const { weights, sequences, boundaries, step, experts } = need;
  const kernels = experts > 0 ? ` + experts' kernels ${gib(experts)}` : "";
  return `about ${gib(totalNeed(need))} = context ${gib(contextBytes)} + weights ${gib(weights)}${kernels} + ${allocatorShare} x (sequences ${gib(sequences)} + boundaries ${gib(boundaries)} + the widest step ${gib(step)})`;
}

/** @throws RuntimeFailure where the device has less than what is needed */
export function requireDeviceMemory(need: DeviceNeed, free: number | undefined, device: ComputeDevice): void {
  if (free === undefined || totalNeed(need) <= free) return;
  throw new RuntimeFailure(
    `The model needs ${describeNeed(need)}; ${device} has ${(free / 2 ** 30).toFixed(2)} GiB free`,
    { hint: "use shorter sequences (--sequence-length), --dtype float16, or --device cpu" },
  );
}
