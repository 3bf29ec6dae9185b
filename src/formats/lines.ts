/** Lines of a file as bytes, for JSONL: only `\n` ends a line (U+2028 may stand inside a JSON string). */
import { InputError } from "../base/errors.ts";
import { readUserBlocks } from "../base/user-files.ts";
import { capitalized } from "../base/words.ts";

export interface Line {
  /** From 1. */
  number: number;
  bytes: Buffer;
  /** Offset of the byte after the line's `\n`. */
  end: number;
  /** False for a last line that no `\n` ends. */
  complete: boolean;
}

/**
 * Streams the lines of a file; memory is one line and one block.
 * @param what the noun of messages: `calibration file "a.jsonl"`
 */
export function readLines(path: string, what: string): AsyncGenerator<Line> {
  return splitLines(readUserBlocks(path, what));
}

/**
 * The lines of a stream of bytes.
 * @throws InputError for a line of more than `longest` bytes
 */
export async function* splitLines(
  blocks: AsyncIterable<Buffer>,
  longest = Number.POSITIVE_INFINITY,
  what = "the file",
): AsyncGenerator<Line> {
  let pending: Buffer[] = [];
  let number = 1;
  let offset = 0;
  let lineStart = 0;
  for await (const block of blocks) {
    let start = 0;
    for (let newline = block.indexOf(10, start); newline !== -1; newline = block.indexOf(10, start)) {
      const bytes = Buffer.concat([...pending, block.subarray(start, newline)]);
      pending = [];
      start = newline + 1;
      lineStart = offset + start;
      yield { number: number++, bytes, end: offset + start, complete: true };
    }
    if (start < block.length) pending.push(block.subarray(start));
    offset += block.length;
    if (offset - lineStart > longest) {
      throw new InputError(`Line ${number} of ${what} has more than ${longest} bytes`);
    }
  }
  if (pending.length > 0) yield { number, bytes: Buffer.concat(pending), end: offset, complete: false };
}

const strict = new TextDecoder("utf-8", { fatal: true });

/**
 * Text of bytes that must be UTF-8; a byte order mark is dropped.
 * @param what where the bytes stand: `calibration file "a.jsonl", line 3`
 */
export function decodeUtf8(bytes: Uint8Array, what: string): string {
  try {
    return strict.decode(bytes);
  } catch (error) {
    throw new InputError(`${capitalized(what)} is not valid UTF-8`, {
      hint: "convert it, for one of Western Europe: iconv -f latin1 -t utf-8 FILE > NEW",
      cause: error,
    });
  }
}
