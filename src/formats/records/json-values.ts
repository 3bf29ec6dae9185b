/**
 * Splits a stream of JSON into its records without parsing it: the elements of an array, those of the array `data` of an
 * object, or values one after the other. Memory is one record and one block, so that half a gigabyte in one array
 * needs no half a gigabyte of heap (and no string longer than V8 allows). What is inside a record is JSON.parse's matter;
 * what is around the records (commas, brackets, the object) is checked here.
 */
import { InputError } from "../../base/errors.ts";
import { capitalized } from "../../base/words.ts";

export interface JsonValue {
  /** From 1, in the order of the file. */
  number: number;
  /** The line that it begins on, from 1. */
  line: number;
  bytes: Buffer;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const NEWLINE = 0x0a;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

const isBlank = (byte: number): boolean => byte === 0x20 || byte === 0x09 || byte === NEWLINE || byte === 0x0d;
const isOpening = (byte: number): boolean => byte === OPEN_ARRAY || byte === OPEN_OBJECT;
const isClosing = (byte: number): boolean => byte === CLOSE_ARRAY || byte === CLOSE_OBJECT;

/** Blanks between two records: files with indents have some dozens. */
const MOST_BLANKS = 2 ** 24;

/** The key whose array holds the records of an object. */
const DATA_KEY = "data";

/**
 * @param what the noun of messages: `file "data.json"`
 * @param longest a record of more bytes is refused
 * @throws InputError for a file that ends within a record or array, for anything but commas between records, and for a
 *   record that is too long
 */
export async function* splitJsonValues(
  blocks: AsyncIterable<Buffer>,
  what: string,
  longest: number,
): AsyncGenerator<JsonValue> {
  const splitter = new Splitter(what, longest);
  for await (const block of blocks) yield* splitter.push(block);
  yield* splitter.end();
}

class Splitter {
  readonly #what: string;
  readonly #longest: number;
  #line = 1;
  #number = 0;
  /** Inside the array of records. */
  #inArray = false;
  /** An array of records was found; there is but one. */
  #entered = false;
  /** What stood before that array, where it is `data` of an object. */
  #around: Buffer | undefined;
  /** What is read is the rest of that object, no record. */
  #discards = false;
  /** What may come next in the array: its end or a first record, a comma or its end, a record. */
  #expected: "first" | "comma" | "record" = "first";
  /** Blanks since the last record: a bomb of them has no end. */
  #blanks = 0;
  /** The value being read: its blocks, its first line, its open brackets. */
  #parts: Buffer[] = [];
  #size = 0;
  #startLine = 1;
  #depth = 0;
  #inValue = false;
  #scalar = false;
  #inString = false;
  /** Backslashes that end the part of a string in the blocks before. */
  #backslashes = 0;
  /** The last string directly inside the top object, and whether a colon followed. */
  #key = "";
  #collectsKey = false;
  #afterColon = false;

  constructor(what: string, longest: number) {
    this.#what = what;
    this.#longest = longest;
  }

