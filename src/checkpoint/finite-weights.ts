/**
 * Looks for NaN and infinity in weights. Few of them show in results: top-k swallows those of indexers and routers, and
 * losses stay finite. So that every weight that a model uses is looked at, once, as its bytes are read.
 */
import { createHash, type Hash } from "node:crypto";
import { join } from "node:path";
import { InputError, InterruptedError } from "../base/errors.ts";
import { passOnce } from "../base/hash-memory.ts";
import { openUserFile } from "../base/user-files.ts";
import { dtypeBytes, firstNonFinite } from "./dtype.ts";
import { listWeights, type ModelWeights } from "./weights.ts";

/** Read at once: memory stays at this, whatever the model's size. A multiple of every element's width. */
const blockBytes = 8 << 20;

export interface WeightPassSettings {
  signal?: AbortSignal | undefined;
  /** Called for bytes that were read. */
  onBytes?: ((bytes: number) => void) | undefined;
}

/**
 * Looks at every weight of the model; in large files that have not changed since, once.
 * @throws InputError naming file, tensor and element, where one is NaN or infinite
 * @throws InterruptedError after the signal
 */
export async function requireFiniteWeights(weights: ModelWeights, settings: WeightPassSettings = {}): Promise<void> {
  for (const file of weights.files) {
    // Another config.json can make a model of other tensors of the same file.
    const places = piecesOf(weights, file).map(({ name, dtype, offset, length }) => [name, dtype, offset, length]);
    await passOnce(join(weights.folder, file), `finite weights ${JSON.stringify(places)}`, () =>
      readFile(weights, file, settings, undefined),
    );
  }
}

/**
 * Reads a whole weight file once: its SHA-256, and a look at the weights in it.
 * @throws as `requireFiniteWeights`
 */
export async function hashFiniteFile(
  weights: ModelWeights,
  file: string,
  settings: WeightPassSettings = {},
): Promise<string> {
  const hash = createHash("sha256");
  await readFile(weights, file, settings, hash);
  return hash.digest("hex");
}

/** @param hash takes every byte of the file; without it, only weights are read */
async function readFile(
  weights: ModelWeights,
  file: string,
  { signal, onBytes }: WeightPassSettings,
  hash: Hash | undefined,
): Promise<void> {
  const path = join(weights.folder, file);
  const pieces = piecesOf(weights, file);
  const source = await openUserFile(path, `"${path}"`);
  const block = Buffer.alloc(blockBytes);
  const read = async (from: number, to: number, look?: (bytes: Uint8Array, at: number) => void) => {
    for (let at = from; at < to; ) {
      if (signal?.aborted === true) throw new InterruptedError("Interrupted");
      const { bytesRead } = await source.read(block, 0, Math.min(blockBytes, to - at), at);
      if (bytesRead === 0) throw new InputError(`"${path}" became shorter while it was read`);
      const bytes = block.subarray(0, bytesRead);
      hash?.update(bytes);
      look?.(bytes, at - from);
      at += bytesRead;
      onBytes?.(bytesRead);
    }
  };
  try {
    let position = 0;
    for (const { name, dtype, shape, offset, length } of pieces) {
      // The header, and tensors that the model does not use.
      if (hash !== undefined) await read(position, offset);
      await read(offset, offset + length, (bytes, at) => {
        const bad = firstNonFinite(bytes, dtype);
        if (bad < 0) return;
        const element = at / (dtypeBytes[dtype] as number) + bad;
        throw new InputError(`"${path}", tensor "${name}": ${place(element, shape)} is not finite (NaN or infinite)`, {
          hint: "the file is damaged, or the model was saved from a run that diverged: get it anew",
        });
      });
      position = offset + length;
    }
    if (hash !== undefined) await read(position, (await source.stat()).size);
  } finally {
    await source.close();
  }
}

/** The weights in a file, in the order in which they lie there. */
function piecesOf(weights: ModelWeights, file: string): ReturnType<typeof listWeights> {
  return listWeights(weights)
    .filter((weight) => weight.file === file)
    .sort((a, b) => a.offset - b.offset);
}

/** Where an element of a tensor is: `element [3, 17]`. */
function place(element: number, shape: readonly number[]): string {
  const index: number[] = [];
  let rest = element;
  for (const size of [...shape].reverse()) {
    index.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return `element [${index.join(", ")}]`;
}
