/** One weight file, read once from its start to its end: its SHA-256, and whether every weight in it is finite. */
import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { InputError } from "../base/errors.ts";
import { attemptRead, openUserFile } from "../base/user-files.ts";
import { dtypeBytes, firstNonFinite } from "./dtype.ts";
import type { Weight } from "./weights.ts";

/** Where a weight lies in its file. */
export type WeightPiece = Pick<Weight, "name" | "dtype" | "shape" | "offset" | "length">;

/** What is to be found out about a file. */
export interface FileTask {
  path: string;
  /** Is the SHA-256 wanted? Then every byte is read, otherwise only the pieces. */
  hashes: boolean;
  /** Weights to be looked at, in the order in which they lie there. */
  pieces: readonly WeightPiece[];
  /** Bytes that are read for it. */
  bytes: number;
}

/** Read at once: memory stays at this for each file, whatever its size. A multiple of every element's width. */
const blockBytes = 8 << 20;

/** Fills the start of `block` from a place in the file, or a part of it; answers how many bytes it put there. */
export type BlockReader = (source: FileHandle, block: Buffer, length: number, at: number) => number | Promise<number>;

/**
 * @param onBlock called for bytes that were read; what it throws ends the reading
 * @returns the SHA-256, if it was asked for
 * @throws InputError naming file, tensor and element, where one is NaN or infinite
 */
export async function readWeightFile(
  { path, hashes, pieces }: FileTask,
  readBlock: BlockReader,
  onBlock: (bytes: number) => void,
): Promise<string | undefined> {
  const hash = hashes ? createHash("sha256") : undefined;
  const source = await openUserFile(path, `"${path}"`);
  const block = Buffer.alloc(blockBytes);
  const read = async (from: number, to: number, look?: (bytes: Uint8Array, at: number) => void) => {
    for (let at = from; at < to; ) {
      const length = Math.min(blockBytes, to - at);
      const bytesRead = await attemptRead(`"${path}"`, async () => readBlock(source, block, length, at));
      if (bytesRead === 0) throw new InputError(`"${path}" became shorter while it was read`);
      const bytes = block.subarray(0, bytesRead);
      hash?.update(bytes);
      look?.(bytes, at - from);
      at += bytesRead;
      onBlock(bytesRead);
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
    return hash?.digest("hex");
  } finally {
    await source.close();
  }
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
