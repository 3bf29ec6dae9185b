/** What a sequence graph needs of a device's memory, and whether it is there. */
import { RuntimeFailure } from "../../base/errors.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { latentWidth } from "../../graph/exported/contract.ts";
import { restOfAllRows, type SequenceShape, selectsKeys } from "../../graph/frames/sequence-rows.ts";
import { fullLayers } from "../../pattern/pattern.ts";
import { type Gpu, gpuOf } from "../device/gpu.ts";
import type { WeightConversion } from "../device/weight-conversion.ts";
import type { ComputeDevice, Dtype } from "../measurement.ts";
import { rowBytes } from "./sequence-batch.ts";

/** Bytes, part by part. */
export interface DeviceNeed {
  weights: number;
  /** Hidden states, expanded keys and values of one layer, selected keys. */
  sequences: number;
  /** Outputs that wait for the end of the run where layer boundaries are fetched. */
  boundaries: number;
  /** The widest tensors of one query chunk. */
  chunk: number;
}

/**
 * Holes between the allocator's regions. Where there is more memory it takes more, several times as much on a large GPU: each
 * region is twice as large as the one before, and none is given back.
 */
const allocatorShare = 1.4;

function bytesOf(dtype: Dtype): number {
  return dtype === "float16" ? 2 : 4;
}

export function deviceNeed(
  config: DsaConfig,
  shape: SequenceShape,
  { dtype, boundaries, conversion }: { dtype: Dtype; boundaries: boolean; conversion: WeightConversion },
): DeviceNeed {
  const size = bytesOf(dtype);
  const rows = shape.batch * shape.length;
  const { hiddenSize, numAttentionHeads: heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, indexTopk } = config;
  const hidden = rows * hiddenSize * size;
  const expanded = rows * heads * (qkNopeHeadDim + qkRopeHeadDim + vHeadDim) * size;
  const selected = selectsKeys(config, shape) ? rows * indexTopk * 4 : 0;
  return {
    weights: conversion.device,
    // What follows attention comes when the expanded keys are gone.
    sequences:
      4 * hidden +
      // Beside expanded keys and values queries of all rows, before and after they are rotated, and what attention makes.
      Math.max(2.5 * expanded, restOfAllRows(config, shape) + conversion.together) +
      2 * selected +
      rows * latentWidth(config) * size,
    boundaries: boundaries
      ? (config.numHiddenLayers - 1) * hidden + fullLayers(config.indexerLayers).length * selected
      : 0,
    chunk: shape.chunkRows * shape.batch * rowBytes(config, shape.length),
  };
}

export function totalNeed({ weights, sequences, boundaries, chunk }: DeviceNeed): number {
  return weights + allocatorShare * (sequences + boundaries + chunk);
}

/** Bytes of a device. */
export interface DeviceMemory {
  total: number;
  free: number;
}

/** What a device has, or undefined where nothing tells. */
export async function deviceMemory(device: ComputeDevice): Promise<DeviceMemory | undefined> {
  return memoryOf(await gpuOf(device));
}

export function memoryOf(gpu: Gpu | undefined): DeviceMemory | undefined {
  return gpu === undefined || gpu.memoryTotal === 0 ? undefined : { total: gpu.memoryTotal, free: gpu.memoryFree };
}

/** One line with the figures. */
export function describeNeed(need: DeviceNeed): string {
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(2)} GiB`;
  const { weights, sequences, boundaries, chunk } = need;
  return `at least ${gib(totalNeed(need))} = weights ${gib(weights)} + ${allocatorShare} x (sequences ${gib(sequences)} + boundaries ${gib(boundaries)} + one chunk ${gib(chunk)})`;
}

/** @throws RuntimeFailure where the device has less than what is needed */
export function requireDeviceMemory(need: DeviceNeed, free: number | undefined, device: ComputeDevice): void {
  if (free === undefined || totalNeed(need) <= free) return;
  throw new RuntimeFailure(
    `The model needs ${describeNeed(need)}; ${device} has ${(free / 2 ** 30).toFixed(2)} GiB free`,
    { hint: "use shorter sequences (--sequence-length), --dtype float16, or --device cpu" },
  );
}
