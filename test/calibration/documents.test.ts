import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { InputError } from "../../src/base/errors.ts";
import { type DocumentOptions, openDocuments } from "../../src/calibration/documents.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const parquet = join(import.meta.dirname, "parquet");

const folder = temporaryFolder("test");

/** Texts and ids of a path; a content is written to a file of this name first. */
async function read(name: string, content?: string | Uint8Array, options?: DocumentOptions): Promise<unknown[]> {
  const path = join(folder, name);
  if (content !== undefined) await writeFile(path, content);
  return collect(path, options);
}

async function collect(path: string, options?: DocumentOptions): Promise<unknown[]> {
  const found: unknown[] = [];
  for await (const document of (await openDocuments(path, options)).documents()) {
    if ("empty" in document) found.push({ empty: document.empty });
    else if ("messages" in document) found.push(document.messages);
    else found.push("text" in document ? document.text : document.ids);
  }
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
    expect(await collect(join(parquet, name))).toEqual([[1, 2, 3], { empty: 'nothing in "input_ids"' }, [4, 5]]);
  });

  test("the files of a folder and its subfolders in the order of their names", async () => {
    await mkdir(join(folder, "set", "sub"), { recursive: true });
    await writeFile(join(folder, "set/b.txt"), "b");
    await writeFile(join(folder, "set/B.txt"), "B");
    await writeFile(join(folder, "set/a.jsonl"), '{"text":"a"}');
    await writeFile(join(folder, "set/manifest.json"), "{}");
    await writeFile(join(folder, "set/sub/c.txt"), "c");
    expect(await collect(join(folder, "set"))).toEqual(["B", "a", "b", "c"]);
  });
});

