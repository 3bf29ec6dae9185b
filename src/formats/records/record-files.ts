/**
 * Data files of every kind that people bring: JSON, JSONL, CSV, TSV, Parquet and text, packed or not, in a zip or a
 * folder. Kinds are told by their first bytes, and by the name only where those say nothing. Records are streamed.
 */
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { InputError } from "../../base/errors.ts";
import { attemptRead, readUserBlocks } from "../../base/user-files.ts";
import { capitalized } from "../../base/words.ts";
import { decodeUtf8, splitLines } from "../lines.ts";
import { MOST_LEVELS, nestsDeeperThan, TOO_DEEP } from "../validation.ts";
import { gunzip, inUtf8, type PeekedStream, peek, readAll } from "./byte-streams.ts";
import { readCsvRows } from "./csv-rows.ts";
import { chooseFiles, type FileChoice, type LeftOut, listFolder, MOST_FILES } from "./data-folder.ts";
import { detectFormat, unpackedName } from "./data-format.ts";
import { splitJsonValues } from "./json-values.ts";
import { readParquetRows } from "./parquet.ts";
import { listZip } from "./zip-files.ts";
import { unzstd } from "./zstd.ts";

/** A record, or why there is none, and where it stands: `file "a.jsonl", line 3`. A text file is one string. */
export type DataRecord = { where: string } & ({ value: unknown } | { problem: string });

export interface RecordFile {
  /** Path inside the folder or zip, or the file's name; "/" between folders. */
  name: string;
  /**
   * @param columns of Parquet only these are read, where it has any of them; other kinds have all their fields
   * @throws InputError for what concerns the whole file: it is cut off, cannot be read, or is of no known kind
   */
  records(columns?: readonly string[]): AsyncGenerator<DataRecord>;
}

export interface DataSet {
  /** In the order of their names. */
  files: RecordFile[];
  /** Files that are there and are not read. */
  leftOut: LeftOut[];
}

interface Source {
  name: string;
  /** For messages: `file "a.zip/data/x.jsonl"`. */
  what: string;
  open(): AsyncIterable<Buffer>;
  /** Set for a file on disk that is not packed. */
  path?: string;
}

/** V8's strings end not far above; a record of this size is no sample of anything. */
const LONGEST_RECORD = 256 * 2 ** 20;
const MOST_PACKINGS = 2;
/** Parquet is read from memory where it is packed. */
const LARGEST_PACKED_PARQUET = 2 ** 29;
/** Blank lines one after another: a bomb of them has no end. */
const MOST_BLANK_LINES = 2 ** 20;

/**
 * The data of a path: a file, the files of a folder, or those of a zip.
 * @throws InputError where there is none, or the path cannot be read
 */
export async function openDataSet(path: string, selection: FileChoice): Promise<DataSet> {
  if (!(await attemptRead(`"${path}"`, () => stat(path))).isDirectory()) {
    const leftOut: LeftOut[] = [];
    const sources = await openFile({ name: basename(path), path }, selection, leftOut);
    return { files: sources.map(toRecordFile), leftOut };
  }
  const { chosen, leftOut } = chooseFiles(await listFolder(path), path, selection);
  const sources: Source[] = [];
  // The split is told by the name of the zip then, or by none.
  for (const file of chosen) sources.push(...(await openFile(file, { ...selection, split: undefined }, leftOut)));
  return { files: sources.map(toRecordFile), leftOut };
}

function toRecordFile(source: Source): RecordFile {
  return { name: source.name, records: (columns) => readRecords(source, columns) };
}

/** A file, or the files of a zip. */
async function openFile(
  { name, path }: { name: string; path: string },
  selection: FileChoice,
  leftOut: LeftOut[],
): Promise<Source[]> {
  const what = `file "${path}"`;
  const open = (): AsyncIterable<Buffer> => readUserBlocks(path, what);
  const { head, close } = await peek(open());
  await close();
  if (detectFormat(head, name) !== "zip") {
    if (selection.split === undefined) return [{ name, path, what, open }];
    throw new InputError(`--split chooses among the files of a folder or zip; "${path}" is one file`);
  }
  const zipped = chooseFiles(await listZip(path, what, MOST_FILES), path, selection);
  leftOut.push(...zipped.leftOut);
  return zipped.chosen.map((file) => ({ name: file.name, what: `file "${path}/${file.name}"`, open: file.open }));
}

