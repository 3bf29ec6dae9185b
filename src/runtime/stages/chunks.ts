/**
 * How a sequence is cut into query chunks. Memory is bounded by the caches plus one chunk; the cut depends on nothing
 * but the model and the position, so that every pattern sees the same chunks and reuse is exact to the last bit.
 */
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { latentWidth } from "../../graph/exported/contract.ts";

export interface Chunk {
  /** First row. */
  start: number;
  /** One past the last row. */
  end: number;
}

/** More rows than this gain nothing: matrix products are at full speed and the working set leaves the caches. */
const maxRows = 256;
/** Fewer than this starve the matrix products. */
const minRows = 16;
/**
 * Floats of index scores `[rows, heads, keys]` that a chunk may make, piece by piece (`chunkWays`). Every chunk joins and
 * cuts the caches anew: half as many take 1.02 to 1.04 times as long for 8,192 tokens (demo).
 */
const scoreBudget = 8 << 20;
/** Floats of logits that one run may make: 64 MiB. */
const logitBudget = 16 << 20;
/** Floats of gathered latent rows `[rows, index_topk, width]` that a chunk may make. */
const gatherBudget = 64 << 20;

/** Rows of a chunk that ends around `keys` visible keys. */
function rowsPerChunk(config: DsaConfig, keys: number): number {
  const byScores = scoreBudget / (config.indexNHeads * Math.max(keys, 1));
  const byGather = gatherBudget / (config.indexTopk * latentWidth(config));
  const limit = Math.max(Math.min(byScores, byGather, maxRows), minRows);
  return 2 ** Math.floor(Math.log2(limit));
}

/**
 * Chunks of the rows `start` to `end`. One chunk always ends at `index_topk`: rows before it select every key that they
 * see, so their chunks run without scoring.
 */
export function chunksOf(config: DsaConfig, start: number, end: number): Chunk[] {
  const chunks: Chunk[] = [];
  for (let row = start; row < end; ) {
    const border = row < config.indexTopk ? Math.min(config.indexTopk, end) : end;
    const next = Math.min(row + rowsPerChunk(config, row), border);
    chunks.push({ start: row, end: next });
    row = next;
  }
  return chunks;
}

/** Most bytes that one chunk of a sequence of `length` rows needs beside the caches: scores, gathered rows, activations. */
export function chunkBytes(config: DsaConfig, length: number): number {
  const rows = Math.min(rowsPerChunk(config, length), length);
  const selected = Math.min(config.indexTopk, length);
  const scores = rows * config.indexNHeads * length + 2 * rows * length;
  const attention = rows * selected * (latentWidth(config) + 2 * config.numAttentionHeads);
  const activations = rows * (4 * config.hiddenSize + 2 * config.numAttentionHeads * latentWidth(config));
  return 4 * (Math.max(scores, attention) + activations);
}

/** How many rows' logits one run may make. */
export function rowsOfLogits(vocabularySize: number): number {
  return Math.max(1, Math.floor(logitBudget / vocabularySize));
}
