/**
 * Data files of every kind that benchmarks come in: JSON, JSONL, CSV and Parquet, gzipped or not, in a zip or a folder.
 * Kinds are told by their first bytes, and by the name only where those say nothing. Records are streamed.
 */
import { readdir, stat } from "node:fs/promises";
import { basename, extname, join } from "node:path";
import { pipeline, Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { InputError } from "../../base/errors.ts";
import { attemptRead, readUserBlocks } from "../../base/user-files.ts";
import { capitalized } from "../../base/words.ts";
import { decodeUtf8, splitLines } from "../lines.ts";
import { readCsvRows } from "./csv-rows.ts";
import { splitJsonValues } from "./json-values.ts";
import { readParquetRows } from "./parquet.ts";
import { listZip } from "./zip-files.ts";

/** A record, or why there is none, and where it stands: `file "a.jsonl", line 3`. */
export type DataRecord = { where: string } & ({ value: unknown } | { problem: string });

export interface RecordFile {
  /** Path inside the folder or zip, or the file's name; "/" between folders. */
  name: string;
  /** @throws InputError for what concerns the whole file: it is cut off, cannot be read, or is of no known kind */
  records(): AsyncGenerator<DataRecord>;
}

interface Source {
  name: string;
  /** For messages: `file "a.zip" ("data/x.jsonl")`. */
  what: string;
  open(): AsyncIterable<Buffer>;
  /** Set for a file on disk that is not packed. */
  path?: string;
}

const EXTENSIONS = [".json", ".jsonl", ".ndjson", ".csv", ".parquet"];
const PACKED = [...EXTENSIONS, ".zip", ".gz"];
const SUPPORTED = "supported are json, jsonl, csv and parquet, each also as .gz, in a zip, or in a folder";

/** V8's strings end not far above; a record of this size is no sample of anything. */
const LONGEST_RECORD = 256 * 2 ** 20;
/** Parquet is read from memory where it is packed. */
const LARGEST_PACKED_PARQUET = 2 ** 30;
const DEEPEST_FOLDER = 5;

/**
 * The data files of a path, in the order of their names.
 * @throws InputError where there are none, or the path cannot be read
 */
export async function listRecordFiles(path: string): Promise<RecordFile[]> {
  const sources: Source[] = [];
  for (const file of await listFiles(path)) {
    const what = `file "${file.path}"`;
    if (await isZip(file.path, what)) {
      for (const { name, open } of await listZip(file.path, what)) {
        if (hasExtension(name, EXTENSIONS)) sources.push({ name, what: `file "${file.path}/${name}"`, open });
      }
    } else sources.push({ ...file, what, open: () => readUserBlocks(file.path, what) });
  }
  if (sources.length === 0) throw new InputError(`"${path}" holds no data file`, { hint: SUPPORTED });
  return sources.map((source) => ({ name: source.name, records: () => readRecords(source) }));
}

async function listFiles(path: string): Promise<{ name: string; path: string }[]> {
  if (!(await attemptRead(`"${path}"`, () => stat(path))).isDirectory()) return [{ name: basename(path), path }];
  return listFolder(path, "", DEEPEST_FOLDER);
}

/** By code unit, so that the order does not hang on the machine's locale. */
async function listFolder(folder: string, prefix: string, depth: number): Promise<{ name: string; path: string }[]> {
  const entries = await attemptRead(`folder "${folder}"`, () => readdir(folder, { withFileTypes: true }));
  const found: { name: string; path: string }[] = [];
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(folder, entry.name);
    if (entry.name.startsWith(".")) continue;
    if (entry.isDirectory()) {
      if (depth > 0) found.push(...(await listFolder(path, `${prefix}${entry.name}/`, depth - 1)));
    } else if (hasExtension(entry.name, PACKED)) found.push({ name: prefix + entry.name, path });
  }
  return found;
}

function hasExtension(name: string, extensions: readonly string[]): boolean {
  return (
    extensions.includes(extname(withoutGz(name)).toLowerCase()) || extensions.includes(extname(name).toLowerCase())
  );
}

function withoutGz(name: string): string {
  return name.toLowerCase().endsWith(".gz") ? name.slice(0, -3) : name;
}

async function isZip(path: string, what: string): Promise<boolean> {
  for await (const block of readUserBlocks(path, what)) return block.subarray(0, 4).equals(Buffer.from("PK\x03\x04"));
  return false;
}

