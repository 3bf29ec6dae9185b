/** Rows of a Parquet file, row group by row group. */
import { gunzipSync } from "node:zlib";
import { type AsyncBuffer, type Compressors, parquetMetadataAsync, parquetReadObjects, parquetSchema } from "hyparquet";
import { compressors as packagedCompressors } from "hyparquet-compressors";
import { InputError } from "../../base/errors.ts";
import { openUserFile } from "../../base/user-files.ts";
import { attempt } from "./byte-streams.ts";

export interface ParquetRows {
  columns: string[];
  /** Rows with these columns, or with all; 64-bit integers become numbers. */
  rows(columns?: string[]): AsyncGenerator<Record<string, unknown>>;
}

/** Bytes of an unpacked page, and of a row group: both are in memory as a whole. */
const LARGEST_PAGE = 2 ** 29;
const LARGEST_ROW_GROUP = 2 ** 32;

/** The sizes that a file states are not believed beyond limits; zlib stops at the stated size. */
const compressors: Compressors = Object.fromEntries(
  Object.entries({
    ...packagedCompressors,
    GZIP: (input: Uint8Array, bytes: number) =>
      new Uint8Array(gunzipSync(input, { maxOutputLength: Math.max(bytes, 1) })),
  }).map(([codec, decompress]) => [
    codec,
    (input: Uint8Array, bytes: number) => {
      if (bytes > LARGEST_PAGE) throw new Error(`a page of it would unpack to ${bytes} bytes, which is not believed`);
      return decompress(input, bytes);
    },
  ]),
);

/**
 * @param source a path, or the bytes of a file
 * @param what the noun of messages: `calibration file "a.parquet"`
 * @throws InputError for a file that is not Parquet, or is cut off
 */
export async function readParquetRows(source: string | ArrayBuffer, what: string): Promise<ParquetRows> {
  const cannot = `Cannot read ${what}`;
  const metadata = await attempt(cannot, () => withBytes(source, what, (file) => parquetMetadataAsync(file)));
  const groups = metadata.row_groups.map(({ num_rows: rows, total_byte_size: bytes }) => ({
    rows: Number(rows),
    bytes: Number(bytes),
  }));
  const huge = groups.find(({ bytes }) => bytes > LARGEST_ROW_GROUP);
  if (huge !== undefined) {
    throw new InputError(`${cannot}: a row group of ${huge.bytes} bytes does not fit into memory`, {
      hint: "write it with smaller row groups",
    });
  }
  const stated = Number(metadata.num_rows);
  const counted = groups.reduce((total, { rows }) => total + rows, 0);
  if (stated !== counted) {
    throw new InputError(`${cannot}: it says it has ${stated} rows, its row groups have ${counted}`, {
      hint: "is it cut off or damaged?",
    });
  }
  return {
    columns: await attempt(cannot, async () => parquetSchema(metadata).children.map(({ element }) => element.name)),
    async *rows(columns) {
      const [file, close] = await openBytes(source, what);
      try {
        for (const group of metadata.row_groups) {
          // Of one group at a time: the library plans a read over all groups that it is shown.
          const own = { ...metadata, row_groups: [group], num_rows: group.num_rows };
          const chosen = columns === undefined ? {} : { columns };
          const rows = await attempt(cannot, () => parquetReadObjects({ file, metadata: own, compressors, ...chosen }));
          if (rows.length !== Number(group.num_rows)) {
            throw new InputError(`${cannot}: a row group holds ${rows.length} of ${group.num_rows} rows`);
          }
          for (const row of rows) {
            yield Object.fromEntries(Object.entries(row).map(([name, value]) => [name, withNumbers(value)]));
          }
        }
      } finally {
        await close();
      }
    },
  };
}

async function withBytes<T>(
  source: string | ArrayBuffer,
  what: string,
  use: (file: AsyncBuffer) => Promise<T>,
): Promise<T> {
  const [file, close] = await openBytes(source, what);
  try {
    return await use(file);
  } finally {
    await close();
  }
}

/** Ranges of the bytes, and what ends the reading. */
async function openBytes(source: string | ArrayBuffer, what: string): Promise<[AsyncBuffer, () => Promise<void>]> {
  if (typeof source !== "string") {
    return [{ byteLength: source.byteLength, slice: (from, to) => source.slice(from, to) }, async () => {}];
  }
  const file = await openUserFile(source, what);
  const { size } = await file.stat();
  const slice = async (from: number, to = size): Promise<ArrayBuffer> => {
    const start = from < 0 ? Math.max(0, size + from) : from;
    const end = Math.min(to, size);
    const bytes = new Uint8Array(Math.max(0, end - start));
    const { bytesRead } = await file.read(bytes, 0, bytes.length, start);
    if (bytesRead < bytes.length) throw new Error("it became shorter while it was read");
    return bytes.buffer;
  };
  return [{ byteLength: size, slice }, () => file.close()];
}

function withNumbers(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as Iterable<number | bigint>, Number);
  if (Array.isArray(value)) return value.map(withNumbers);
  if (value === null || typeof value !== "object" || value instanceof Date) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, withNumbers(inner)]));
}
