import { mkdtempSync, rmSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { InputError } from "../../src/base/errors.ts";
import { type DocumentOptions, readDocuments } from "../../src/calibration/documents.ts";

const parquet = join(import.meta.dirname, "parquet");

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "indexcache-documents-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Texts and ids of a path; a content is written to a file of this name first. */
async function read(name: string, content?: string | Uint8Array, options?: DocumentOptions): Promise<unknown[]> {
  const path = join(folder, name);
  if (content !== undefined) await writeFile(path, content);
  return collect(path, options);
}

async function collect(path: string, options?: DocumentOptions): Promise<unknown[]> {
  const found: unknown[] = [];
  for await (const document of readDocuments(path, options))
    found.push("text" in document ? document.text : document.ids);
  return found;
}

async function failure(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(InputError);
  return error instanceof InputError ? `${error.message} | ${error.hint ?? ""}` : "";
}

describe("readDocuments() gives", () => {
  test("a text file as one document, without its byte order mark", async () => {
    expect(await read("a.txt", "\ufeffone\n\ntwo\r\n")).toEqual(["one\n\ntwo\r\n"]);
  });

  test("JSONL lines with text or input_ids; a line separator inside a string ends nothing", async () => {
    const lines = [{ text: "a\u2028b" }, { input_ids: [1, 2] }, { text: "c", input_ids: [3], more: {} }];
    const content = lines.map((line) => JSON.stringify(line)).join("\n");
    expect(await read("a.jsonl", content)).toEqual(["a\u2028b", [1, 2], "c"]);
    expect(await read("a.JSONL", `\n${content}\r\n \n`)).toEqual(["a\u2028b", [1, 2], "c"]);
    expect(await read("b.jsonl", '{"body":"x"}', { textColumn: "body" })).toEqual(["x"]);
  });

  test("JSONL lines longer than a block", async () => {
    const long = "é".repeat(400_000);
    expect(await read("a.jsonl", `${JSON.stringify({ text: long })}\n{"text":"next"}\n`)).toEqual([long, "next"]);
  });

  test("a CSV column with quotes and line ends", async () => {
    expect(await read("a.csv", 'id,text\n1,"two\nlines, ""quoted"""\n2,plain\n')).toEqual([
      'two\nlines, "quoted"',
      "plain",
    ]);
    expect(await read("a.csv", "body\nonly\n", { textColumn: "body" })).toEqual(["only"]);
  });

  test.each(["text-zstd.parquet", "text-snappy.parquet"])("the texts of %s", async (name) => {
    expect(await collect(join(parquet, name))).toEqual(["first document", "zweites, mit é", "third"]);
  });

  test.each(["ids-int64.parquet", "ids-int32.parquet"])("the ids of %s", async (name) => {
    expect(await collect(join(parquet, name))).toEqual([[1, 2, 3], [], [4, 5]]);
  });

  test("the files of a folder in the order of their names, others and subfolders left alone", async () => {
    await mkdir(join(folder, "set", "sub"), { recursive: true });
    await writeFile(join(folder, "set/b.txt"), "b");
    await writeFile(join(folder, "set/B.txt"), "B");
    await writeFile(join(folder, "set/a.jsonl"), '{"text":"a"}');
    await writeFile(join(folder, "set/manifest.json"), "{}");
    await writeFile(join(folder, "set/sub/c.txt"), "c");
    expect(await collect(join(folder, "set"))).toEqual(["B", "a", "b"]);
  });
});

describe("readDocuments() refuses", () => {
  test.each([
    ['{"text":"a"}\n{"text":\n', /bad.jsonl", line 2 is not JSON/],
    ['{"text":"a"}\n\n["text"]\n', /bad.jsonl", line 3: .*expected object/],
    ['{"prompt":"a"}\n', /line 1: has neither "text" nor "input_ids"/],
    ['{"text":5}\n', /line 1: "text": /],
    ['{"input_ids":[1,2.5]}\n', /line 1: "input_ids\[1\]"/],
    ['{"input_ids":["1"]}\n', /line 1: "input_ids\[0\]"/],
  ])("the JSONL %j, with the line", async (content, message) => {
    expect(await failure(read("bad.jsonl", content))).toMatch(message);
  });

  test("bytes that are not UTF-8, with the line", async () => {
    const bad = Buffer.concat([Buffer.from('{"text":"a"}\n{"text":"'), Buffer.from([0xe9]), Buffer.from('"}\n')]);
    expect(await failure(read("bad.jsonl", bad))).toMatch(/line 2 is not valid UTF-8/);
    expect(await failure(read("bad.txt", Buffer.from([0xff])))).toMatch(/bad.txt" is not valid UTF-8/);
  });

  test("a CSV without the column, or with an open quote", async () => {
    expect(await failure(read("bad.csv", "a,b\n1,2\n"))).toMatch(
      /no column "text" \| its columns are "a", "b".*--text-column/,
    );
    expect(await failure(read("bad.csv", 'text\n"open\n'))).toMatch(/bad.csv", row 1: Quoted field unterminated/);
  });

  test("Parquet that is not, is cut off, or holds something else", async () => {
    expect(await failure(read("bad.parquet", "not parquet"))).toMatch(/Cannot read calibration file .*bad.parquet/);
    const whole = await readFile(join(parquet, "text-zstd.parquet"));
    expect(await failure(read("cut.parquet", whole.subarray(0, 200)))).toMatch(/cut.parquet/);
    expect(await failure(collect(join(parquet, "numbers.parquet")))).toMatch(/row 1: column "text" holds no text/);
    expect(await failure(collect(join(parquet, "text-zstd.parquet"), { textColumn: "body" }))).toMatch(
      /no column "body" or "input_ids"/,
    );
  });

  test("paths that are absent, of another kind, or a folder without data", async () => {
    expect(await failure(read("none.jsonl"))).toMatch(/none.jsonl": no such file/);
    expect(await failure(read("a.json", "{}"))).toMatch(/kind is not supported \| supported are .txt, .jsonl/);
    await mkdir(join(folder, "empty"));
    expect(await failure(collect(join(folder, "empty")))).toMatch(/no file of a supported kind/);
  });
});
