/** Named arrays of numbers as a safetensors file: what a training keeps of itself between two steps. */
import { readFile } from "node:fs/promises";
import { InputError } from "../../base/errors.ts";
import { hashBytes, writeFileAtomically } from "../../base/files.ts";
import { quoted } from "../../base/quoted.ts";
import { readSafetensorsHeader } from "../safetensors.ts";

export type FloatArray = Float32Array | Float64Array;

/**
 * Writes the file, all or nothing.
 * @returns SHA-256 of its bytes
 */
export async function writeFloats(path: string, arrays: ReadonlyMap<string, FloatArray>): Promise<string> {
  const entries: Record<string, unknown> = {};
  const parts: Uint8Array[] = [];
  let end = 0;
  for (const [name, values] of arrays) {
    const begin = end;
    end += values.byteLength;
    const dtype = values instanceof Float64Array ? "F64" : "F32";
    entries[name] = { dtype, shape: [values.length], data_offsets: [begin, end] };
    parts.push(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
  const json = Buffer.from(JSON.stringify(entries));
  const head = Buffer.alloc(8 + 8 * Math.ceil(json.length / 8), " ");
  head.writeBigUInt64LE(BigInt(head.length - 8));
  json.copy(head, 8);
  const bytes = Buffer.concat([head, ...parts]);
  await writeFileAtomically(path, bytes);
  return hashBytes(bytes);
}

/**
 * @param hash what `writeFloats` returned
 * @throws InputError if the file is not the one that was written
 */
export async function readFloats(path: string, hash: string): Promise<Map<string, FloatArray>> {
  const bytes = await readFile(path).catch((error: unknown) => {
    throw new InputError(`Cannot read ${quoted(path)}, which the journal says is there`, { cause: error });
  });
  if (hashBytes(bytes) !== hash) {
    throw new InputError(`${quoted(path)} has changed since the journal was written`, {
      hint: "start again with --fresh",
    });
  }
  const arrays = new Map<string, FloatArray>();
  for (const [name, { dtype, offset, length }] of await readSafetensorsHeader(path)) {
    const own = Uint8Array.from(bytes.subarray(offset, offset + length)).buffer;
    arrays.set(name, dtype === "F64" ? new Float64Array(own) : new Float32Array(own));
  }
  return arrays;
}
