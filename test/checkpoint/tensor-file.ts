/** Tensors of a checkpoint in memory, so that a test can store the same numbers in another way. */
import { readFile, writeFile } from "node:fs/promises";

export interface Tensor {
  dtype: string;
  shape: number[];
  data: Uint8Array;
}

export async function readTensors(path: string): Promise<Map<string, Tensor>> {
  const bytes = await readFile(path);
  const start = 8 + Number(bytes.readBigUInt64LE());
  const header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> = JSON.parse(
    bytes.subarray(8, start).toString("utf8"),
  );
  return new Map(
    Object.entries(header)
      .filter(([name]) => name !== "__metadata__")
      .map(
        ([
          name,
          {
            dtype,
            shape,
            data_offsets: [from, to],
          },
        ]) => [name, { dtype, shape, data: Uint8Array.from(bytes.subarray(start + from, start + to)) }],
      ),
  );
}

export async function writeTensors(path: string, tensors: ReadonlyMap<string, Tensor>): Promise<void> {
  const header: Record<string, object> = {};
  let end = 0;
  for (const [name, { dtype, shape, data }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [end, end + data.length] };
    end += data.length;
  }
  const json = Buffer.from(JSON.stringify(header));
  const text = Buffer.concat([json, Buffer.alloc((8 - (json.length % 8)) % 8, " ")]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  await writeFile(path, Buffer.concat([length, text, ...[...tensors.values()].map(({ data }) => data)]));
}

export function floats(tensor: Tensor): Float32Array {
  if (tensor.dtype !== "F32") throw new RangeError(tensor.dtype);
  return new Float32Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength / 4);
}

export function float32(shape: number[], values: ArrayLike<number>): Tensor {
  return { dtype: "F32", shape, data: new Uint8Array(Float32Array.from(values).buffer) };
}

/** The numbers of FP8 E4M3, by their bytes: sign, four bits of exponent with bias 7, three of mantissa; 0x7f is NaN. */
export const e4m3 = Float32Array.from({ length: 256 }, (_, byte) => {
  const exponent = (byte >> 3) & 15;
  const mantissa = byte & 7;
  const size = exponent === 0 ? (mantissa / 8) * 2 ** -6 : (1 + mantissa / 8) * 2 ** (exponent - 7);
  return (byte & 0x7f) === 0x7f ? Number.NaN : byte < 128 ? size : -size;
});

/** The byte of the nearest number. */
export function toE4m3(value: number): number {
  let best = 0;
  for (let byte = 0; byte < 256; byte++) {
    if (Math.abs((e4m3[byte] as number) - value) < Math.abs((e4m3[best] as number) - value)) best = byte;
  }
  return best;
}
