/** What a data file is: by its first bytes, and by its name only where those say nothing. */
import { extname } from "node:path";

/** What is read. `packed` kinds hold another one. */
export type DataFormat = "gzip" | "zstd" | "zip" | "parquet" | "json" | "jsonl" | "csv" | "tsv" | "text";

/** A format that is known by name and not read, and the way to one that is. */
export interface RefusedFormat {
  /** After the file's name: `is packed with bzip2`. */
  problem: string;
  hint: string;
}

export const SUPPORTED =
  "supported are json, jsonl, csv, tsv and parquet, each also as .gz or .zst, in a zip, or in a folder";

/** Bytes of a file's head that `detectFormat` wants to see. */
export const HEAD_BYTES = 1024;

const records: Readonly<Record<string, DataFormat>> = {
  ".json": "json",
  ".jsonl": "jsonl",
  ".ndjson": "jsonl",
  ".csv": "csv",
  ".tsv": "tsv",
  ".parquet": "parquet",
  ".pq": "parquet",
};

const packed: Readonly<Record<string, DataFormat>> = { ".gz": "gzip", ".zst": "zstd", ".zip": "zip" };

/** Extensions of plain text that count as data even among other files. */
const textExtensions = [".txt", ".text", ".raw"];

const convert = (what: string): string =>
  `write it as Parquet or JSONL first: ${what}, in Python's datasets (docs/data.md)`;

/** Formats that are told by their first bytes (`magic`, each byte a character) or, where those say nothing, by their name. */
const refused: readonly (RefusedFormat & {
  extensions?: readonly string[];
  magic?: readonly string[];
  starts?: (head: Buffer) => boolean;
})[] = [
  {
    problem: "is a pointer of Git LFS, not the data itself",
    hint: "download the file: git lfs pull, or hf download",
    magic: ["version https://git-lfs.github.com/spec/"],
  },
  {
    problem: "is packed with bzip2",
    hint: "unpack it: bunzip2 --keep FILE",
    extensions: [".bz2"],
    starts: (head) => /^BZh[1-9]1AY&SY/.test(head.toString("latin1", 0, 10)),
  },
  {
    problem: "is packed with xz",
    hint: "unpack it: unxz --keep FILE",
    extensions: [".xz", ".lzma"],
    magic: ["\xfd7zXZ\0"],
  },
  { problem: "is packed with lz4", hint: "unpack it: unlz4 FILE", extensions: [".lz4"], magic: ["\x04\x22\x4d\x18"] },
  { problem: "is a 7z archive", hint: "unpack it: 7z x FILE", extensions: [".7z"], magic: ["7z\xbc\xaf\x27\x1c"] },
  { problem: "is a rar archive", hint: "unpack it", extensions: [".rar"], magic: ["Rar!"] },
  {
    problem: "is a tar archive",
    hint: "unpack it: tar xf FILE, then give the folder",
    extensions: [".tar", ".tgz"],
    starts: (head) => head.toString("latin1", 257, 262) === "ustar",
  },
  {
    problem: "is an Arrow file",
    hint: convert('Dataset.from_file("FILE").to_parquet("data.parquet"), or load_from_disk for a folder of them'),
    extensions: [".arrow", ".feather"],
    magic: ["ARROW1", "FEA1", "\xff\xff\xff\xff"],
  },
  { problem: "is an Avro file", hint: "write it as Parquet or JSONL", extensions: [".avro"], magic: ["Obj\x01"] },
  { problem: "is an ORC file", hint: "write it as Parquet or JSONL", extensions: [".orc"], magic: ["ORC"] },
  { problem: "is an encrypted Parquet file", hint: "decrypt it", magic: ["PARE"] },
  {
    problem: "is a SQLite database",
    hint: "write the table as CSV: sqlite3 -header -csv FILE 'select * from ...'",
    extensions: [".sqlite", ".db"],
    magic: ["SQLite format 3\0"],
  },
  {
    problem: "is an array of NumPy",
    hint: "write the ids as JSON: json.dump(array.tolist(), file)",
    extensions: [".npy", ".npz"],
    magic: ["\x93NUMPY"],
  },
  {
    problem: "is a pickle of Python",
    hint: "a pickle can run programs and is never read: write the data as JSON or JSONL",
    extensions: [".pkl", ".pickle", ".pt", ".pth"],
    magic: ["\x80\x02", "\x80\x03", "\x80\x04", "\x80\x05"],
  },
  {
    problem: "is an HDF5 file",
    hint: "write it as Parquet or JSONL",
    extensions: [".h5", ".hdf5"],
    magic: ["\x89HDF"],
  },
  { problem: "is a PDF", hint: "write its text to a .txt file", extensions: [".pdf"], magic: ["%PDF-"] },
  {
    problem: "is a file of weights, not of data",
    hint: "MODEL is the first argument; -c and --data take text and records",
    extensions: [".safetensors", ".gguf", ".onnx"],
    magic: ["GGUF"],
    starts: (head) => head.toString("latin1", 8, 10) === '{"' && head.readUIntLE(2, 6) === 0,
  },
  { problem: "is a spreadsheet", hint: "save it as CSV", extensions: [".xlsx", ".xls", ".ods"] },
  { problem: "is a TFRecord file", hint: "write it as JSONL", extensions: [".tfrecord"] },
  {
    problem: "is a web page",
    hint: "a download can end at a page that asks to log in; save the data itself",
    starts: (head) => /^(\xef\xbb\xbf)?\s*<(!doctype html|html)/i.test(head.toString("latin1", 0, 200)),
  },
];

