/**
 * Where calibration text comes from: .txt, .jsonl, .csv or .parquet files, or a folder of them. Every reader gives
 * documents in file order and names the file and line of what it cannot read; nothing is skipped without a word.
 */
import { readdir, stat } from "node:fs/promises";
import { extname, join } from "node:path";
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import { attemptRead, LARGEST_WHOLE_FILE, readUserBlocks } from "../base/user-files.ts";
import { capitalized } from "../base/words.ts";
import { decodeUtf8, readLines } from "../formats/lines.ts";
import { readCsvRows } from "../formats/records/csv-rows.ts";
import { readParquetRows } from "../formats/records/parquet.ts";
import { readText as readWholeText } from "../formats/text-file.ts";
import { parseJson } from "../formats/validation.ts";

/** A text, or token ids that somebody else made, and where it stands. */
export type Document = { where: string } & ({ text: string } | { ids: readonly number[] });

export interface DocumentOptions {
  /** Field or column that holds the text; `text` by default. */
  textColumn?: string;
}

const DEFAULT_TEXT_COLUMN = "text";

type Reader = (path: string, column: string) => AsyncGenerator<Document>;

const readers: Readonly<Record<string, Reader>> = {
  ".txt": readText,
  ".jsonl": readJsonLines,
  ".csv": readCsv,
  ".parquet": readParquet,
};

const supported = Object.keys(readers).join(", ");

/**
 * Streams the documents of a file, or of the files of a folder in the order of their names (not of subfolders).
 * @throws InputError for a path that cannot be read or is of another kind, and for malformed content
 */
export async function* readDocuments(path: string, options: DocumentOptions = {}): AsyncGenerator<Document> {
  for (const file of await listFiles(path)) {
    const reader = readers[extname(file).toLowerCase()];
    if (reader === undefined) {
      throw new InputError(`Cannot read calibration file "${file}": its kind is not supported`, {
        hint: `supported are ${supported}, or a folder of them`,
      });
    }
    yield* reader(file, options.textColumn ?? DEFAULT_TEXT_COLUMN);
  }
}

async function listFiles(path: string): Promise<string[]> {
  const noun = `calibration set "${path}"`;
  if (!(await attemptRead(noun, () => stat(path))).isDirectory()) return [path];
  const names = await attemptRead(noun, () => readdir(path));
  // By code unit, so that the order does not hang on the machine's locale.
  const files = names.filter((name) => extname(name).toLowerCase() in readers).sort();
  if (files.length === 0) {
    throw new InputError(`Calibration folder "${path}" has no file of a supported kind`, {
      hint: `supported are ${supported}`,
    });
  }
  return files.map((name) => join(path, name));
}

async function* readText(path: string): AsyncGenerator<Document> {
  yield { where: `"${path}"`, text: await readWhole(path) };
}

async function* readJsonLines(path: string, column: string): AsyncGenerator<Document> {
  const schema = rowSchema(column);
  for await (const line of readLines(path, `calibration file "${path}"`)) {
    const where = `calibration file "${path}", line ${line.number}`;
    const text = decodeUtf8(line.bytes, where);
    if (text.trim() === "") continue;
    yield toDocument(parseJson(text, schema, capitalized(where)), column, `"${path}", line ${line.number}`);
  }
}

async function* readCsv(path: string, column: string): AsyncGenerator<Document> {
  const what = `calibration file "${path}"`;
  for await (const { number, fields, problem } of readCsvRows(readUserBlocks(path, what), what)) {
    if (problem !== undefined) throw new InputError(`Calibration file "${path}", row ${number}: ${problem}`);
    if (number === 1) requireColumn(Object.keys(fields), [column], path);
    yield { where: `"${path}", row ${number}`, text: fields[column] ?? "" };
  }
}

async function* readParquet(path: string, column: string): AsyncGenerator<Document> {
  const file = await readParquetRows(path, `calibration file "${path}"`);
  requireColumn(file.columns, [column, "input_ids"], path);
  const used = file.columns.includes(column) ? column : "input_ids";
  const schema = rowSchema(column);
  let index = 0;
  for await (const { [used]: row } of file.rows([used])) {
    index++;
    const where = `"${path}", row ${index}`;
    const result = schema.safeParse({ [used]: row });
    if (!result.success)
      throw new InputError(`Calibration file ${where}: column "${used}" holds no text and no token ids`);
    yield toDocument(result.data, column, where);
  }
}

/** A row with text under `column` or ids under `input_ids`; text wins, ids may be another tokenizer's. */
function rowSchema(column: string) {
  const ids = z.array(z.int()).optional();
  return z
    .looseObject({ [column]: z.string().optional(), input_ids: ids })
    .refine((row) => row[column] !== undefined || row.input_ids !== undefined, {
      message: `has neither "${column}" nor "input_ids"`,
    }) as z.ZodType<Record<string, unknown>>;
}

function toDocument(row: Record<string, unknown>, column: string, where: string): Document {
  const text = row[column];
  return typeof text === "string" ? { where, text } : { where, ids: z.array(z.int()).parse(row.input_ids) };
}

function requireColumn(present: readonly string[], wanted: readonly string[], path: string): void {
  if (wanted.some((name) => present.includes(name))) return;
  throw new InputError(`Calibration file "${path}" has no column ${wanted.map((name) => `"${name}"`).join(" or ")}`, {
    hint: `its columns are ${present.map((name) => `"${name}"`).join(", ")}; choose one with --text-column`,
  });
}

function readWhole(path: string): Promise<string> {
  return readWholeText(path, `calibration file "${path}"`, { limit: LARGEST_WHOLE_FILE });
}
