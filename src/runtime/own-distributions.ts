/**
 * What the KL objective keeps of the model's own next-token distributions: rows by place, in memory up to a limit and in a
 * temporary file beyond it. The file has no name once it is open: it goes with the process, whatever ends that.
 */
import { type FileHandle, mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RuntimeFailure } from "../base/errors.ts";
import { describeSystemError, systemErrorCode } from "../base/files.ts";

export class OwnDistributions {
  readonly #limit: number;
  readonly #inMemory = new Map<number, Float32Array>();
  readonly #inFile = new Map<number, { position: number; bytes: number }>();
  #memoryBytes = 0;
  #fileBytes = 0;
  #file: Promise<FileHandle> | undefined;

  /** @param limit bytes of memory */
  constructor(limit: number) {
    this.#limit = limit;
  }

  has(place: number): boolean {
    return this.#inMemory.has(place) || this.#inFile.has(place);
  }

  /** @throws RuntimeFailure where the temporary file cannot be written */
  async set(place: number, rows: Float32Array): Promise<void> {
    this.delete(place);
    if (this.#memoryBytes + rows.byteLength <= this.#limit) {
      this.#memoryBytes += rows.byteLength;
      this.#inMemory.set(place, rows);
      return;
    }
    const position = this.#fileBytes;
    await attempt("write", async () => {
      const file = await this.#open();
      let done = 0;
      while (done < rows.byteLength) {
        const left = new Uint8Array(rows.buffer, rows.byteOffset + done, rows.byteLength - done);
        done += (await file.write(left, 0, left.length, position + done)).bytesWritten;
      }
    });
    this.#fileBytes += rows.byteLength;
    this.#inFile.set(place, { position, bytes: rows.byteLength });
  }

  /** @throws RuntimeFailure where the temporary file cannot be read */
  async get(place: number): Promise<Float32Array | undefined> {
    const entry = this.#inFile.get(place);
    if (entry === undefined) return this.#inMemory.get(place);
    const rows = new Float32Array(entry.bytes / Float32Array.BYTES_PER_ELEMENT);
    await attempt("read", async () => {
      const file = await this.#open();
      for (let done = 0; done < entry.bytes; ) {
        const left = new Uint8Array(rows.buffer, done);
        const { bytesRead } = await file.read(left, 0, left.length, entry.position + done);
        if (bytesRead === 0) throw new Error("a temporary file became shorter");
        done += bytesRead;
      }
    });
    return rows;
  }

  delete(place: number): void {
    this.#memoryBytes -= this.#inMemory.get(place)?.byteLength ?? 0;
    this.#inMemory.delete(place);
    this.#inFile.delete(place);
  }

  clear(): void {
    this.#inMemory.clear();
    this.#inFile.clear();
    this.#memoryBytes = 0;
    this.#fileBytes = 0;
  }

  async release(): Promise<void> {
    this.clear();
    await (await this.#file)?.close();
    this.#file = undefined;
  }

  #open(): Promise<FileHandle> {
    this.#file ??= openNameless();
    return this.#file;
  }
}

async function openNameless(): Promise<FileHandle> {
  const folder = await mkdtemp(join(tmpdir(), "indexcache-"));
  const file = await open(join(folder, "distributions"), "wx+");
  await rm(folder, { recursive: true });
  return file;
}

async function attempt(verb: string, operation: () => Promise<void>): Promise<void> {
  try {
    await operation();
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === undefined) throw error;
    throw new RuntimeFailure(`Cannot ${verb} a temporary file in "${tmpdir()}": ${describeSystemError(code)}`, {
      hint: "set TMPDIR to a folder with room, or allow more memory",
      cause: error,
    });
  }
}
