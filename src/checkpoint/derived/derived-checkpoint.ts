/**
 * Writes a checkpoint that is made from another one: some shards rewritten tensor by tensor, some copied with other numbers
 * in a few tensors, the others copied or linked as they are, small files beside them. The target folder appears complete or not at all: everything is written into a
 * hidden folder next to it, which is renamed at the end. Memory stays at one block, whatever the model's size.
 */

import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import {
  chmod,
  copyFile,
  type FileHandle,
  link,
  open,
  readdir,
  realpath,
  rename,
  rm,
  stat,
  statfs,
  symlink,
} from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { IndexCacheError, InputError, InterruptedError, RuntimeFailure } from "../../base/errors.ts";
import { describeSystemError, makeFolder, systemErrorCode } from "../../base/files.ts";
import { formatBytes } from "../../base/quantities.ts";
import { sum } from "../../base/sum.ts";
import { isThere } from "../../base/user-files.ts";
import { dtypeBytes, elementsIn } from "../dtype.ts";

/** How files that do not change get into the new folder. `copy` shares blocks where the file system can (reflink). */
export const placements = ["copy", "hardlink", "symlink"] as const;
export type Placement = (typeof placements)[number];

/** A stretch of a file. */
export interface FileRange {
  path: string;
  /** First byte. */
  offset: number;
  /** Bytes. */
  length: number;
}

/** A tensor of a shard that is written anew. `data`: where its bytes lie, or a function that makes them block by block. */
export interface DerivedTensor {
  name: string;
  /** As safetensors spells it: F32, BF16, F8_E4M3. */
  dtype: string;
  shape: readonly number[];
  data: FileRange | (() => Iterable<Uint8Array> | AsyncIterable<Uint8Array>);
}

/** Bytes of a tensor that are written over those of a copied file; its dtype and shape stay. */
export interface ReplacedTensor {
  name: string;
  /** First byte in the file. */
  offset: number;
  /** Bytes. */
  length: number;
  data: () => Iterable<Uint8Array>;
}

/**
 * A weight file of the new folder: an existing file as it is, a copy of it with other numbers in some tensors, or one that is
 * put together from tensors. There is no file with just the new tensors beside a link to the old ones: engines read all
 * tensors of every file that the index names, and which one of a name stays depends on their order.
 */
export type DerivedShard =
  | { file: string; source: string; replaced?: readonly ReplacedTensor[] }
  | { file: string; tensors: readonly DerivedTensor[]; metadata?: Readonly<Record<string, string>> };

/** A small file: written from `content`, or copied from `source`. */
export type DerivedFile = { name: string } & ({ content: string | Uint8Array } | { source: string });

export interface DerivedCheckpoint {
  shards: readonly DerivedShard[];
  /** config.json, the index, the card, the tokenizer. */
  files: readonly DerivedFile[];
}

export interface DerivedSettings {
  placement?: Placement;
  signal?: AbortSignal | undefined;
  /** Bytes that are in place, of all that have to be; linked files count at once. */
  onProgress?: (done: number, total: number) => void;
}

export interface DerivedReport {
  target: string;
  /** Bytes of the weight files of the new folder. */
  bytes: number;
  rewritten: string[];
  unchanged: string[];
}

/** Bytes that are read and written at a time. */
const blockBytes = 8 << 20;

/** Kept free beside what is written: small files, file system overhead. */
const spareBytes = 16 << 20;

/** Size of a tensor's data in bytes. */
export function tensorBytes({ dtype, shape }: Pick<DerivedTensor, "dtype" | "shape">): number {
  const width = dtypeBytes[dtype];
  if (width === undefined) throw new InputError(`There is no dtype "${dtype}" in safetensors files`);
  return width * elementsIn(shape);
}

/**
 * Refuses a target that holds anything.
 * @throws InputError before any work is done
 */
export async function requireEmptyTarget(target: string): Promise<void> {
  const entries = await readdir(target).catch((error: unknown) => {
    const code = systemErrorCode(error);
    if (code === "ENOENT") return [];
    throw new InputError(`Cannot write to "${target}": ${describeSystemError(code ?? "unknown")}`, { cause: error });
  });
  if (entries.length > 0) {
    throw new InputError(`Cannot write to "${target}": the folder is not empty`, { hint: "name a new folder" });
  }
}

