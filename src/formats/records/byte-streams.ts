/** Streams of bytes out of packed files, and into UTF-8. */
import { pipeline, Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { Decompress } from "fzstd";
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

/** A block of zstd unpacks to 128 KiB and may take 4 bytes: so much is unpacked at a time that it stays in memory. */
const ZSTD_STEP = 1024;

/**
 * All frames of a Zstandard stream. Checksums of frames are not compared; a cut or malformed stream is found.
 * @throws InputError where it is cut off or damaged
 */
export async function* unzstd(blocks: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer> {
  let ready: Buffer[] = [];
  const decompress = new Decompress((part) => {
    if (part.length > 0) ready.push(Buffer.from(part.buffer, part.byteOffset, part.length));
  });
  const push = (part: Uint8Array, last: boolean): Buffer[] => {
    ready = [];
    try {
      decompress.push(part, last);
    } catch (error) {
      throw unpackingFailure(what, error);
    }
    return ready;
  };
  // The last push says that it is the last: one step is held back.
  let held: Buffer | undefined;
  for await (const block of blocks) {
    if (held === undefined) requireModestWindow(block, what);
    for (let at = 0; at < block.length; at += ZSTD_STEP) {
      if (held !== undefined) yield* push(held, false);
      held = block.subarray(at, at + ZSTD_STEP);
    }
  }
  yield* push(held ?? Buffer.alloc(0), true);
}

/** What the zstd command allows, too, unless it is told otherwise. */
const LARGEST_WINDOW = 2 ** 27;

/** A header of a few bytes can ask for gigabytes of memory. RFC 8878, section 3.1.1.1. */
function requireModestWindow(head: Buffer, what: string): void {
  if (head.length < 18 || head.readUInt32LE(0) !== 0xfd2fb528) return;
  const descriptor = head[4] ?? 0;
  let window: number;
  if ((descriptor & 0x20) !== 0) {
    const at = 5 + ([0, 1, 2, 4][descriptor & 3] ?? 0);
    const sizes = [() => head[at] ?? 0, () => head.readUInt16LE(at) + 256, () => head.readUInt32LE(at)];
    window = sizes[descriptor >> 6]?.() ?? Number(head.readBigUInt64LE(at));
  } else {
    const base = 2 ** (10 + ((head[5] ?? 0) >> 3));
    window = base + (base / 8) * ((head[5] ?? 0) & 7);
  }
  if (window <= LARGEST_WINDOW) return;
  throw new InputError(
    `Cannot unpack ${what}: it asks for a window of ${Math.round(window / 2 ** 20)} MiB, ${LARGEST_WINDOW / 2 ** 20} are allowed`,
    { hint: "unpack it: zstd -d --long=31 FILE" },
  );
}

function unpackingFailure(what: string, error: unknown): InputError {
  if (error instanceof InputError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new InputError(`Cannot unpack ${what}: ${reason}`, { hint: "is it cut off or damaged?", cause: error });
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
