/** The files of a zip, read in place: nothing is extracted, so a name can lead nowhere. */
import { crc32 } from "node:zlib";
import yauzl, { type Entry, type ZipFile } from "yauzl";
import { InputError } from "../../base/errors.ts";
import { quoted } from "../../base/quoted.ts";
import { requireRegularFile } from "../../base/user-files.ts";
import { capitalized } from "../../base/words.ts";
import { attempt, readingFailure } from "./byte-streams.ts";

export interface ZippedFile {
  name: string;
  open(): AsyncGenerator<Buffer>;
}

/** No benchmark has a file of this size; a bomb has. */
const LARGEST_FILE = 64 * 2 ** 30;

/**
 * Files of a zip in the order of their names; folders, hidden files and what macOS adds are left out.
 * @param what the noun of messages: `file "data.zip"`
 * @param most names above which it is refused
 * @throws InputError for a file that is no zip or is cut off, for names that lead out of it, and beyond the limits
 */
export async function listZip(path: string, what: string, most: number): Promise<ZippedFile[]> {
  await requireRegularFile(path, what);
  const files: ZippedFile[] = [];
  await withZip(path, what, async (zip) => {
    if (zip.entryCount > most) {
      throw new InputError(`${capitalized(what)} holds ${zip.entryCount} files, more than the ${most} that are read`, {
        hint: "join its files, as JSONL for one",
      });
    }
    for await (const entry of zip.eachEntry()) {
      const { fileName: name, uncompressedSize } = entry as Entry;
      if (name.endsWith("/") || name.startsWith("__MACOSX/") || /(^|\/)\./.test(name)) continue;
      if (uncompressedSize > LARGEST_FILE) {
        throw new InputError(
          `${capitalized(what)}: ${quoted(name)} unpacks to ${uncompressedSize} bytes, which is not believed`,
        );
      }
      if ((entry as Entry).isEncrypted()) throw new InputError(`${capitalized(what)}: ${quoted(name)} is encrypted`);
      files.push({ name, open: () => readEntry(path, entry as Entry, what) });
    }
  });
  return files.sort((a, b) => (a.name < b.name ? -1 : 1));
}

const HINT = "is the zip complete?";

/** yauzl checks sizes as the bytes come, checksums are compared here. */
async function* readEntry(path: string, entry: Entry, what: string): AsyncGenerator<Buffer> {
  const noun = `Cannot read ${quoted(entry.fileName)} of ${what}`;
  const zip = await openZip(path, what);
  try {
    const stream = await attempt(noun, () => zip.openReadStreamPromise(entry), HINT);
    try {
      let checksum = 0;
      for await (const block of stream) {
        checksum = crc32(block as Buffer, checksum);
        yield block as Buffer;
      }
      if (checksum !== entry.crc32) throw new Error("its checksum does not match its content");
    } catch (error) {
      throw readingFailure(noun, error, HINT);
    } finally {
      stream.destroy();
    }
  } finally {
    zip.close();
  }
}

function openZip(path: string, what: string): Promise<ZipFile> {
  return attempt(`Cannot read ${what}`, () => yauzl.openPromise(path, { autoClose: false }), HINT);
}

async function withZip(path: string, what: string, use: (zip: ZipFile) => Promise<void>): Promise<void> {
  const zip = await openZip(path, what);
  try {
    await attempt(`Cannot read ${what}`, () => use(zip), HINT);
  } finally {
    zip.close();
  }
}