/**
 * Writes `target`, all or nothing.
 * @throws InputError if the target holds something, or a source file is not what it was said to be
 * @throws InterruptedError after the signal; nothing is left behind
 * @throws RuntimeFailure if the disk is full or the folder cannot be written; nothing is left behind
 */
export async function writeDerivedCheckpoint(
  target: string,
  { shards, files }: DerivedCheckpoint,
  settings: DerivedSettings = {},
): Promise<DerivedReport> {
  await requireEmptyTarget(target);
  const placement = settings.placement ?? "copy";
  const parent = dirname(resolve(target));
  const sizes = await Promise.all(shards.map(sizeOf));
  const total = sum(sizes);
  const what = `Cannot write "${target}"`;
  const partial = join(parent, `.${basename(resolve(target))}.${randomUUID().slice(0, 8)}.partial`);
  let done = 0;
  const advance = (bytes: number): void => {
    if (settings.signal?.aborted) throw new InterruptedError("Interrupted: nothing was written");
    done += bytes;
    settings.onProgress?.(done, total);
  };
  try {
    await makeFolder(partial, { what });
    await requireSpace(target, shards, placement);
    for (const [index, shard] of shards.entries()) {
      const path = join(partial, shard.file);
      if ("source" in shard) {
        await place(shard.source, path, isRewritten(shard) ? "copy" : placement);
        await replaceTensors(path, shard.replaced ?? []);
        advance(sizes[index] ?? 0);
      } else {
        await writeShard(path, shard.tensors, shard.metadata, advance);
      }
    }
    for (const file of files) {
      const path = join(partial, file.name);
      await makeFolder(dirname(path), { what });
      if ("source" in file) await copyFile(await realpath(file.source), path);
      else await writeWhole(path, async (handle) => void (await handle.writeFile(file.content)));
    }
    await rename(partial, target);
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    const code = systemErrorCode(error);
    if (error instanceof IndexCacheError || code === undefined) throw error;
    throw new RuntimeFailure(`${what}: ${describeSystemError(code)}; nothing is left of it`, {
      cause: error,
      ...(code === "EXDEV" ? { hint: "hard links stay on one file system: copy, or use symbolic links" } : {}),
    });
  }
  const names = (rewritten: boolean): string[] =>
    shards.filter((shard) => isRewritten(shard) === rewritten).map(({ file }) => file);
  return { target, bytes: total, rewritten: names(true), unchanged: names(false) };
}

/** Text of `model.safetensors.index.json` for these shards; `weightMap` says which tensor lies in which file. */
export function formatIndex(
  weightMap: ReadonlyMap<string, string>,
  metadata: Readonly<Record<string, unknown>> & { total_size: number },
): string {
  return `${JSON.stringify({ metadata, weight_map: Object.fromEntries(weightMap) }, null, 2)}\n`;
}

function isRewritten(shard: DerivedShard): boolean {
  return "tensors" in shard || shard.replaced !== undefined;
}

/** Bytes that a shard takes of the disk. */
async function takenBytes(shard: DerivedShard, placement: Placement, clones: boolean): Promise<number> {
  if ("tensors" in shard) return await sizeOf(shard);
  const { replaced } = shard;
  // A copy by reference takes what is written over it.
  if (clones) return sum((replaced ?? []).map(({ length }) => length));
  return placement === "copy" || replaced !== undefined ? await sizeOf(shard) : 0;
}

async function sizeOf(shard: DerivedShard): Promise<number> {
  if ("source" in shard) return (await stat(shard.source)).size;
  const head = header(shard.tensors, shard.metadata).length;
  return shard.tensors.reduce((bytes, tensor) => bytes + tensorBytes(tensor), head);
}

