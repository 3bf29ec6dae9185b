/**
 * Bounds-checked reader of safetensors headers. A checkpoint is untrusted: nothing is allocated or read on the word of
 * the file before it has been compared with the file's real size. Format: u64 little-endian header length, JSON header
 * of that length, then the data; offsets in the header count from the start of the data.
 */
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import { openUserFile } from "../base/user-files.ts";
import { dtypeBytes, elementsIn } from "./dtype.ts";

/** The format's own limit on the header. */
const maxHeaderBytes = 100_000_000;

/** Where a tensor lies. */
export interface StoredTensor {
  name: string;
  dtype: string;
  shape: number[];
  /** First byte in the file. */
  offset: number;
  /** Length in bytes. */
  length: number;
}

const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(z.number().int().nonnegative()),
  data_offsets: z.tuple([z.number().int().nonnegative(), z.number().int().nonnegative()]),
});

/**
 * Reads and checks the header of one safetensors file.
 * @throws InputError naming the file, and the tensor if there is one
 */
export async function readSafetensorsHeader(path: string): Promise<Map<string, StoredTensor>> {
  const file = await openUserFile(path, `"${path}"`);
  try {
    const { size } = await file.stat();
    if (size < 8)
      throw new InputError(`"${path}" is no safetensors file: ${size} bytes, the header length alone takes 8`);
    const prefix = Buffer.alloc(8);
    await file.read(prefix, 0, 8, 0);
    const declared = prefix.readBigUInt64LE();
    if (declared > BigInt(size - 8)) {
      if (prefix.toString("latin1") === "version ") {
        throw new InputError(`"${path}" is a pointer of Git LFS, not the weights themselves`, {
          hint: "download the weights: git lfs pull, or hf download",
        });
      }
      throw new InputError(
        `"${path}" is truncated or damaged: its header claims ${declared} bytes, the file has ${size}`,
      );
    }
    if (declared > BigInt(maxHeaderBytes)) {
      throw new InputError(`"${path}" claims a header of ${declared} bytes; the format allows ${maxHeaderBytes}`);
    }
    const headerBytes = Buffer.alloc(Number(declared));
    await file.read(headerBytes, 0, headerBytes.length, 8);
    return checkHeader(path, parseHeader(path, headerBytes), 8 + headerBytes.length, size);
  } finally {
    await file.close();
  }
}

function parseHeader(path: string, bytes: Buffer): Map<string, z.infer<typeof entrySchema>> {
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw new InputError(`"${path}" has a safetensors header that is not JSON`, { cause: error });
  }
  const object = z.record(z.string(), z.unknown()).safeParse(json);
  if (!object.success) throw new InputError(`"${path}" has a safetensors header that is not a JSON object`);
  const entries = new Map<string, z.infer<typeof entrySchema>>();
  for (const [name, value] of Object.entries(object.data)) {
    if (name === "__metadata__") continue;
    const entry = entrySchema.safeParse(value);
    if (!entry.success) {
      const issue = entry.error.issues[0];
      throw new InputError(`"${path}", tensor "${name}": ${issue?.path.join(".")} ${issue?.message ?? "is malformed"}`);
    }
    entries.set(name, entry.data);
  }
  return entries;
}

function checkHeader(
  path: string,
  entries: Map<string, z.infer<typeof entrySchema>>,
  dataStart: number,
  fileBytes: number,
): Map<string, StoredTensor> {
  const tensors = new Map<string, StoredTensor>();
  for (const [name, entry] of entries) {
    const at = `"${path}", tensor "${name}"`;
    const [begin, end] = entry.data_offsets;
    if (begin > end) throw new InputError(`${at}: data_offsets ${begin}..${end} run backwards`);
    if (dataStart + end > fileBytes) {
      throw new InputError(`${at} ends at byte ${dataStart + end}, the file has ${fileBytes}: it is truncated`);
    }
    const width = Object.hasOwn(dtypeBytes, entry.dtype) ? dtypeBytes[entry.dtype] : undefined;
    if (width === undefined) throw new InputError(`${at} has the unknown dtype "${entry.dtype}"`);
    const expected = width * elementsIn(entry.shape);
    if (expected !== end - begin) {
      throw new InputError(
        `${at}: ${entry.dtype} of shape [${entry.shape.join(", ")}] takes ${expected} bytes, data_offsets give ${end - begin}`,
      );
    }
    tensors.set(name, {
      name,
      dtype: entry.dtype,
      shape: entry.shape,
      offset: dataStart + begin,
      length: end - begin,
    });
  }
  refuseOverlaps(path, [...tensors.values()], dataStart, fileBytes);
  return tensors;
}

/** The format wants the data covered exactly once: an overlap aliases two weights, a hole hides bytes. */
function refuseOverlaps(path: string, tensors: StoredTensor[], dataStart: number, fileBytes: number): void {
  const ordered = tensors.sort((a, b) => a.offset - b.offset || a.length - b.length);
  let covered = dataStart;
  let previous = "the header";
  for (const { name, offset, length } of ordered) {
    if (offset < covered) throw new InputError(`"${path}": tensor "${name}" overlaps ${previous}`);
    if (offset > covered) {
      throw new InputError(`"${path}": ${offset - covered} bytes before tensor "${name}" belong to no tensor`);
    }
    covered = offset + length;
    previous = `tensor "${name}"`;
  }
  if (covered !== fileBytes) {
    throw new InputError(`"${path}": ${fileBytes - covered} bytes after the last tensor belong to no tensor`);
  }
}
