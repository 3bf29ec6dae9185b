/** How a prompt is cut into runs of a generation graph, and what those take of a device's memory. */
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { cacheBlock, maxRowsPerRun } from "../../graph/frames/generation-caches.ts";
import type { Way } from "../../graph/frames/generation-frame.ts";
import { farKeys, generationCaches, leastCapacity } from "../../graph/frames/generation-graph.ts";
import type { Kernels } from "../../graph/layer/kernels.ts";
import { readableLimit } from "../../graph/layer/kernels.ts";
import type { Pattern } from "../../pattern/pattern.ts";
import type { WeightConversion } from "../device/weight-conversion.ts";
import { rowBytes } from "../loss/sequence-batch.ts";

/** One run: the rows `start` to `end` of the sequence, and rows of padding after them. */
export interface GenerationRun {
  start: number;
  end: number;
  padding: number;
  way: Way;
  /** Blocks of `cacheBlock` rows that are read. */
  blocks: number;
}

/** Rows of a prompt's run are a multiple of this, for the sake of the fused attention. */
const rowStep = 16;
/** More rows than this gain nothing. */
const mostRows = 2048;
/** Fewer rows than this starve the matrix products. */
const leastRows = 64;
/** Gathered rows take more memory than scores, and gain nothing beyond. */
const mostGatheringRows = 256;
/** Bytes of the widest tensors of one run. */
const runBytes = 2.5 * 2 ** 30;

/** The rows that caches need for `tokens` tokens and the padding after them. */
export function capacityFor(config: DsaConfig, tokens: number): number {
  return Math.max(Math.ceil((tokens + rowStep) / cacheBlock) * cacheBlock, leastCapacity(config));
}

/** The run of the token at `position`. */
export function decodeRun(config: DsaConfig, position: number): GenerationRun {
  const keys = Math.max(position + 1, config.indexTopk);
  const way = keys >= farKeys(config) ? "far" : "single";
  return { start: position, end: position + 1, padding: 0, way, blocks: Math.ceil(keys / cacheBlock) };
}

/**
 * Runs of the rows `start` to `end`, of at most `most` rows each. One of them ends at `index_topk`: rows before it select
 * every key that they see, so their runs are not scored.
 */
export function promptRuns(
  config: DsaConfig,
  kernels: Kernels,
  start: number,
  end: number,
  most = Number.POSITIVE_INFINITY,
): GenerationRun[] {
  const runs: GenerationRun[] = [];
  for (let row = start; row < end; ) {
    const every = row < config.indexTopk;
    const border = every ? Math.min(config.indexTopk, end) : end;
    const next = Math.min(row + Math.min(rowsPerRun(config, kernels, row), most), border);
    // A border inside the prompt is not padded: the next run brings the rows after it.
    const padding = next === end ? (rowStep - ((next - row) % rowStep)) % rowStep : 0;
    const keys = every ? next + padding : Math.max(next + padding, config.indexTopk);
    const way = every ? "every" : keys > readableLimit(config, kernels) ? "gather" : "read";
    runs.push({ start: row, end: next, padding, way, blocks: Math.ceil(keys / cacheBlock) });
    row = next;
  }
  return runs;
}

function rowsPerRun(config: DsaConfig, kernels: Kernels, row: number): number {
  const keys = Math.max(row + mostRows, config.indexTopk);
  const most = keys > readableLimit(config, kernels) ? mostGatheringRows : Math.min(mostRows, maxRowsPerRun);
  const rows = Math.max(leastRows, Math.min(runBytes / rowBytes(config, keys), most));
  return 2 ** Math.floor(Math.log2(rows));
}

/** Bytes, part by part. */
export interface GenerationNeed {
  weights: number;
  caches: number;
  run: number;
}

/** Holes between the allocator's regions, and tensors that live side by side. */
const allocatorShare = 1.4;

export function generationNeed(
  config: DsaConfig,
  conversion: WeightConversion,
  pattern: Pattern,
  kernels: Kernels,
  capacity: number,
  elementBytes: number,
): GenerationNeed {
  const width = generationCaches(config, pattern).reduce((sum, cache) => sum + cache.width, 0);
  const { numAttentionHeads: heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = config;
  const readable = Math.min(capacity, readableLimit(config, kernels));
  const expanded = 1.5 * readable * heads * (qkNopeHeadDim + qkRopeHeadDim + vHeadDim) * elementBytes;
  const scores = Math.min(runBytes, mostRows * rowBytes(config, capacity));
  return {
    weights: conversion.device,
    caches: capacity * width * elementBytes,
    run: allocatorShare * Math.max(expanded + scores, conversion.run),
  };
}

export function totalNeed({ weights, caches, run }: GenerationNeed): number {
  return weights + caches + run;
}
