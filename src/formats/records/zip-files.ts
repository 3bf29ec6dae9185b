/** The files of a zip, read in place: nothing is extracted, so a name can lead nowhere. */
import yauzl, { type Entry, type ZipFile } from "yauzl";
import { InputError } from "../../base/errors.ts";
import { capitalized } from "../../base/words.ts";

export interface ZippedFile {
  name: string;
  open(): AsyncGenerator<Buffer>;
}

/** No benchmark has a file of this size; a bomb has. */
const LARGEST_FILE = 64 * 2 ** 30;
const MOST_FILES = 100_000;

/**
 * Files of a zip in the order of their names; folders and what macOS adds are left out.
 * @param what the noun of messages: `file "data.zip"`
 * @throws InputError for a file that is no zip or is cut off, for names that lead out of it, and beyond the size limits
 */
export async function listZip(path: string, what: string): Promise<ZippedFile[]> {
  const files: ZippedFile[] = [];
  await withZip(path, what, async (zip) => {
    if (zip.entryCount > MOST_FILES) throw new InputError(`${capitalized(what)} holds more than ${MOST_FILES} files`);
    for await (const entry of zip.eachEntry()) {
      const { fileName: name, uncompressedSize } = entry as Entry;
      if (name.endsWith("/") || name.startsWith("__MACOSX/") || /(^|\/)\./.test(name)) continue;
      if (uncompressedSize > LARGEST_FILE) {
        throw new InputError(
          `${capitalized(what)}: "${name}" unpacks to ${uncompressedSize} bytes, which is not believed`,
        );
      }
      if ((entry as Entry).isEncrypted()) throw new InputError(`${capitalized(what)}: "${name}" is encrypted`);
      files.push({ name, open: () => readEntry(path, name, what) });
    }
  });
  return files.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** yauzl checks sizes and checksums as the bytes come. */
async function* readEntry(path: string, name: string, what: string): AsyncGenerator<Buffer> {
  const zip = await attempt(what, () => yauzl.openPromise(path, { autoClose: false }));
  try {
    const entry = await attempt(what, () => find(zip, name));
    const stream = await attempt(`"${name}" of ${what}`, () => zip.openReadStreamPromise(entry));
    try {
      for await (const block of stream) yield block as Buffer;
    } catch (error) {
      throw asInputError(`"${name}" of ${what}`, error);
    } finally {
      stream.destroy();
    }
  } finally {
    zip.close();
  }
}

async function find(zip: ZipFile, name: string): Promise<Entry> {
  for await (const entry of zip.eachEntry()) if (entry.fileName === name) return entry;
  throw new Error(`it has no file "${name}" any more`);
}

async function withZip(path: string, what: string, use: (zip: ZipFile) => Promise<void>): Promise<void> {
  const zip = await attempt(what, () => yauzl.openPromise(path, { autoClose: false }));
  try {
    await attempt(what, () => use(zip));
  } finally {
    zip.close();
  }
}

async function attempt<T>(what: string, operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    throw asInputError(what, error);
  }
}

function asInputError(what: string, error: unknown): InputError {
  if (error instanceof InputError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new InputError(`Cannot read ${what}: ${reason}`, { hint: "is the zip complete?", cause: error });
}
