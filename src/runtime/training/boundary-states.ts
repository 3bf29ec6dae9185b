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
  /** Puts the states of one sequence, `[length, hidden_size]`, into its place. */
  write(sequence: number, states: Float32Array): Promise<void>;
  /** Bits of the states of some sequences, one after the other. */
  read(sequences: readonly number[]): Promise<Uint16Array>;
  close(): Promise<void>;
}

export class StatesInMemory implements BoundaryStates {
  readonly shape: BoundaryShape;
  readonly #values: Uint16Array;

  constructor(shape: BoundaryShape) {
    this.shape = shape;
    this.#values = new Uint16Array(boundaryBytes(shape) / 2);
  }

  async write(sequence: number, states: Float32Array): Promise<void> {
    this.#values.set(toBfloat16(states), sequence * elements(this.shape));
  }

  async read(sequences: readonly number[]): Promise<Uint16Array> {
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

  async write(sequence: number, states: Float32Array): Promise<void> {
    const values = toBfloat16(states);
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    let written = 0;
    while (written < bytes.length) {
      const at = sequence * bytes.length + written;
      written += (
        await this.#file
          .write(bytes, written, bytes.length - written, at)
          .catch((error) => cannotWrite(this.path, error))
      ).bytesWritten;
    }
  }

  async read(sequences: readonly number[]): Promise<Uint16Array> {
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

  /** SHA-256 of the file's bytes. */
  async hash(): Promise<string> {
    const hash = createHash("sha256");
    const part = Buffer.alloc(2 ** 22);
    for (let at = 0; ; ) {
      const { bytesRead } = await this.#file.read(part, 0, part.length, at);
      if (bytesRead === 0) return hash.digest("hex");
      hash.update(part.subarray(0, bytesRead));
      at += bytesRead;
    }
  }

  /** Makes sure that the bytes are on the disk. */
  async sync(): Promise<void> {
    await this.#file.sync();
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** @throws RuntimeFailure for what the system refuses: a full disk, a quota */
function cannotWrite(path: string, error: unknown): never {
  const code = systemErrorCode(error);
  if (code === undefined) throw error;
  throw new RuntimeFailure(`Cannot write "${path}": ${describeSystemError(code)}`, {
    hint: "make room and go on with --resume, or start again with --work on another disk",
    cause: error,
  });
}

function elements({ length, hiddenSize }: BoundaryShape): number {
  return length * hiddenSize;
}

/** Rounds to the nearest bfloat16, ties to even. */
export function toBfloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const rounded = new Uint16Array(values.length);
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
