/**
 * The documents of a calibration set: every row of the user's data files that holds a text, token ids or a conversation,
 * in file order. What holds none is told of, never left out without a word.
 */
import { InputError } from "../base/errors.ts";
import { capitalized } from "../base/words.ts";
import type { LeftOut } from "../formats/records/data-folder.ts";
import { openDataSet, type RecordFile } from "../formats/records/record-files.ts";
import { knownFields, type RowContent, type RowReading, readColumn, readRow, readShapes } from "./row-content.ts";

/** What a row holds, as what it was read (`from`), and where it stands; or that there is nothing in it. */
export type Document = { where: string } & ((RowContent & { from: string }) | { empty: string });

export interface DocumentOptions {
  /** Field or column that holds the text; by default the row's shape tells. A dot leads into a nested field. */
  textColumn?: string | undefined;
  /** Only files of this split of a folder or zip. */
  split?: string | undefined;
}

export interface DocumentSource {
  /** Files that are there and are not read. */
  leftOut: readonly LeftOut[];
  /** @throws InputError for malformed content, and for rows of a shape that is not known */
  documents(): AsyncGenerator<Document>;
}

/**
 * The documents of a file, folder or zip.
 * @throws InputError for a path that cannot be read or holds no data
 */
export async function openDocuments(path: string, options: DocumentOptions = {}): Promise<DocumentSource> {
  const { files, leftOut } = await openDataSet(path, { takesText: true, split: options.split });
  return {
    leftOut,
    async *documents() {
      for (const file of files) yield* readFile(file, options.textColumn);
    },
  };
}

async function* readFile(file: RecordFile, column: string | undefined): AsyncGenerator<Document> {
  const read = (value: unknown): RowReading => (column === undefined ? readRow(value) : readColumn(value, column));
  const columns = column === undefined ? knownFields : [column, column.split(".")[0] ?? column];
  let found = false;
  // A list of ids alone, as `run --tokens-file` takes it: each is a record, together they are a document.
  const ids: number[] = [];
  let start = "";
  for await (const record of file.records(columns)) {
    const where = `calibration ${record.where}`;
    if ("problem" in record) {
      const mark = record.problem.startsWith("is ") ? "" : ":";
      throw new InputError(`${capitalized(where)}${mark} ${record.problem}`);
    }
    if (typeof record.value === "number" && Number.isSafeInteger(record.value) && column === undefined) {
      if (ids.length === 0) start = where;
      ids.push(record.value);
      continue;
    }
    // A text file is its text, whatever column the rows of other files have.
    const reading = typeof record.value === "string" ? readRow(record.value) : read(record.value);
    if ("content" in reading) {
      found = true;
      yield { where, ...reading.content, from: reading.from };
    } else if ("empty" in reading) {
      // A field that is there and empty is found all the same.
      found = true;
      yield { where, empty: reading.empty };
    } else if (found) yield { where, empty: reading.unknown };
    else {
      throw new InputError(`${capitalized(where)} ${reading.unknown}`, {
        hint:
          column === undefined ? `choose a field with --text-column; ${readShapes}` : "choose one with --text-column",
      });
    }
  }
  if (ids.length > 0) yield { where: start, ids, from: "a list of ids" };
}