/** The format that has such a name. */
const refusedByName = (extension: string) => refused.find(({ extensions }) => extensions?.includes(extension));

function begins(head: Buffer, magic: string): boolean {
  return head.toString("latin1", 0, magic.length) === magic;
}

/**
 * @param head the first bytes, `HEAD_BYTES` of them where there are so many
 * @param name the file's name, without the extension of what it was packed with
 */
export function detectFormat(head: Buffer, name: string): DataFormat | RefusedFormat {
  if (begins(head, "\x1f\x8b")) return "gzip";
  if (begins(head, "\x28\xb5\x2f\xfd") || isSkippableFrame(head)) return "zstd";
  if (begins(head, "PK\x03\x04") || begins(head, "PK\x05\x06")) return "zip";
  if (begins(head, "PAR1")) return "parquet";
  const isKnown = ({ magic = [], starts }: (typeof refused)[number]): boolean =>
    magic.some((one) => begins(head, one)) || starts?.(head) === true;
  const known = head.length > 9 ? refused.find(isKnown) : undefined;
  if (known !== undefined) return known;
  const extension = extname(name).toLowerCase();
  const promised = records[extension] ?? packed[extension];
  if (promised === "parquet" || (promised !== undefined && extension in packed)) {
    return {
      problem: `is no ${promised} file, though its name says so`,
      hint: "is it damaged, or only part of it here?",
    };
  }
  if (promised !== undefined) return promised;
  const named = refusedByName(extension);
  if (named !== undefined) return named;
  if (isUtf16(head) || !isBinary(head)) {
    return !textExtensions.includes(extension) && startsLikeJson(head) ? "json" : "text";
  }
  return { problem: "is of no kind that is known", hint: `${SUPPORTED}; text as UTF-8 or UTF-16` };
}

/** Zstandard allows frames of other data before its own. */
function isSkippableFrame(head: Buffer): boolean {
  return ((head[0] ?? 0) & 0xf0) === 0x50 && begins(head.subarray(1), "\x2a\x4d\x18");
}

/** Has it a byte order mark of UTF-16? (The one of UTF-32 begins alike.) */
export function isUtf16(head: Buffer): boolean {
  return begins(head, "\xfe\xff") || (begins(head, "\xff\xfe") && !begins(head.subarray(2), "\0\0"));
}

/** No text has these bytes, in no encoding that is read. */
function isBinary(head: Buffer): boolean {
  return head.some(
    (byte) => byte < 0x20 && ![0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f].includes(byte),
  );
}

function startsLikeJson(head: Buffer): boolean {
  return /^(\xef\xbb\xbf)?\s*(\{\s*["}]|\[\s*["{[\]\d-])/.test(head.toString("latin1"));
}

/** The name without the extension of what the file is packed with. */
export function unpackedName(name: string): string {
  return /\.(gz|zst)$/i.test(name) ? name.slice(0, name.lastIndexOf(".")) : name;
}

/** Why a README is left alone. */
export const NO_DATA = "no data";

/** What a file among others is taken for, by its name alone: data, text, or why it is left alone. */
export function kindByName(name: string): "records" | "text" | { leftOut: string } {
  const base = name.slice(name.lastIndexOf("/") + 1);
  const extension = extname(unpackedName(base)).toLowerCase();
  if (isAboutData(base)) return { leftOut: NO_DATA };
  if (extension in records || extname(base).toLowerCase() in packed) {
    return textExtensions.includes(extension) ? "text" : "records";
  }
  if (textExtensions.includes(extension)) return "text";
  const known = refusedByName(extension);
  return { leftOut: known === undefined ? "no data file by its name" : known.problem };
}

/** Files that lie beside data and describe it. */
function isAboutData(base: string): boolean {
  return (
    /^(readme|license|licence|citation|changelog|notice)\b/i.test(base) ||
    /^(dataset_infos?|dataset_dict|state|manifest|package|config|tokenizer(_config)?)\.json$/i.test(base)
  );
}
