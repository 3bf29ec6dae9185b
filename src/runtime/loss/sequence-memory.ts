/** What a sequence graph needs of a device's memory, and whether it is there. */
import { RuntimeFailure } from "../../base/errors.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { latentWidth } from "../../graph/exported/contract.ts";
import { rankingsBytes, readableKeys, scoreBlocks } from "../../graph/frames/sequence-frame.ts";
import { restOfAllRows, type SequenceShape, selectsKeys } from "../../graph/frames/sequence-rows.ts";
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
 * What the allocator holds for each byte in use: its regions begin at 1 MiB, grow to a gibibyte, and are not joined. 1.5 to 1.8
 * on an H200 (docs/gpu.md).
 */
const allocatorShare = 1.6;
/** CUDA's context with the kernels and workspaces of its libraries (nvidia-smi, beside what the allocator holds). */
const contextBytes = 0.9 * 2 ** 30;

function bytesOf(dtype: Dtype): number {
  return dtype === "float16" ? 2 : 4;
}

interface NeedSettings {
  kernels: Kernels;
  dtype: Dtype;
  boundaries: boolean;
  conversion: WeightConversion;
}

export function deviceNeed(config: DsaConfig, shape: SequenceShape, settings: NeedSettings): DeviceNeed {
  const { dtype, boundaries, conversion, kernels } = settings;
  const size = bytesOf(dtype);
  const rows = shape.batch * shape.length;
  const hidden = rows * config.hiddenSize * size;
  const selected = selectsKeys(config, shape) ? rows * config.indexTopk * 4 : 0;
  const steps = [
    selected === 0 ? 0 : indexingBytes(config, shape, kernels, size),
    attentionBytes(config, shape, kernels, size),
    (restOfAllRows(config, shape) || shape.chunkRows * shape.batch * rowBytes(config, 0)) + conversion.together,
  ];
  return {
    weights: conversion.device,
    sequences: 3 * hidden + 2 * selected + rows * latentWidth(config) * size + rankingsBytes(config, shape, kernels),
    boundaries: boundaries
      ? (config.numHiddenLayers - 1) * hidden + fullLayers(config.indexerLayers).length * selected
      : 0,
    step: Math.max(...steps),
  };
}

/** Index queries of all rows or of a chunk, one product with keys and its sum, and scores of a chunk three times. */
function indexingBytes(config: DsaConfig, shape: SequenceShape, kernels: Kernels, size: number): number {
  const { batch, length, chunkRows } = shape;
  const asked = (kernels.atOnce ? length : chunkRows) * batch * config.indexNHeads * config.indexHeadDim * size;
  const scores = 4 * batch * chunkRows * length;
  const product = (config.indexNHeads * scores) / scoreBlocks(config, shape, length);
  return asked + (kernels.reluProduct ? 1 : 2) * product + 3 * scores;
}

/** Keys, values, queries and outputs of all heads, and a chunk's bias or gathered latent rows. */
function attentionBytes(config: DsaConfig, shape: SequenceShape, kernels: Kernels, size: number): number {
  const { batch, length, chunkRows } = shape;
  const { numAttentionHeads: heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, indexTopk } = config;
  const [width, readable] = [qkNopeHeadDim + qkRopeHeadDim, readableKeys({ config, shape, kernels })];
  const read = readable * (width + vHeadDim) + length * vHeadDim + (kernels.atOnce ? length : chunkRows) * width;
  const chunk = batch * chunkRows * size;
  const bias = 2 * chunk * readable;
  const gathered = readable === length ? 0 : chunk * indexTopk * (latentWidth(config) + 2 * heads);
  return batch * heads * read * size + Math.max(bias, gathered);
}

export function totalNeed({ weights, sequences, boundaries, step }: DeviceNeed): number {
  return contextBytes + weights + allocatorShare * (sequences + boundaries + step);
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
