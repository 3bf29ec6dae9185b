/** Zstandard (RFC 8878): frames are told apart here, so that each is unpacked alone and its checksum compared. */
import { Decompress } from "fzstd";
import xxhash from "xxhash-wasm";
import { InputError } from "../../base/errors.ts";
import { unpackingFailure } from "./byte-streams.ts";

/** A block unpacks to 128 KiB and may take 4 bytes: so much is unpacked at a time that it stays in memory. */
const STEP = 1024;

const MAGIC = 0xfd2fb528;
/** Frames of other data have any of sixteen magic numbers from this one on. */
const SKIPPABLE = 0x184d2a50;
const RUN_LENGTH_BLOCK = 1;

/**
 * All frames of a Zstandard stream, frames of other data left out. fzstd unpacks and compares no checksums.
 * @throws InputError where it is cut off or damaged, or asks for too much memory
 */
export async function* unzstd(blocks: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer> {
  const { create64 } = await xxhash();
  const input = new ByteReader(blocks, what);
  try {
    for (let start = await input.some(1); start.length > 0; start = await input.some(1)) {
      const magic = Buffer.concat([start, await input.take(3)]);
      if ((magic.readUInt32LE(0) & 0xfffffff0) >>> 0 === SKIPPABLE) {
        for await (const _ of input.parts((await input.take(4)).readUInt32LE(0)));
        continue;
      }
      if (magic.readUInt32LE(0) !== MAGIC) throw unpackingFailure(what, new Error("invalid zstd data"));
      yield* unpackFrame(magic);
    }
  } finally {
    await input.close();
  }

  async function* unpackFrame(magic: Buffer): AsyncGenerator<Buffer> {
    const hash = create64();
    let ready: Buffer[] = [];
    const frame = new Decompress((part) => {
      if (part.length === 0) return;
      hash.update(part);
      ready.push(Buffer.from(part.buffer, part.byteOffset, part.length));
    });
    const push = (part: Uint8Array, last = false): Buffer[] => {
      ready = [];
      try {
        frame.push(part, last);
      } catch (error) {
        throw unpackingFailure(what, error);
      }
      return ready;
    };
    const descriptor = await input.take(1);
    const form = headerForm(descriptor[0] ?? 0);
    const header = await input.take(form.windowBytes + form.dictionaryBytes + form.sizeBytes);
    requireModestWindow(header, form, what);
    yield* push(Buffer.concat([magic, descriptor, header]));
    for (let isLast = false; !isLast; ) {
      const blockHeader = await input.take(3);
      yield* push(blockHeader);
      const bits = blockHeader.readUIntLE(0, 3);
      isLast = (bits & 1) === 1;
      // One byte that is repeated so many times, or so many bytes.
      const size = ((bits >>> 1) & 3) === RUN_LENGTH_BLOCK ? 1 : bits >>> 3;
      for await (const part of input.parts(size)) {
        for (let at = 0; at < part.length; at += STEP) yield* push(part.subarray(at, at + STEP));
      }
    }
    const checksum = await input.take(form.checksumBytes);
    yield* push(checksum, true);
    if (checksum.length > 0 && Number(hash.digest() & 0xffffffffn) !== checksum.readUInt32LE(0)) {
      throw unpackingFailure(what, new Error("its checksum does not match its content"));
    }
  }
}

/** The bytes of a stream, so many at a time as whoever reads it wants next. */
class ByteReader {
  readonly #blocks: AsyncIterator<Buffer>;
  readonly #what: string;
  #block: Buffer = Buffer.alloc(0);

  constructor(blocks: AsyncIterable<Buffer>, what: string) {
    this.#blocks = blocks[Symbol.asyncIterator]();
    this.#what = what;
  }

  /** The next bytes, at most so many; none at the end. */
  async some(most: number): Promise<Buffer> {
    while (this.#block.length === 0) {
      const next = await this.#blocks.next();
      if (next.done === true) return Buffer.alloc(0);
      this.#block = next.value;
    }
    const part = this.#block.subarray(0, most);
    this.#block = this.#block.subarray(part.length);
    return part;
  }

  /** The next `count` bytes, as they come. */
  async *parts(count: number): AsyncGenerator<Buffer> {
    for (let left = count; left > 0; ) {
      const part = await this.some(left);
      if (part.length === 0) throw unpackingFailure(this.#what, new Error("unexpected end of file"));
      left -= part.length;
      yield part;
    }
  }

  async take(count: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for await (const part of this.parts(count)) parts.push(part);
    return Buffer.concat(parts);
  }

  async close(): Promise<void> {
    await this.#blocks.return?.();
  }
}

/** Bytes of a frame header's fields after its descriptor, and of the checksum at the frame's end. */
interface HeaderForm {
  windowBytes: number;
  dictionaryBytes: number;
  sizeBytes: number;
  checksumBytes: number;
}

function headerForm(descriptor: number): HeaderForm {
  const isSingleSegment = (descriptor & 0x20) !== 0;
  return {
    windowBytes: isSingleSegment ? 0 : 1,
    dictionaryBytes: [0, 1, 2, 4][descriptor & 3] ?? 0,
    sizeBytes: [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0,
    checksumBytes: (descriptor & 4) === 0 ? 0 : 4,
  };
}

/** What the zstd command allows, too, unless it is told otherwise. */
const LARGEST_WINDOW = 2 ** 27;

/** A header of a few bytes can ask for gigabytes of memory. RFC 8878, section 3.1.1.1. */
function requireModestWindow(
  header: Buffer,
  { windowBytes, dictionaryBytes, sizeBytes }: HeaderForm,
  what: string,
): void {
  let window: number;
  if (windowBytes === 0) {
    // A single segment: its window is its content.
    const size = header.subarray(dictionaryBytes);
    window = sizeBytes === 8 ? Number(size.readBigUInt64LE(0)) : size.readUIntLE(0, sizeBytes);
    if (sizeBytes === 2) window += 256;
  } else {
    const base = 2 ** (10 + ((header[0] ?? 0) >> 3));
    window = base + (base / 8) * ((header[0] ?? 0) & 7);
  }
  if (window <= LARGEST_WINDOW) return;
  throw new InputError(
    `Cannot unpack ${what}: it asks for a window of ${Math.round(window / 2 ** 20)} MiB, ${LARGEST_WINDOW / 2 ** 20} are allowed`,
    { hint: "unpack it: zstd -d --long=31 FILE" },
  );
}
