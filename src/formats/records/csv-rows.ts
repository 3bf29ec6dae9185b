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

/**
 * @param what the noun of messages
 * @throws InputError for bytes that are not UTF-8; a row with another number of fields has its `problem`
 */
export async function* readCsvRows(blocks: AsyncIterable<Buffer>, what: string): AsyncGenerator<CsvRow> {
  const ready: CsvRow[] = [];
  let number = 0;
  let ended = false;
  let failure: unknown;
  let parser: Papa.Parser | undefined;
  let wake: () => void = () => {};
  const text = Readable.from(decode(blocks, what));
  Papa.parse<Record<string, string>>(text, {
    header: true,
    skipEmptyLines: true,
    step: ({ data, errors }, handle) => {
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
