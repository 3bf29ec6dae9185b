/** Writes small safetensors files for tests, hostile ones included. */
import { cp, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixturePath } from "../oracle.ts";

export interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** A file with this header (an object, or raw text) and so many zero bytes of data. */
export async function writeSafetensors(path: string, header: object | string, dataBytes: number): Promise<void> {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  await writeFile(path, Buffer.concat([length, json, Buffer.alloc(dataBytes)]));
}

/** A copy of a fixture's checkpoint that a test may damage. */
export async function copyFixture(name: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), `indexcache-${name}-`));
  await cp(fixturePath(name), folder, { recursive: true });
  return folder;
}

/** Rewrites the header of a file in place through `edit`; the data stay as they are. */
export async function editHeader(path: string, edit: (header: Record<string, HeaderEntry>) => void): Promise<void> {
  const bytes = await readFile(path);
  const end = 8 + Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.subarray(8, end).toString("utf8"));
  edit(header);
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  await writeFile(path, Buffer.concat([length, json, bytes.subarray(end)]));
}

/** Overwrites bytes of one tensor's data, from its element `at`. */
export async function pokeTensor(path: string, tensor: string, at: number, bytes: Uint8Array): Promise<void> {
  const file = await readFile(path);
  const end = 8 + Number(file.readBigUInt64LE());
  const header = JSON.parse(file.subarray(8, end).toString("utf8")) as Record<string, HeaderEntry>;
  const entry = header[tensor];
  if (entry === undefined) throw new RangeError(tensor);
  file.set(bytes, end + entry.data_offsets[0] + at * bytes.length);
  await writeFile(path, file);
}