async function* readRecords(
  source: Source,
  columns: readonly string[] | undefined,
  depth = 0,
): AsyncGenerator<DataRecord> {
  const stream = await peek(source.open());
  try {
    yield* readStream(source, stream, columns, depth);
  } finally {
    await stream.close();
  }
}

async function* readStream(
  source: Source,
  { head, blocks: packed }: PeekedStream,
  columns: readonly string[] | undefined,
  depth: number,
): AsyncGenerator<DataRecord> {
  const { what, name } = source;
  const format = detectFormat(head, name);
  if (typeof format === "object") throw new InputError(`${capitalized(what)} ${format.problem}`, { hint: format.hint });
  const blocks = inUtf8(packed, head, what);
  switch (format) {
    case "gzip":
    case "zstd": {
      const { path: _, ...inner } = source;
      // There are gzip files that unpack to themselves.
      if (depth === MOST_PACKINGS) throw new InputError(`${capitalized(what)} is packed more than ${depth} times`);
      const unpack = format === "gzip" ? gunzip : unzstd;
      yield* readRecords({ ...inner, name: unpackedName(name), open: () => unpack(packed, what) }, columns, depth + 1);
      return;
    }
    case "zip":
      throw new InputError(`${capitalized(what)} is a zip within a zip, gz or zst`, { hint: "unpack it" });
    case "parquet":
      yield* readParquet(source, packed, columns);
      return;
    case "csv":
    case "tsv":
      yield* readCsv(blocks, what, format === "tsv" ? "\t" : undefined);
      return;
    case "jsonl":
      yield* readJsonLines(blocks, what);
      return;
    case "json":
      yield* readJson(blocks, what);
      return;
    case "text":
      yield { where: what, value: await readText(blocks, what) };
  }
}

async function* readJsonLines(blocks: AsyncIterable<Buffer>, what: string): AsyncGenerator<DataRecord> {
  let blank = 0;
  for await (const { number, bytes } of splitLines(blocks, LONGEST_RECORD, what)) {
    const record = parse(bytes, `${what}, line ${number}`);
    blank = record === undefined ? blank + 1 : 0;
    if (blank > MOST_BLANK_LINES) throw new InputError(`${capitalized(what)} has more blank lines than are believed`);
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
    if (text.trim() === "") return undefined;
    const value: unknown = JSON.parse(text);
    return nestsDeeperThan(value, MOST_LEVELS) ? { where, problem: TOO_DEEP } : { where, value };
  } catch (error) {
    if (error instanceof InputError) return { where, problem: "is not valid UTF-8" };
    return { where, problem: `is not JSON: ${error instanceof Error ? error.message : String(error)}` };
  }
}

async function* readCsv(
  blocks: AsyncIterable<Buffer>,
  what: string,
  delimiter: string | undefined,
): AsyncGenerator<DataRecord> {
  for await (const { number, fields, problem } of readCsvRows(blocks, what, delimiter)) {
    const where = `${what}, row ${number}`;
    yield problem === undefined ? { where, value: fields } : { where, problem };
  }
}

async function* readParquet(
  { path, what }: Source,
  blocks: AsyncIterable<Buffer>,
  wanted: readonly string[] | undefined,
): AsyncGenerator<DataRecord> {
  const file = await readParquetRows(path ?? (await readPackedParquet(blocks, what)), what);
  const chosen = wanted?.filter((name) => file.columns.includes(name)) ?? [];
  let number = 0;
  for await (const value of file.rows(chosen.length === 0 ? undefined : chosen))
    yield { where: `${what}, row ${++number}`, value };
}

async function readPackedParquet(blocks: AsyncIterable<Buffer>, what: string): Promise<ArrayBuffer> {
  const all = await readAll(blocks, LARGEST_PACKED_PARQUET, what, "unpack it: packed Parquet is read into memory");
  return all.buffer.slice(all.byteOffset, all.byteOffset + all.length) as ArrayBuffer;
}

async function readText(blocks: AsyncIterable<Buffer>, what: string): Promise<string> {
  const hint =
    "a text file is one document, which is read into memory: cut it into several files, or write it as JSONL";
  return decodeUtf8(await readAll(blocks, LONGEST_RECORD, what, hint), what);
}