describe("readDocuments() refuses", () => {
  test.each([
    ['{"text":"a"}\n{"text":\n', /bad.jsonl", line 2 is not JSON/],
    ['{"text":"a"}\n[1,\n', /bad.jsonl", line 2 is not JSON/],
    [
      '{"id":1,"label":"a"}\n',
      /line 1 has no text that is known: its fields are "id", "label" \| choose a field with --text-column/,
    ],
    ['{"text":5}\n', /line 1 "text" holds a number, no text and no token ids/],
    ['{"input_ids":[1,2.5]}\n', /line 1 "input_ids" holds something else than token ids/],
    ['{"input_ids":["1"]}\n', /line 1 "input_ids" holds something else than token ids/],
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
      /has no text that is known: its fields are "a", "b" \| choose a field with --text-column/,
    );
    expect(await failure(read("bad.csv", 'text\n"open\n'))).toMatch(/bad.csv", row 1: Quoted field unterminated/);
  });

  test("Parquet that is not, is cut off, or holds something else", async () => {
    expect(await failure(read("bad.parquet", "not parquet"))).toMatch(/bad.parquet" is no parquet file/);
    const whole = await readFile(join(parquet, "text-zstd.parquet"));
    expect(await failure(read("cut.parquet", whole.subarray(0, 200)))).toMatch(/cut.parquet/);
    expect(await failure(collect(join(parquet, "numbers.parquet")))).toMatch(/row 1 "text" holds a number, no text/);
    expect(await failure(collect(join(parquet, "text-zstd.parquet"), { textColumn: "body" }))).toMatch(
      /row 1 has no field "body"; its fields are /,
    );
  });

  test("paths that are absent, of another kind, or a folder without data", async () => {
    expect(await failure(read("none.jsonl"))).toMatch(/none.jsonl": no such file/);
    expect(await failure(read("a.json", "{}"))).toMatch(/record 1 \(line 1\) has no fields/);
    await mkdir(join(folder, "empty"));
    expect(await failure(collect(join(folder, "empty")))).toMatch(/has no data file: it is empty/);
  });
});

describe("rows are read by their shape:", () => {
  const chat = [
    { role: "user", content: "q" },
    { role: "assistant", content: "a" },
  ];

  test.each<[string, object, unknown]>([
    ["messages", { messages: chat }, chat],
    [
      "ShareGPT",
      {
        id: "1",
        conversations: [
          { from: "human", value: "q" },
          { from: "gpt", value: "a" },
        ],
      },
      chat,
    ],
    ["parts of a content", { messages: [{ role: "user", content: [{ type: "text", text: "q" }] }, chat[1]] }, chat],
    ["system and messages", { system: "s", messages: chat }, [{ role: "system", content: "s" }, ...chat]],
    ["messages in a cell of CSV", { messages: JSON.stringify(chat) }, chat],
    ["alpaca", { instruction: "q", input: "", output: "a" }, chat],
    [
      "alpaca with input",
      { instruction: "q", input: "i", output: "a" },
      [{ role: "user", content: "q\n\ni" }, chat[1]],
    ],
    [
      "dolly",
      { instruction: "q", context: "c", response: "a", category: "x" },
      [{ role: "user", content: "q\n\nc" }, chat[1]],
    ],
    ["prompt and completion", { prompt: "The sky is", completion: " blue." }, "The sky is blue."],
    ["prompt and completion of turns", { prompt: [chat[0]], completion: [chat[1]] }, chat],
    ["prompt and response", { prompt: "q", response: "a" }, chat],
    ["preferences", { prompt: "q", chosen: chat, rejected: [chat[0], { role: "assistant", content: "z" }] }, chat],
    ["question and answer", { question: "q", answer: "a" }, chat],
    [
      "SQuAD",
      { id: "1", title: "t", context: "c", question: "q", answers: { text: ["a"], answer_start: [0] } },
      [{ role: "user", content: "c\n\nq" }, chat[1]],
    ],
    [
      "LongBench",
      { input: "q", context: "c", answers: ["a"], dataset: "x" },
      [{ role: "user", content: "c\n\nq" }, chat[1]],
    ],
    [
      "HotpotQA",
      { question: "q", answer: "a", context: { title: ["T"], sentences: [["S1. ", "S2."]] } },
      [{ role: "user", content: "T\nS1. S2.\n\nq" }, chat[1]],
    ],
    ["content", { content: "x", path: "a.py" }, "x"],
    ["document and summary", { document: "x", summary: "y" }, "x"],
    ["a text inside an object", { text: { content: "x" } }, "x"],
    ["paragraphs", { text: ["x", "y"] }, "x\n\ny"],
    ["ids with a mask", { input_ids: [0, 0, 5, 6], attention_mask: [0, 0, 1, 1] }, [5, 6]],
    ["a batch of one", { input_ids: [[5, 6]] }, [5, 6]],
  ])("%s", async (_name, row, expected) => {
    expect(await read("a.jsonl", JSON.stringify(row))).toEqual([expected]);
    expect(await read("a.json", JSON.stringify([row]))).toEqual([expected]);
  });

  test("JSON arrays of texts, of lists of ids, and of ids", async () => {
    expect(await read("a.json", '["x","y"]')).toEqual(["x", "y"]);
    expect(await read("b.json", "[[1,2],[3]]")).toEqual([[1, 2], [3]]);
    expect(await read("c.json", "[1,2,\n3]")).toEqual([[1, 2, 3]]);
    expect(await failure(read("d.json", "[true]"))).toMatch(/is a boolean, and no row with fields/);
  });

  test("a chosen column is the only one that is looked at; a dot leads into it", async () => {
    expect(await read("a.jsonl", '{"text":"no","meta":{"body":"x"}}', { textColumn: "meta.body" })).toEqual(["x"]);
    expect(await read("a.jsonl", '{"a.b":"x","a":{"b":"y"}}', { textColumn: "a.b" })).toEqual(["x"]);
    expect(await read("a.jsonl", JSON.stringify({ turns: chat }), { textColumn: "turns" })).toEqual([chat]);
    for (const textColumn of ["__proto__", "constructor", "toString", "text.length"]) {
      for (const [name, content] of [
        ["a.jsonl", '{"text":"x"}'],
        ["a.csv", "text\nx\n"],
      ] as const) {
        expect(await failure(read(name, content, { textColumn }))).toMatch(
          /has no field ".*"; its fields are "text" \|/,
        );
      }
    }
  });

  test("rows without text are told of, wherever others have one", async () => {
    const rows = ['{"text":null}', '{"text":"a"}', '{"text":" "}', '{"other":1}', '{"text":"b"}'];
    expect(await read("a.jsonl", rows.join("\n"))).toEqual([
      { empty: 'nothing in "text"' },
      "a",
      { empty: 'nothing in "text"' },
      { empty: 'has no text that is known: its fields are "other"' },
      "b",
    ]);
  });

  test("packed files and unknown extensions as the plain ones", async () => {
    expect(await read("c4-train.00000-of-01024.json.gz", gzipSync('{"text":"a"}\n{"text":"b"}\n'))).toEqual(["a", "b"]);
    expect(await read("wiki.test.raw", " \n = Title = \n")).toEqual([" \n = Title = \n"]);
    expect(await read("book", "[Music] begins")).toEqual(["[Music] begins"]);
    expect(await read("words.txt", "[1, 2]")).toEqual(["[1, 2]"]);
    expect(await read("a.tsv", "id\ttext\n1\ta\n")).toEqual(["a"]);
  });
});