async function* readRecords(source: Source): AsyncGenerator<DataRecord> {
  const { what } = source;
  const [head, blocks] = await peek(source.open());
  const starts = (...magic: number[]): boolean => magic.every((byte, i) => head[i] === byte);
  if (starts(0x1f, 0x8b)) {
    const { path: _, ...packed } = source;
    yield* readRecords({ ...packed, name: withoutGz(source.name), open: () => gunzip(blocks, what) });
  } else if (starts(0x50, 0x41, 0x52, 0x31)) yield* readParquet(source, blocks);
  else if (starts(0x50, 0x4b)) throw new InputError(`${capitalized(what)} is a zip within a zip or gz`);
  else if (starts(0x28, 0xb5, 0x2f, 0xfd)) throw unsupported(what, "packed with zstd");
  else {
    const extension = extname(source.name).toLowerCase();
    if (extension === ".csv") yield* readCsv(blocks, what);
    else if (extension === ".jsonl" || extension === ".ndjson") yield* readJsonLines(blocks, what);
    else if (extension === ".json" || startsLikeJson(head)) yield* readJson(blocks, what);
    else throw unsupported(what, "of no kind that is known");
  }
}

function unsupported(what: string, kind: string): InputError {
  return new InputError(`${capitalized(what)} is ${kind}`, { hint: SUPPORTED });
}

function startsLikeJson(head: Buffer): boolean {
  return /^(\xef\xbb\xbf)?\s*[[{]/.test(head.toString("latin1"));
}

async function* readJsonLines(blocks: AsyncIterable<Buffer>, what: string): AsyncGenerator<DataRecord> {
  for await (const { number, bytes } of splitLines(blocks, LONGEST_RECORD, what)) {
    const where = `${what}, line ${number}`;
    const record = parse(bytes, where);
    if (record !== undefined) yield record;
  }
}

async function* readJson(blocks: AsyncIterable<Buffer>, what: string): AsyncGenerator<DataRecord> {
  for await (const { number, line, bytes } of splitJsonValues(blocks, what, LONGEST_RECORD)) {
    const record = parse(bytes, `${what}, record ${number} (line ${line})`);
    if (record !== undefined) yield record;
  }
}

/** @returns undefined for a blank line */
function parse(bytes: Buffer, where: string): DataRecord | undefined {
  try {
    const text = decodeUtf8(bytes, where);
    return text.trim() === "" ? undefined : { where, value: JSON.parse(text) };
  } catch (error) {
    if (error instanceof InputError) return { where, problem: "is not valid UTF-8" };
    return { where, problem: `is not JSON: ${error instanceof Error ? error.message : String(error)}` };
  }
}

async function* readCsv(blocks: AsyncIterable<Buffer>, what: string): AsyncGenerator<DataRecord> {
  for await (const { number, fields, problem } of readCsvRows(blocks, what)) {
    const where = `${what}, row ${number}`;
    yield problem === undefined ? { where, value: fields } : { where, problem };
  }
}

async function* readParquet({ path, what }: Source, blocks: AsyncIterable<Buffer>): AsyncGenerator<DataRecord> {
  const file = await readParquetRows(path ?? (await readAll(blocks, what)), what);
  let number = 0;
  for await (const value of file.rows()) yield { where: `${what}, row ${++number}`, value };
}

async function readAll(blocks: AsyncIterable<Buffer>, what: string): Promise<ArrayBuffer> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const block of blocks) {
    size += block.length;
    if (size > LARGEST_PACKED_PARQUET) {
      throw new InputError(`${capitalized(what)} is too large to be read as packed Parquet`, { hint: "unpack it" });
    }
    parts.push(block);
  }
  const all = Buffer.concat(parts);
  return all.buffer.slice(all.byteOffset, all.byteOffset + all.length) as ArrayBuffer;
}

async function* gunzip(blocks: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer> {
  const unpacked = pipeline(Readable.from(blocks), createGunzip({ chunkSize: 1 << 18 }), () => {
    // Errors come out of the stream itself.
  });
  try {
    for await (const block of unpacked) yield block as Buffer;
  } catch (error) {
    if (error instanceof InputError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new InputError(`Cannot unpack ${what}: ${reason}`, { hint: "is it cut off?", cause: error });
  } finally {
    unpacked.destroy();
  }
}

/** The first block, and the same stream with it. */
async function peek(blocks: AsyncIterable<Buffer>): Promise<[Buffer, AsyncIterable<Buffer>]> {
  const iterator = blocks[Symbol.asyncIterator]();
  const first = await iterator.next();
  const all = async function* (): AsyncGenerator<Buffer> {
    try {
      for (let next = first; next.done !== true; next = await iterator.next()) yield next.value;
    } finally {
      await iterator.return?.();
    }
  };
  return [first.done === true ? Buffer.alloc(0) : first.value, all()];
}
