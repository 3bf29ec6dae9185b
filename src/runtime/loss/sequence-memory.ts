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
}

/**
 * What the allocator holds for each byte in use: its regions begin at 1 MiB, grow to a gibibyte, and are not joined. 1.5
 * at 8,192 tokens on an H200 (docs/gpu.md).
 */
const allocatorShare = 1.5;
/** CUDA's context with the kernels and workspaces of its libraries (nvidia-smi, beside what the allocator holds). */
const contextBytes = 0.9 * 2 ** 30;

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
  const rest = postAttentionBytes(config, shape) || shape.chunkRows * shape.batch * rowBytes(config, 0);
  return {
    weights: conversion.device,
    sequences: 3 * hidden + 2 * selected + rows * latentWidth(config) * size + rankingsBytes(graph),
    boundaries: boundaries
      ? (config.numHiddenLayers - 1) * hidden + fullLayers(config.indexerLayers).length * selected
      : 0,
    step: Math.max(indexingBytes(graph), attentionBytes(graph), rest + conversion.run),
  };
}

export function totalNeed({ weights, sequences, boundaries, step }: DeviceNeed): number {
  return contextBytes + weights + allocatorShare * (sequences + boundaries + step);
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
  const { weights, sequences, boundaries, step } = need;
  return `about ${gib(totalNeed(need))} = context ${gib(contextBytes)} + weights ${gib(weights)} + ${allocatorShare} x (sequences ${gib(sequences)} + boundaries ${gib(boundaries)} + the widest step ${gib(step)})`;
}

/** @throws RuntimeFailure where the device has less than what is needed */
export function requireDeviceMemory(need: DeviceNeed, free: number | undefined, device: ComputeDevice): void {
  if (free === undefined || totalNeed(need) <= free) return;
  throw new RuntimeFailure(
    `The model needs ${describeNeed(need)}; ${device} has ${(free / 2 ** 30).toFixed(2)} GiB free`,
    { hint: "use shorter sequences (--sequence-length), --dtype float16, or --device cpu" },
  );
}
