/** One column of a Parquet file, row group by row group. */
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, parquetSchema } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { InputError } from "../base/errors.ts";

export interface ParquetRows {
  columns: string[];
  /** Values of a column; 64-bit integers become numbers. */
  rows(column: string): AsyncGenerator<unknown>;
}

/** @throws InputError for a file that is not Parquet, or is cut off */
export async function readParquetRows(path: string): Promise<ParquetRows> {
  const attempt = async <T>(operation: () => Promise<T>): Promise<T> => {
    try {
      return await operation();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new InputError(`Cannot read calibration file "${path}": ${reason}`, { cause: error });
    }
  };
  const file = await attempt(() => asyncBufferFromFile(path));
  const metadata = await attempt(() => parquetMetadataAsync(file));
  return {
    columns: parquetSchema(metadata).children.map(({ element }) => element.name),
    async *rows(column) {
      let start = 0;
      for (const group of metadata.row_groups) {
        const end = start + Number(group.num_rows);
        const range = { rowStart: start, rowEnd: end };
        const rows = await attempt(() =>
          parquetReadObjects({ file, metadata, compressors, columns: [column], ...range }),
        );
        for (const row of rows) yield asNumbers(row[column]);
        start = end;
      }
    },
  };
}

function asNumbers(value: unknown): unknown {
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as Iterable<number | bigint>, Number);
  if (!Array.isArray(value)) return value;
  return value.map((item: unknown) => (typeof item === "bigint" ? Number(item) : item));
}
