/** Zstandard (RFC 8878): frames are told apart here, so that each is unpacked alone and its checksum compared. */
import { Decompress } from "fzstd";
import xxhash from "xxhash-wasm";
import { InputError } from "../../base/errors.ts";
import { unpackingFailure } from "./byte-streams.ts";

/** A block unpacks to 128 KiB and may take 4 bytes: so much is unpacked at a time that it stays in memory. */
const STEP = 1024;

const MAGIC = 0xfd2fb528;
const HAS_CHECKSUM = 4;
const RUN_LENGTH_BLOCK = 1;

/**
 * All frames of a Zstandard stream, frames of other data left out. fzstd unpacks and compares no checksums.
 * @throws InputError where it is cut off or damaged, or asks for too much memory
 */
export async function* unzstd(blocks: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer> {
  const { create64 } = await xxhash();
  const reader = new FrameReader();
  let ready: Buffer[] = [];
  let hash = create64();
  const open = (): Decompress =>
    new Decompress((part) => {
      if (part.length === 0) return;
      hash.update(part);
      ready.push(Buffer.from(part.buffer, part.byteOffset, part.length));
    });
  let frame = open();
  const push = (part: Uint8Array, last: boolean): Buffer[] => {
    ready = [];
    try {
      frame.push(part, last);
    } catch (error) {
      throw unpackingFailure(what, error);
    }
    return ready;
  };
  for await (const block of blocks) {
    for (const part of attempt(reader.read(block), what)) {
      if ("begins" in part) {
        requireModestWindow(part.begins, what);
        frame = open();
        hash = create64();
        yield* push(part.begins, false);
      } else if ("bytes" in part) {
        for (let at = 0; at < part.bytes.length; at += STEP) yield* push(part.bytes.subarray(at, at + STEP), false);
      } else {
        yield* push(part.ends, true);
        if (part.ends.length > 0 && Number(hash.digest() & 0xffffffffn) !== part.ends.readUInt32LE(0)) {
          throw unpackingFailure(what, new Error("its checksum does not match its content"));
        }
      }
    }
  }
  if (!reader.atEnd) throw unpackingFailure(what, new Error("unexpected end of file"));
}

/** What a frame is made of, in order: its header, blocks, and its checksum of 4 bytes or none. */
type FramePart = { begins: Buffer } | { bytes: Buffer } | { ends: Buffer };

type Field = "magic" | "skipped size" | "descriptor" | "header" | "block header" | "checksum";

/** Follows the structure of frames through blocks of any size, without unpacking anything. */
class FrameReader {
  #expected: Field = "magic";
  #field: Buffer = Buffer.alloc(0);
  #needed = 4;
  /** Header of the frame so far. */
  #header: Buffer = Buffer.alloc(0);
  /** Bytes that are part of a block's content, or of a frame of other data. */
  #content = 0;
  #skips = false;
  #isLastBlock = false;

  /** Is everything that was begun complete? */
  get atEnd(): boolean {
    return this.#expected === "magic" && this.#field.length === 0 && this.#content === 0;
  }

  *read(block: Buffer): Generator<FramePart> {
    let at = 0;
    while (at < block.length) {
      if (this.#content > 0) {
        const part = block.subarray(at, at + this.#content);
        this.#content -= part.length;
        at += part.length;
        if (!this.#skips) yield { bytes: part };
        if (this.#content === 0 && !this.#skips) yield* this.#endBlock();
        continue;
      }
      const part = block.subarray(at, at + this.#needed - this.#field.length);
      this.#field = Buffer.concat([this.#field, part]);
      at += part.length;
      if (this.#field.length < this.#needed) return;
      const field = this.#field;
      this.#field = Buffer.alloc(0);
      yield* this.#take(field);
    }
  }

  *#take(field: Buffer): Generator<FramePart> {
    switch (this.#expected) {
      case "magic": {
        const magic = field.readUInt32LE(0);
        if (magic !== MAGIC && (magic & 0xfffffff0) >>> 0 !== 0x184d2a50) throw new Error("invalid zstd data");
        this.#header = field;
        this.#expect(magic === MAGIC ? "descriptor" : "skipped size", magic === MAGIC ? 1 : 4);
        return;
      }
      case "skipped size":
        this.#content = field.readUInt32LE(0);
        this.#skips = true;
        this.#expect("magic", 4);
        return;
      case "descriptor": {
        const descriptor = field[0] ?? 0;
        const isSingleSegment = (descriptor & 0x20) !== 0;
        const dictionary = [0, 1, 2, 4][descriptor & 3] ?? 0;
        const contentSize = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
        this.#header = Buffer.concat([this.#header, field]);
        this.#expect("header", (isSingleSegment ? 0 : 1) + dictionary + contentSize);
        return;
      }
      case "header":
        this.#header = Buffer.concat([this.#header, field]);
        this.#skips = false;
        this.#expect("block header", 3);
        yield { begins: this.#header };
        return;
      case "block header": {
        const header = field.readUIntLE(0, 3);
        const size = header >>> 3;
        this.#isLastBlock = (header & 1) === 1;
        // Its one byte is repeated so many times.
        this.#content = ((header >>> 1) & 3) === RUN_LENGTH_BLOCK ? 1 : size;
        yield { bytes: field };
        if (this.#content === 0) yield* this.#endBlock();
        return;
      }
      case "checksum":
        this.#expect("magic", 4);
        yield { ends: field };
    }
  }

  *#endBlock(): Generator<FramePart> {
    if (!this.#isLastBlock) this.#expect("block header", 3);
    else if (((this.#header[4] ?? 0) & HAS_CHECKSUM) !== 0) this.#expect("checksum", 4);
    else {
      this.#expect("magic", 4);
      yield { ends: Buffer.alloc(0) };
    }
  }

  #expect(field: Field, bytes: number): void {
    this.#expected = field;
    this.#needed = bytes;
  }
}

/** The parts of a stream, with errors in words. */
function* attempt(parts: Generator<FramePart>, what: string): Generator<FramePart> {
  try {
    yield* parts;
  } catch (error) {
    throw unpackingFailure(what, error);
  }
}

/** What the zstd command allows, too, unless it is told otherwise. */
const LARGEST_WINDOW = 2 ** 27;

/** A header of a few bytes can ask for gigabytes of memory. RFC 8878, section 3.1.1.1. */
function requireModestWindow(header: Buffer, what: string): void {
  const descriptor = header[4] ?? 0;
  let window: number;
  if ((descriptor & 0x20) !== 0) {
    const at = 5 + ([0, 1, 2, 4][descriptor & 3] ?? 0);
    const sizes = [() => header[at] ?? 0, () => header.readUInt16LE(at) + 256, () => header.readUInt32LE(at)];
    window = sizes[descriptor >> 6]?.() ?? Number(header.readBigUInt64LE(at));
  } else {
    const base = 2 ** (10 + ((header[5] ?? 0) >> 3));
    window = base + (base / 8) * ((header[5] ?? 0) & 7);
  }
  if (window <= LARGEST_WINDOW) return;
  throw new InputError(
    `Cannot unpack ${what}: it asks for a window of ${Math.round(window / 2 ** 20)} MiB, ${LARGEST_WINDOW / 2 ** 20} are allowed`,
    { hint: "unpack it: zstd -d --long=31 FILE" },
  );
}
