/**
 * Hidden states of all sequences at one layer boundary, rounded to bfloat16: in memory or in a file, with the same bytes.
 * A model that no memory holds is distilled group by group between two such files.
 */
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { InputError, RuntimeFailure } from "../../base/errors.ts";
import { describeSystemError, systemErrorCode } from "../../base/files.ts";

export interface BoundaryShape {
  sequences: number;
  /** Tokens of a sequence. */
  length: number;
  hiddenSize: number;
}

/** Bytes of the states of all sequences. */
export function boundaryBytes({ sequences, length, hiddenSize }: BoundaryShape): number {
  return 2 * sequences * length * hiddenSize;
}

export interface BoundaryStates {
  readonly shape: BoundaryShape;
  /**
   * Puts the states of neighbouring sequences, `[sequences * length, hidden_size]`, into their places from `first` on. What
   * was put last has to be there before more is.
   */
  write(first: number, states: Float32Array): Promise<void>;
  /** Bits of the states of some sequences, one after the other. */
  read(sequences: readonly number[]): Promise<Uint16Array<ArrayBuffer>>;
  close(): Promise<void>;
}

export class StatesInMemory implements BoundaryStates {
  readonly shape: BoundaryShape;
  readonly #values: Uint16Array;

  constructor(shape: BoundaryShape) {
    this.shape = shape;
    this.#values = new Uint16Array(boundaryBytes(shape) / 2);
  }

  async write(first: number, states: Float32Array): Promise<void> {
    this.#values.set(toBfloat16(states), first * elements(this.shape));
  }

  async read(sequences: readonly number[]): Promise<Uint16Array<ArrayBuffer>> {
    const size = elements(this.shape);
    const result = new Uint16Array(sequences.length * size);
    for (const [place, sequence] of sequences.entries()) {
      result.set(this.#values.subarray(sequence * size, (sequence + 1) * size), place * size);
    }
    return result;
  }

  async close(): Promise<void> {}
}

export class StatesInFile implements BoundaryStates {
  readonly shape: BoundaryShape;
  readonly path: string;
  readonly #file: FileHandle;
  /** SHA-256 of the sequences that are known. */
  readonly #digests: (Uint8Array | undefined)[] = [];
  /** Bits on their way to the file: fresh memory costs as much time as filling it. */
  #scratch = new Uint16Array(0);

  private constructor(path: string, shape: BoundaryShape, file: FileHandle) {
    this.path = path;
    this.shape = shape;
    this.#file = file;
  }

  static async create(path: string, shape: BoundaryShape): Promise<StatesInFile> {
    return new StatesInFile(path, shape, await open(path, "w+").catch((error) => cannotWrite(path, error)));
  }

  /**
   * @param hash what `hash` said when the file was complete
   * @returns undefined where there is no file any more
   * @throws InputError where the file is another one
   */
  static async reopen(path: string, shape: BoundaryShape, hash: string): Promise<StatesInFile | undefined> {
    const file = await open(path, "r").catch((error: unknown) => {
      if (systemErrorCode(error) === "ENOENT") return undefined;
      throw error;
    });
    if (file === undefined) return undefined;
    const states = new StatesInFile(path, shape, file);
    const { size } = await states.#file.stat();
    if (size !== boundaryBytes(shape) || (await states.hash()) !== hash) {
      await states.close();
      throw new InputError(
        `"${path}" has changed since the journal was written: its states are not those of this run`,
        {
          hint: "start again with --fresh",
        },
      );
    }
    return states;
  }

  async write(first: number, states: Float32Array): Promise<void> {
    if (this.#scratch.length < states.length) this.#scratch = new Uint16Array(states.length);
    toBfloat16(states, this.#scratch);
    const bytes = new Uint8Array(this.#scratch.buffer, 0, 2 * states.length);
    const size = 2 * elements(this.shape);
    const put = async (): Promise<void> => {
      for (let written = 0; written < bytes.length; ) {
        const left = bytes.length - written;
        const put = this.#file.write(bytes, written, left, first * size + written);
        written += (await put.catch((error) => cannotWrite(this.path, error))).bytesWritten;
      }
    };
    const digested = Array.from({ length: bytes.length / size }, async (_, place) => {
      this.#digests[first + place] = await digestOf(bytes.subarray(place * size, (place + 1) * size));
    });
    await Promise.all([put(), ...digested]);
  }

  async read(sequences: readonly number[]): Promise<Uint16Array<ArrayBuffer>> {
    const size = elements(this.shape);
    const result = new Uint16Array(sequences.length * size);
    const fill = async (sequence: number, place: number): Promise<void> => {
      const bytes = new Uint8Array(result.buffer, 2 * place * size, 2 * size);
      for (let filled = 0; filled < bytes.length; ) {
        const at = sequence * bytes.length + filled;
        const { bytesRead } = await this.#file.read(bytes, filled, bytes.length - filled, at);
        if (bytesRead === 0) throw new InputError(`"${this.path}" ends before the states of sequence ${sequence}`);
        filled += bytesRead;
      }
    };
    await Promise.all(sequences.map(fill));
    return result;
  }

  /** SHA-256 over those of all sequences, one after the other; of what was written here nothing is read again. */
  async hash(): Promise<string> {
    const { sequences } = this.shape;
    for (let first = 0; first < sequences; first += readTogether) {
      const numbers = Array.from({ length: Math.min(readTogether, sequences - first) }, (_, place) => first + place);
      const digest = async (sequence: number): Promise<void> => {
        this.#digests[sequence] ??= await digestOf(await this.read([sequence]));
      };
      await Promise.all(numbers.map(digest));
    }
    const whole = createHash("sha256");
    for (const digest of this.#digests) whole.update(digest ?? "");
    return whole.digest("hex");
  }

  /** Makes sure that the bytes are on the disk. */
  async sync(): Promise<void> {
    await this.#file.sync().catch((error) => cannotWrite(this.path, error));
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** Sequences whose bytes are read at a time to be hashed. */
const readTogether = 16;

/** SHA-256, off the main thread, which a run of a session blocks. */
async function digestOf(bytes: Uint8Array<ArrayBuffer> | Uint16Array<ArrayBuffer>): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

/** @throws RuntimeFailure for what the system refuses: a full disk, a quota */
function cannotWrite(path: string, error: unknown): never {
  const code = systemErrorCode(error);
  if (code === undefined) throw error;
  throw new RuntimeFailure(`Cannot write "${path}": ${describeSystemError(code)}`, {
    hint: "make room and continue with --resume, or start again with --work on another disk",
    cause: error,
  });
}

function elements({ length, hiddenSize }: BoundaryShape): number {
  return length * hiddenSize;
}

/** Rounds to the nearest bfloat16, ties to even, into `rounded`. */
export function toBfloat16(values: Float32Array, rounded = new Uint16Array(values.length)): Uint16Array<ArrayBuffer> {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i] as number;
    rounded[i] = (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return rounded;
}

/** Numbers of bfloat16 bits: the upper halves of float32, on a machine of little-endian order (safetensors ask for one). */
export function fromBfloat16(values: Uint16Array): Float32Array {
  const numbers = new Float32Array(values.length);
  const halves = new Uint16Array(numbers.buffer);
  for (let i = 0; i < values.length; i++) halves[2 * i + 1] = values[i] as number;
  return numbers;
}
