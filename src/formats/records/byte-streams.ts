/** Streams of bytes out of packed files, and into UTF-8. */
import { pipeline, Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { InputError } from "../../base/errors.ts";
import { capitalized } from "../../base/words.ts";
import { HEAD_BYTES, isUtf16 } from "./data-format.ts";

export interface PeekedStream {
  /** The first bytes, `HEAD_BYTES` at least where there are so many. */
  head: Buffer;
  /** The whole stream, its head included. */
  blocks: AsyncIterable<Buffer>;
  /** Has to be called, whether the stream was read or not. */
  close(): Promise<void>;
}

/** Looks at the head of a stream. */
export async function peek(stream: AsyncIterable<Buffer>): Promise<PeekedStream> {
  const iterator = stream[Symbol.asyncIterator]();
  const first: Buffer[] = [];
  let size = 0;
  let ended = false;
  while (size < HEAD_BYTES && !ended) {
    const next = await iterator.next();
    if (next.done === true) ended = true;
    else {
      first.push(next.value);
      size += next.value.length;
    }
  }
  const head = Buffer.concat(first);
  const all = async function* (): AsyncGenerator<Buffer> {
    if (head.length > 0) yield head;
    for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) yield next.value;
  };
  return { head, blocks: all(), close: async () => void (await iterator.return?.()) };
}

/**
 * All members of a gzip stream.
 * @throws InputError where it is cut off, damaged, or followed by something else
 */
export async function* gunzip(blocks: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer> {
  const unpacked = pipeline(Readable.from(blocks), createGunzip({ chunkSize: 1 << 18 }), () => {
    // Errors come out of the stream itself.
  });
  try {
    for await (const block of unpacked) yield block as Buffer;
  } catch (error) {
    throw unpackingFailure(what, error);
  } finally {
    unpacked.destroy();
  }
}

/** A stream that cannot be unpacked, and why. */
export function unpackingFailure(what: string, error: unknown): InputError {
  return readingFailure(`Cannot unpack ${what}`, error);
}

/** What a library says of a file that it cannot read, after the beginning of a sentence. */
export function readingFailure(sentence: string, error: unknown, hint = "is it cut off or damaged?"): InputError {
  if (error instanceof InputError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new InputError(`${sentence}: ${reason}`, { hint, cause: error });
}

/** Runs what a library does, with its errors in words. */
export async function attempt<T>(sentence: string, operation: () => Promise<T>, hint?: string): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    throw readingFailure(sentence, error, hint);
  }
}

/** The same text in UTF-8 where a byte order mark says that it is UTF-16. */
export async function* inUtf8(blocks: AsyncIterable<Buffer>, head: Buffer, what: string): AsyncGenerator<Buffer> {
  if (!isUtf16(head)) {
    yield* blocks;
    return;
  }
  const decoder = new TextDecoder(head[0] === 0xff ? "utf-16le" : "utf-16be", { fatal: true });
  try {
    for await (const block of blocks) yield Buffer.from(decoder.decode(block, { stream: true }));
    yield Buffer.from(decoder.decode());
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new InputError(`${capitalized(what)} is not valid UTF-16`, { hint: "is it cut off?", cause: error });
  }
}

/**
 * All of a stream.
 * @throws InputError for more than `limit` bytes
 */
export async function readAll(
  blocks: AsyncIterable<Buffer>,
  limit: number,
  what: string,
  hint: string,
): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const block of blocks) {
    size += block.length;
    if (size > limit) {
      throw new InputError(`${capitalized(what)} has more than ${Math.round(limit / 2 ** 20)} MiB`, { hint });
    }
    parts.push(block);
  }
  return Buffer.concat(parts);
}
