/** How much memory and temporary space the states of sequences take, which of them have room, and the plan in words. */

import { tmpdir } from "node:os";
import { counted, formatBytes } from "../../base/quantities.ts";
import { sum } from "../../base/sum.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import { latentWidth } from "../../graph/exported/contract.ts";
import { ownWidth } from "../../graph/frames/head.ts";
import { fullLayers, type Pattern } from "../../pattern/pattern.ts";
import { chunkBytes } from "../stages/chunks.ts";

/** Where the states of one sequence have room, and how much. */
export interface StateRoom {
  /** Bytes; 0 where every layer runs each time. */
  limit: number;
  inFile: boolean;
}

/** Bytes of the base of one sequence: hidden states at every boundary, selected keys, first cache rows. */
export function stateBytesOf(config: DsaConfig, length: number): number {
  const indexers = fullLayers(config.indexerLayers).length;
  const firstRows = config.numHiddenLayers * latentWidth(config) + indexers * config.indexHeadDim;
  const embedded = 4 * length * config.hiddenSize;
  const states = embedded + layerBytes(config, length, config.indexerLayers, 0);
  return states + 4 * Math.min(config.indexTopk, length) * firstRows;
}

/** Bytes of the caches that one layer after the other uses. */
export function sequenceCacheBytes(config: DsaConfig, length: number): number {
  return 4 * length * (latentWidth(config) + config.indexHeadDim);
}

/** Bytes that layers `from` and up add: hidden states after each, selected keys of each Full one. */
export function layerBytes(config: DsaConfig, length: number, pattern: Pattern, from: number): number {
  const indexers = fullLayers(pattern).filter((layer) => layer >= from).length;
  const width = (pattern.length - from) * config.hiddenSize + indexers * Math.min(config.indexTopk, length);
  return 4 * length * width;
}

/** Bytes of one pattern's passage between two layers: hidden states and selected keys. */
export function flightBytes({ hiddenSize, indexTopk }: DsaConfig, length: number): number {
  return 4 * length * (hiddenSize + Math.min(indexTopk, length));
}

/** Bytes kept of the model's own distributions in one sequence: of the rows that a pattern can change. */
export function distributionBytes({ indexTopk }: DsaConfig, length: number, top: number): number {
  return 4 * Math.max(0, length - 1 - indexTopk) * ownWidth(top);
}

/** Room for sequences of these lengths: in memory for as many as possible, in the file for those beyond. */
export function stateRooms(config: DsaConfig, lengths: readonly number[], memory: number, file: number): StateRoom[] {
  const sizes = lengths.map((length) => stateBytesOf(config, length));
  const inMemory = limits(sizes, memory, config.numHiddenLayers);
  const beyond = sizes.map((size, index) => (inMemory[index] === 0 ? size : 0));
  const inFile = limits(beyond, file, config.numHiddenLayers);
  return inMemory.map((limit, index) => ({ limit: limit + (inFile[index] ?? 0), inFile: (inFile[index] ?? 0) > 0 }));
}

/**
 * Bytes for each sequence: the base's for as many as possible; what then is left is for candidates of these. A step has a
 * candidate for each layer at most, and half of the layers lie above its flip: more would be of no use.
 */
function limits(sizes: readonly number[], bytes: number, layers: number): number[] {
  let left = bytes;
  const bases = sizes.map((size) => {
    if (size === 0 || size > left) return 0;
    left -= size;
    return size;
  });
  const share = left === bytes ? 0 : Math.min(left / (bytes - left), (layers + 1) / 2);
  return bases.map((size) => Math.floor(size * (1 + share)));
}

/** What is kept, spilled and computed anew, a line each. */
export function memoryPlan(config: DsaConfig, sequences: readonly (StateRoom & { length: number })[]): string[] {
  const longest = Math.max(...sequences.map(({ length }) => length));
  const caches = sequenceCacheBytes(config, longest);
  const describe = (inFile: boolean, place: string): string[] => {
    const kept = sequences.filter((sequence) => sequence.limit > 0 && sequence.inFile === inFile);
    if (kept.length === 0) return [];
    const bases = sum(kept.map(({ length }) => stateBytesOf(config, length)));
    const candidates = sum(kept.map(({ limit }) => limit)) - bases;
    return [
      `states ${place}: ${kept.length} of ${counted(sequences.length, "sequence")}, ${formatBytes(bases)} for a base and up to ${formatBytes(candidates)} for candidates`,
    ];
  };
  const without = sequences.filter(({ limit }) => limit === 0).length;
  return [
    `caches of one layer: ${longest} tokens x (${latentWidth(config)} latent + ${config.indexHeadDim} indexer key) x 4 bytes = ${formatBytes(caches)}`,
    `one chunk: at most ${formatBytes(chunkBytes(config, longest))}`,
    ...describe(false, "in memory"),
    ...describe(true, `in a temporary file in ${tmpdir()}`),
    ...(without > 0
      ? [
          `states of ${without} of ${counted(sequences.length, "sequence")} have no room: all their layers run each time`,
        ]
      : []),
  ];
}
