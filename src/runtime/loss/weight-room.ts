/** Whether memory has room for a whole model, and which of its layers stay in memory where it has not. */
import { RuntimeFailure } from "../../base/errors.ts";
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { type ModelSizes, modelSizes } from "../device/model-sizes.ts";
import { chunkBytes } from "../stages/chunks.ts";
import { type LayerRoom, layerRoom } from "../stages/stage-sessions.ts";
import { flightBytes, sequenceCacheBytes, stateBytesOf } from "./staged-memory.ts";

/** Bytes of a process before it has loaded anything: Node.js and ONNX Runtime, measured. */
const processBytes = 112 * 2 ** 20;
/** Bytes of the process of the command itself, beside one that loads layers: measured. */
const commandBytes = 128 * 2 ** 20;

/** Share of the free memory that the weights of all processes together may take. */
export const weightShare = 0.5;
/** Bytes of a loaded copy for each byte of weights on disk: fp32 of bf16, and what folding leaves. */
export const loadedPerStored = 2.6;

/** Where layers come and go: which of them stay, and what states may take. */
export interface PartsRoom {
  room: LayerRoom;
  /** Bytes for states of sequences. */
  stateBytes: number;
  /** Bytes that are not for weights or states: processes, one chunk, caches, embedded sequences. */
  workBytes: number;
}

/** Bytes of a process that has loaded all of a model. */
export function wholeBytes({ embedding, indexers, bodies, head }: ModelSizes): number {
  const layers = [...indexers, ...bodies].reduce((total, { loaded }) => total + loaded, 0);
  return processBytes + embedding.loaded + layers + head.loaded;
}

/** What loading each layer takes; undefined for an export by another tool, whose weights have no places known here. */
export async function sizesOf({ manifest, weights }: ModelFolder): Promise<ModelSizes | undefined> {
  if (manifest?.weight_files.every((name) => name.endsWith(".safetensors")) === false) return undefined;
  return modelSizes(await weights());
}

/**
 * Shares memory between layers and states. Layers come first, one of each kind at least; what is then left is for states as
 * far as they need it, because they can go to a file, and for more layers.
 * @param lengths tokens of each sequence
 * @param memory bytes for all of it
 * @returns undefined where not even a layer at a time has room
 */
export function partsRoom(
  config: DsaConfig,
  sizes: ModelSizes,
  lengths: readonly number[],
  memory: number,
): PartsRoom | undefined {
  const longest = Math.max(...lengths);
  const tokens = lengths.reduce((total, length) => total + length, 0);
  const workBytes =
    commandBytes +
    processBytes +
    chunkBytes(config, longest) +
    sequenceCacheBytes(config, longest) +
    4 * config.hiddenSize * (tokens + workingStates * longest);
  const free = memory - workBytes;
  const least = layerRoom(sizes, free, 0);
  if (least === undefined) return undefined;
  const bases = lengths.reduce((total, length) => total + stateBytesOf(config, length), 0);
  const flights = lengths.reduce((total, length) => total + flightBytes(config, length), 0) * config.numHiddenLayers;
  // Twice: half of it is for states that are kept, and a new base is made beside the old one.
  const wanted = 2 * Math.max(2 * bases, flights);
  const stateBytes = Math.floor(Math.min(wanted, (free - least.passing) * stateShare));
  const room = layerRoom(sizes, free - stateBytes);
  return room === undefined ? undefined : { room, stateBytes, workBytes };
}

/** Hidden states of a sequence that are at hand while a layer runs. */
const workingStates = 4;
/** Share of what is left beside a layer that states may take. */
const stateShare = 0.5;

/** Bytes that a layer at a time takes, to a few percent. */
export function leastBytes(config: DsaConfig, sizes: ModelSizes, lengths: readonly number[]): number {
  let least = processBytes;
  while (partsRoom(config, sizes, lengths, least) === undefined) least *= 1.02;
  return least;
}

/** @throws RuntimeFailure where not even a layer at a time has room */
export function requirePartsRoom(
  config: DsaConfig,
  sizes: ModelSizes,
  lengths: readonly number[],
  memory: number,
): PartsRoom {
  const found = partsRoom(config, sizes, lengths, memory);
  if (found !== undefined) return found;
  const least = leastBytes(config, sizes, lengths);
  throw new RuntimeFailure(
    `Model "${config.name}" does not fit, not even a layer at a time: with these sequences that takes about ${mebibytes(least)} of memory, and there are ${mebibytes(memory)}`,
    { hint: "give it more memory (--memory, if that is what limits it), shorter sequences or fewer of them" },
  );
}

function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20).toLocaleString("en-US")} MiB`;
}
