/** Rows of a CSV file with a header, streamed. */
import { Readable } from "node:stream";
import Papa from "papaparse";
import { InputError } from "../../base/errors.ts";
import { capitalized } from "../../base/words.ts";

export interface CsvRow {
  /** From 1, the header not counted. */
  number: number;
  fields: Record<string, string>;
  /** What papaparse says is wrong with the row. */
  problem?: string;
}

/** Rows are parsed ahead of their reader up to this many. */
const AHEAD = 64;

/** Characters of one row. A quote that nothing closes makes one row of all that follows. */
const LONGEST_ROW = 2 ** 24;

/**
 * @param what the noun of messages
 * @param delimiter between fields; found out from the first rows by default
 * @throws InputError for bytes that are not UTF-8, and for a row that does not end; a row with another number of fields has its `problem`
 */
export async function* readCsvRows(
  blocks: AsyncIterable<Buffer>,
  what: string,
  delimiter?: string,
): AsyncGenerator<CsvRow> {
  const ready: CsvRow[] = [];
  let number = 0;
  let ended = false;
  let failure: unknown;
  let parser: Papa.Parser | undefined;
  let wake: () => void = () => {};
  let sinceRow = 0;
  const watched = async function* (): AsyncGenerator<string> {
    for await (const part of decode(blocks, what)) {
      sinceRow += part.length;
      if (sinceRow > LONGEST_ROW + part.length) {
        throw new InputError(`${capitalized(what)}, row ${number + 1} has more than ${LONGEST_ROW} characters`, {
          hint: "is there a quotation mark that nothing closes?",
        });
      }
      yield part;
    }
  };
  const text = Readable.from(watched());
  Papa.parse<Record<string, string>>(text, {
    header: true,
    skipEmptyLines: true,
    delimiter,
    step: ({ data, errors }, handle) => {
      sinceRow = 0;
      // A single column has no delimiter to detect, which is no error.
      const error = errors.find(({ type }) => type !== "Delimiter");
      ready.push({ number: ++number, fields: data, ...(error === undefined ? {} : { problem: error.message }) });
      if (ready.length >= AHEAD) {
        parser = handle;
        handle.pause();
      }
      wake();
    },
    complete: () => {
      ended = true;
      wake();
    },
    error: (error: unknown) => {
      failure = error;
      ended = true;
      wake();
    },
  });
  try {
    for (;;) {
      const row = ready.shift();
      if (row !== undefined) {
        yield row;
        continue;
      }
      if (failure !== undefined) throw failure;
      if (ended) return;
      const woken = new Promise<void>((resolve) => {
        wake = resolve;
      });
      const paused = parser;
      parser = undefined;
      paused?.resume();
      if (ready.length === 0 && !ended) await woken;
    }
  } finally {
    text.destroy();
  }
}

async function* decode(blocks: AsyncIterable<Buffer>, what: string): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  try {
    for await (const block of blocks) yield decoder.decode(block, { stream: true });
    const rest = decoder.decode();
    if (rest !== "") yield rest;
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new InputError(`${capitalized(what)} is not valid UTF-8`, { cause: error });
  }
}
