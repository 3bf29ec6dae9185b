/** Rows of a Parquet file, row group by row group. */
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, parquetSchema } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { InputError } from "../../base/errors.ts";
import { requireRegularFile } from "../../base/user-files.ts";

export interface ParquetRows {
  columns: string[];
  /** Rows with these columns, or with all; 64-bit integers become numbers. */
  rows(columns?: string[]): AsyncGenerator<Record<string, unknown>>;
}

/**
 * @param source a path, or the bytes of a file
 * @param what the noun of messages: `calibration file "a.parquet"`
 * @throws InputError for a file that is not Parquet, or is cut off
 */
export async function readParquetRows(source: string | ArrayBuffer, what: string): Promise<ParquetRows> {
  const attempt = async <T>(operation: () => Promise<T>): Promise<T> => {
    try {
      return await operation();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new InputError(`Cannot read ${what}: ${reason}`, { cause: error });
    }
  };
  if (typeof source === "string") await requireRegularFile(source, what);
  const file = typeof source === "string" ? await attempt(() => asyncBufferFromFile(source)) : source;
  const metadata = await attempt(() => parquetMetadataAsync(file));
  return {
    columns: parquetSchema(metadata).children.map(({ element }) => element.name),
    async *rows(columns) {
      let start = 0;
      for (const group of metadata.row_groups) {
        const end = start + Number(group.num_rows);
        const range = { rowStart: start, rowEnd: end };
        const chosen = columns === undefined ? {} : { columns };
        const rows = await attempt(() => parquetReadObjects({ file, metadata, compressors, ...chosen, ...range }));
        for (const row of rows) {
          yield Object.fromEntries(Object.entries(row).map(([name, value]) => [name, withNumbers(value)]));
        }
        start = end;
      }
    },
  };
}

function withNumbers(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as Iterable<number | bigint>, Number);
  return Array.isArray(value) ? value.map(withNumbers) : value;
}