/** Can the file system copy by reference (reflink)? Tried on the first file that would be copied. */
async function clonesFiles(shards: readonly DerivedShard[], folder: string): Promise<boolean> {
  const first = shards.find((shard) => "source" in shard);
  if (first === undefined) return false;
  const probe = join(folder, `.${randomUUID().slice(0, 8)}.partial`);
  try {
    await copyFile(await realpath(first.source), probe, constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch {
    return false;
  } finally {
    await rm(probe, { force: true });
  }
}

/**
 * @param beside bytes of other files that will be on the disk of `target` by then
 * @throws RuntimeFailure where the disk has no room for the new checkpoint
 */
export async function requireSpace(
  target: string,
  shards: readonly DerivedShard[],
  placement: Placement = "copy",
  beside = 0,
): Promise<void> {
  let folder = dirname(resolve(target));
  while (!(await isThere(folder))) folder = dirname(folder);
  const clones = await clonesFiles(shards, folder);
  const taken = await Promise.all(shards.map((shard) => takenBytes(shard, placement, clones)));
  const bytes = sum(taken) + spareBytes;
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  if (free >= bytes + beside) return;
  const others = beside === 0 ? "" : ` beside ${formatBytes(beside)} of hidden states`;
  throw new RuntimeFailure(
    `"${folder}" has ${formatBytes(free)} free, the new checkpoint takes ${formatBytes(bytes)}${others}: nothing was written`,
    { hint: "weight files that do not change can be linked instead of copied (--shards)" },
  );
}

/** Links lead to the file itself, not to a link of a download cache that may be cleaned up separately. */
async function place(source: string, path: string, placement: Placement): Promise<void> {
  const real = await realpath(source);
  if (placement === "symlink") await symlink(real, path);
  else if (placement === "hardlink") await link(real, path);
  else await copyFile(real, path, constants.COPYFILE_FICLONE);
}

async function writeShard(
  path: string,
  tensors: readonly DerivedTensor[],
  metadata: Readonly<Record<string, string>> | undefined,
  advance: (bytes: number) => void,
): Promise<void> {
  await writeWhole(path, async (target) => {
    const head = header(tensors, metadata);
    await target.writeFile(head);
    advance(head.length);
    for (const tensor of tensors) {
      const blocks = typeof tensor.data === "function" ? tensor.data() : readRange(tensor.data);
      for await (const block of inFull(tensor.name, blocks, tensorBytes(tensor))) {
        await target.writeFile(block);
        advance(block.length);
      }
    }
  });
}

async function replaceTensors(path: string, replaced: readonly ReplacedTensor[]): Promise<void> {
  if (replaced.length === 0) return;
  // A copy has the mode of its source, which may be read-only.
  await chmod(path, (await stat(path)).mode | 0o200);
  const file = await open(path, "r+");
  try {
    for (const { name, offset, length, data } of replaced) {
      let at = offset;
      for await (const block of inFull(name, data(), length)) {
        for (let done = 0; done < block.length; ) {
          done += (await file.write(block, done, block.length - done, at + done)).bytesWritten;
        }
        at += block.length;
      }
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

/** @throws InputError where a tensor's data are not as long as its shape takes */
async function* inFull(
  name: string,
  blocks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  expected: number,
): AsyncGenerator<Uint8Array> {
  let written = 0;
  for await (const block of blocks) {
    yield block;
    written += block.length;
  }
  if (written === expected) return;
  throw new InputError(`Tensor "${name}" has ${written} bytes of data, its shape takes ${expected}`);
}

async function* readRange({ path, offset, length }: FileRange): AsyncGenerator<Uint8Array> {
  const file = await open(path, "r");
  try {
    const block = Buffer.alloc(Math.min(blockBytes, length));
    for (let at = 0; at < length; ) {
      const { bytesRead } = await file.read(block, 0, Math.min(block.length, length - at), offset + at);
      if (bytesRead === 0) throw new InputError(`"${path}" became shorter while it was read`);
      yield block.subarray(0, bytesRead);
      at += bytesRead;
    }
  } finally {
    await file.close();
  }
}

async function writeWhole(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const file = await open(path, "wx");
  try {
    await write(file);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Length and JSON header of a safetensors file; blanks after the JSON put the data on a multiple of 64 bytes. */
function header(tensors: readonly DerivedTensor[], metadata: Readonly<Record<string, string>> | undefined): Buffer {
  const entries: [string, unknown][] = metadata === undefined ? [] : [["__metadata__", metadata]];
  let end = 0;
  for (const tensor of tensors) {
    const begin = end;
    end += tensorBytes(tensor);
    entries.push([tensor.name, { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [begin, end] }]);
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const padded = Buffer.alloc(64 * Math.ceil((json.length + 8) / 64) - 8, " ");
  json.copy(padded);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([length, padded]);
}