  *push(block: Buffer): Generator<JsonValue> {
    let start = 0;
    let i = this.#line === 1 && this.#number === 0 && !this.#inValue ? skipMark(block) : 0;
    if (!this.#inValue) start = i;
    while (i < block.length) {
      if (this.#inString) {
        i = this.#passString(block, i);
        if (!this.#inString && this.#scalar && this.#depth === 0) yield this.#finish(block.subarray(start, i));
        continue;
      }
      const byte = block[i] as number;
      if (byte === NEWLINE) this.#line++;
      if (!this.#inValue) {
        if (isBlank(byte)) {
          if (++this.#blanks > MOST_BLANKS) throw this.#malformed("more blanks than are believed");
          i++;
          continue;
        }
        this.#blanks = 0;
        if (this.#inArray && byte === CLOSE_ARRAY && this.#expected !== "record") {
          this.#leaveArray();
          start = ++i;
        } else if (this.#inArray && byte === COMMA && this.#expected === "comma") {
          this.#expected = "record";
          i++;
        } else if (!this.#entered && this.#number === 0 && byte === OPEN_ARRAY) {
          this.#enterArray();
          i++;
        } else {
          this.#requireRecord(byte);
          start = i;
          this.#begin();
        }
        continue;
      }
      if (this.#scalar) {
        if (!isBlank(byte) && byte !== COMMA && !isClosing(byte)) i++;
        else {
          yield this.#finish(block.subarray(start, i));
          // A newline is counted already.
          if (isBlank(byte)) i++;
        }
        continue;
      }
      if (byte === QUOTE) {
        this.#inString = true;
        this.#scalar = this.#depth === 0;
        this.#collectsKey = this.#seeksData() && !this.#afterColon;
        if (this.#collectsKey) this.#key = "";
        i++;
        continue;
      }
      if (this.#seeksData()) {
        if (byte === COLON) this.#afterColon = true;
        else if (byte === COMMA) this.#afterColon = false;
        else if (byte === OPEN_ARRAY && this.#afterColon && this.#key === DATA_KEY) {
          this.#around = Buffer.concat([...this.#parts, block.subarray(start, i)]);
          this.#enterArray();
          i++;
          continue;
        }
      }
      if (isOpening(byte)) this.#depth++;
      else if (isClosing(byte)) this.#depth--;
      else if (this.#depth === 0) this.#scalar = true;
      i++;
      if (this.#depth > 0 || this.#scalar) continue;
      if (this.#discards) this.#closeAround(block.subarray(start, i));
      else yield this.#finish(block.subarray(start, i));
    }
    if (this.#inValue) this.#keep(block.subarray(start));
  }

  *end(): Generator<JsonValue> {
    if (this.#inValue && this.#scalar && !this.#inString && !this.#inArray) yield this.#finish(Buffer.alloc(0));
    if (this.#inValue || this.#inArray) {
      const inRecord = this.#inValue && !this.#discards;
      const place = inRecord
        ? `within record ${this.#number + 1} (line ${this.#startLine})`
        : "within its array or object";
      throw new InputError(`${capitalized(this.#what)} ends ${place}`, { hint: "is it cut off?" });
    }
  }

  /** Only the first value of a file can turn out to be an object around the records. */
  #seeksData(): boolean {
    return this.#number === 0 && this.#depth === 1 && !this.#entered;
  }

  #begin(): void {
    this.#inValue = true;
    this.#scalar = false;
    this.#startLine = this.#line;
    this.#depth = 0;
    this.#key = "";
    this.#afterColon = false;
  }

  /** The records are the elements of an array; what was read of the object around it is forgotten. */
  #enterArray(): void {
    this.#inValue = false;
    this.#parts = [];
    this.#size = 0;
    this.#inArray = true;
    this.#entered = true;
    this.#expected = "first";
  }

  /** After an array of records nothing more may come; between records, commas. */
  #requireRecord(byte: number): void {
    const sign = String.fromCharCode(byte);
    if (this.#entered && !this.#inArray) {
      const hint =
        byte === OPEN_ARRAY || byte === OPEN_OBJECT ? "one value a line is JSONL: name the file so" : undefined;
      throw this.#malformed(`"${sign}" after the end of its array`, hint);
    }
    if (this.#inArray && this.#expected === "comma") throw this.#malformed(`"${sign}" where a comma belongs`);
    if (isClosing(byte) || byte === COMMA || byte === COLON) throw this.#malformed(`"${sign}" where a value belongs`);
  }

  #malformed(reason: string, hint?: string): InputError {
    return new InputError(`${capitalized(this.#what)}, line ${this.#line} is not JSON: ${reason}`, { hint });
  }

  /** The object around the records has ended: without them it must be JSON, too. */
  #closeAround(last: Buffer): void {
    this.#inValue = this.#discards = false;
    const object = Buffer.concat([this.#around ?? Buffer.alloc(0), Buffer.from("[]"), ...this.#parts, last]);
    this.#parts = [];
    this.#size = 0;
    try {
      JSON.parse(object.toString());
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw this.#malformed(`the object around its records: ${reason}`);
    }
  }

  #leaveArray(): void {
    this.#inArray = false;
    if (this.#around === undefined) return;
    this.#inValue = true;
    this.#discards = true;
    this.#depth = 1;
  }

  #finish(last: Buffer): JsonValue {
    const bytes = Buffer.concat([...this.#parts, last]);
    this.#parts = [];
    this.#size = 0;
    this.#inValue = false;
    this.#scalar = false;
    this.#expected = "comma";
    this.#number++;
    return { number: this.#number, line: this.#startLine, bytes };
  }

  #keep(part: Buffer): void {
    this.#size += part.length;
    if (this.#size > this.#longest) {
      throw new InputError(
        `${capitalized(this.#what)}, record ${this.#number + 1} (line ${this.#startLine}) has more than ${this.#longest} bytes`,
      );
    }
    this.#parts.push(part);
  }

  /** Goes to the end of a string; a quote after an odd number of backslashes is no end. */
  #passString(block: Buffer, from: number): number {
    let searchFrom = from;
    for (;;) {
      const quote = block.indexOf(QUOTE, searchFrom);
      const end = quote === -1 ? block.length : quote;
      let backslashes = 0;
      while (end - 1 - backslashes >= from && block[end - 1 - backslashes] === BACKSLASH) backslashes++;
      if (end - backslashes === from) backslashes += this.#backslashes;
      if (this.#collectsKey && this.#key.length <= DATA_KEY.length) {
        this.#key += block.subarray(searchFrom, Math.min(end, searchFrom + 8)).toString("latin1");
      }
      if (quote === -1) {
        this.#backslashes = backslashes;
        return block.length;
      }
      searchFrom = quote + 1;
      if (backslashes % 2 === 0) {
        this.#backslashes = 0;
        this.#inString = false;
        return searchFrom;
      }
    }
  }
}

/** Length of a byte order mark. */
function skipMark(block: Buffer): number {
  return block[0] === 0xef && block[1] === 0xbb && block[2] === 0xbf ? 3 : 0;
}
