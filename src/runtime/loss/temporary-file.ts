/**
 * A file for arrays that memory has no room for. It has no name once it is open: it goes with the process, whatever ends
 * that. Regions that are free again are written anew.
 */
import { type FileHandle, open, rm, statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { IndexCacheError, RuntimeFailure } from "../../base/errors.ts";
import { describeSystemError, makeTemporaryFolder, systemErrorCode } from "../../base/files.ts";

/** Where an array lies in the file. */
export interface Region {
  readonly position: number;
  readonly byteLength: number;
}

/** `f_type` of a file system whose files are in memory. */
const tmpfs = 0x01021994;

export class TemporaryFile {
  #file: Promise<FileHandle> | undefined;
  #end = 0;
  /** Positions by size: states of a model come in few sizes. */
  readonly #free = new Map<number, number[]>();

  /** @throws RuntimeFailure where the file cannot be written, on a full disk for one */
  async write(array: ArrayBufferView): Promise<Region> {
    const { byteLength } = array;
    const position = this.#free.get(byteLength)?.pop() ?? this.#end;
    if (position === this.#end) this.#end += byteLength;
    await this.#attempt("write", async (file) => {
      for (let done = 0; done < byteLength; ) {
        const rest = new Uint8Array(array.buffer, array.byteOffset + done, byteLength - done);
        done += (await file.write(rest, 0, rest.length, position + done)).bytesWritten;
      }
    });
    return { position, byteLength };
  }

  /** Fills `into` from the front of a region. */
  async read<A extends ArrayBufferView>({ position }: Region, into: A): Promise<A> {
    await this.#attempt("read", async (file) => {
      for (let done = 0; done < into.byteLength; ) {
        const rest = new Uint8Array(into.buffer, into.byteOffset + done, into.byteLength - done);
        const { bytesRead } = await file.read(rest, 0, rest.length, position + done);
        if (bytesRead === 0) throw new Error("a temporary file has become shorter");
        done += bytesRead;
      }
    });
    return into;
  }

  free({ position, byteLength }: Region): void {
    const positions = this.#free.get(byteLength);
    if (positions === undefined) this.#free.set(byteLength, [position]);
    else positions.push(position);
  }

  async release(): Promise<void> {
    await (await this.#file)?.close();
    this.#file = undefined;
  }

  async #attempt(verb: string, operation: (file: FileHandle) => Promise<void>): Promise<void> {
    try {
      this.#file ??= openNameless();
      await operation(await this.#file);
    } catch (error) {
      const code = systemErrorCode(error);
      if (code === undefined || error instanceof IndexCacheError) throw error;
      throw new RuntimeFailure(`Cannot ${verb} a temporary file in "${tmpdir()}": ${describeSystemError(code)}`, {
        hint: "set TMPDIR to a folder with room",
        cause: error,
      });
    }
  }
}

/** Bytes that are free where temporary files lie; none where these would be in memory themselves. */
export async function freeTemporaryBytes(): Promise<number> {
  try {
    const { type, bavail, bsize } = await statfs(tmpdir());
    return type === tmpfs ? 0 : bavail * bsize;
  } catch {
    return 0;
  }
}

async function openNameless(): Promise<FileHandle> {
  const folder = await makeTemporaryFolder("states");
  const file = await open(join(folder, "arrays"), "wx+");
  await rm(folder, { recursive: true });
  return file;
}
