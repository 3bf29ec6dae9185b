/**
 * A tensor whose elements are moved into a larger one of the same dtype: rows and columns of the result are taken from
 * the source or are zero, and all of them may be multiplied by a power of two, which no rounding can touch.
 */
import { InputError } from "../../base/errors.ts";
import { openUserFile } from "../../base/user-files.ts";
import { dtypeBytes } from "../dtype.ts";
import type { DerivedTensor, FileRange } from "./derived-checkpoint.ts";

/** For each row (or column) of the result the one of the source that it is a copy of; -1 for zeros. */
export type Sources = Int32Array;

export interface TensorSpread {
  rows: Sources;
  /** Absent where columns stay as they are. */
  columns?: Sources;
  /** The elements are multiplied by 2 to the power of this, 0 or more. */
  doublings?: number;
}

/** A tensor of a file. */
export type FileTensor = DerivedTensor & { data: FileRange };

/** Bits of the mantissa of the dtypes that can be spread. */
const mantissas: Readonly<Record<string, number>> = { F32: 23, BF16: 7, F16: 10 };

export const spreadTypes: readonly string[] = Object.keys(mantissas);

/** Bytes that are handed on at a time. */
const blockBytes = 4 << 20;

/**
 * @param tensor a vector, or a matrix `[rows, columns]`, in one of `spreadTypes`; read when the result is written
 * @returns the tensor of `rows.length` rows
 */
export function spreadTensor(tensor: FileTensor, spread: TensorSpread): DerivedTensor {
  const { name, dtype, shape } = tensor;
  const width = spread.columns?.length ?? shape[1];
  const size = width === undefined ? [spread.rows.length] : [spread.rows.length, width];
  return { name, dtype, shape: size, data: () => spreadBlocks(tensor, spread) };
}

async function* spreadBlocks(
  tensor: FileTensor,
  { rows, columns, doublings = 0 }: TensorSpread,
): AsyncGenerator<Uint8Array> {
  const source = await elementsOf(tensor);
  multiply(tensor, source, doublings);
  const across = tensor.shape[1] ?? 1;
  const width = columns?.length ?? across;
  const together = Math.max(1, Math.floor(blockBytes / (width * source.BYTES_PER_ELEMENT)));
  for (let first = 0; first < rows.length; first += together) {
    const count = Math.min(together, rows.length - first);
    // A new block is all zeros.
    const block = source instanceof Uint16Array ? new Uint16Array(count * width) : new Uint32Array(count * width);
    for (let row = 0; row < count; row++) {
      const from = rows[first + row] as number;
      if (from < 0) continue;
      const begin = from * across;
      if (columns === undefined) block.set(source.subarray(begin, begin + across), row * width);
      else {
        for (const [column, wanted] of columns.entries()) {
          if (wanted >= 0) block[row * width + column] = source[begin + wanted] as number;
        }
      }
    }
    yield new Uint8Array(block.buffer);
  }
}

async function elementsOf({ name, dtype, data }: FileTensor): Promise<Uint16Array | Uint32Array> {
  const bytes = new Uint8Array(data.length);
  const file = await openUserFile(data.path, `"${data.path}"`);
  try {
    const { bytesRead } = await file.read(bytes, 0, data.length, data.offset);
    if (bytesRead < data.length) throw new InputError(`"${data.path}" became shorter while "${name}" was read`);
  } finally {
    await file.close();
  }
  return dtypeBytes[dtype] === 2 ? new Uint16Array(bytes.buffer) : new Uint32Array(bytes.buffer);
}

/**
 * Multiplies by a power of two in place, on the bits: one more in the exponent, and below the smallest normal number the
 * mantissa shifted, which carries into the exponent by itself.
 */
function multiply({ name, dtype, data }: FileTensor, elements: Uint16Array | Uint32Array, doublings: number): void {
  if (doublings === 0) return;
  const step = 2 ** (mantissas[dtype] as number);
  const sign = 2 ** (8 * elements.BYTES_PER_ELEMENT - 1);
  /** Infinity: every bit of the exponent is set. */
  const limit = sign - step;
  for (const [index, element] of elements.entries()) {
    const isNegative = element >= sign;
    let size = isNegative ? element - sign : element;
    for (let doubling = 0; doubling < doublings && size < limit; doubling++) size += Math.min(size, step);
    if (size >= limit) {
      throw new InputError(
        `"${data.path}", tensor "${name}": element ${index} times ${2 ** doublings} is more than ${dtype} can hold`,
      );
    }
    elements[index] = isNegative ? size + sign : size;
  }
}
