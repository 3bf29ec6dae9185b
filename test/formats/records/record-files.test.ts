import { spawnSync } from "node:child_process";
import { createWriteStream } from "node:fs";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { zipSync } from "fflate";
import { describe, expect, test } from "vitest";
import { InputError } from "../../../src/base/errors.ts";
import { describeLeftOut } from "../../../src/formats/records/data-folder.ts";
import { splitJsonValues } from "../../../src/formats/records/json-values.ts";
import { openDataSet } from "../../../src/formats/records/record-files.ts";
import { temporaryFolder } from "../../temporary-folder.ts";

const root = join(import.meta.dirname, "..", "..", "..");

const folder = temporaryFolder("test");

/** Files that other programs have written; make.sh says how. */
const fixture = (name: string): Promise<Buffer> => readFile(join(import.meta.dirname, "fixtures", name));

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));

/** Records of a path as `name: value` or `where: problem`; a content is written to a file of this name first. */
async function read(name: string, content?: string | Uint8Array): Promise<string[]> {
  const path = join(folder, name);
  if (content !== undefined) {
    await mkdir(join(path, ".."), { recursive: true });
    await writeFile(path, content);
  }
  const found: string[] = [];
  for (const file of (await openDataSet(path, { takesText: false })).files) {
    for await (const record of file.records()) {
      found.push(
        "value" in record ? `${file.name}: ${JSON.stringify(record.value)}` : `${record.where}: ${record.problem}`,
      );
    }
  }
  return found.map((line) => line.replaceAll(folder, ""));
}

async function failure(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.catch((reason: unknown) => reason);
  if (error instanceof InputError) return `${error.message} | ${error.hint ?? ""}`.replaceAll(folder, "");
  throw error instanceof Error ? error : new Error("nothing was thrown");
}

async function* inBlocks(content: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let i = 0; i < content.length; i += size) yield content.subarray(i, i + size);
}

describe("records come", () => {
  const values = ['a: {"x":1}', 'a: {"x":"ü\\n"}'];
  const two = values.map((value) => value.slice(3));
  const named = (name: string): string[] => two.map((value) => `${name}: ${value}`);

  test.each([
    ["a.json", `[${two}]`],
    ["b.json", `\ufeff [\r\n${two.join(" ,\r\n")}\r\n] `],
    ["c.json", `{"version":"[1]","data":[${two}],"more":{"data":[3],"}":"]"}}`],
    ["d.jsonl", `\ufeff${two.join("\r\n")}\r\n\r\n`],
    ["e.ndjson", two.join("\n")],
    ["f.json", two.join("\n")],
    ["noextension", `[${two}]`],
  ])("out of %s", async (name, content) => {
    expect(await read(name, content)).toEqual(named(name));
    expect(await read(`${name}.gz`, gzipSync(content))).toEqual(named(`${name}.gz`));
  });

  test("out of CSV, with quotes, a byte order mark, and what is wrong with a row", async () => {
    expect(await read("a.csv", '\ufeffx,y\r\n1,"two\nlines, ü"\r\n3,4\r\n')).toEqual([
      'a.csv: {"x":"1","y":"two\\nlines, ü"}',
      'a.csv: {"x":"3","y":"4"}',
    ]);
    const many = Array.from({ length: 1000 }, (_, i) => `${i},y`).join("\n");
    expect((await read("b.csv", `x,y\n${many}\n5\n`)).slice(-2)).toEqual([
      'b.csv: {"x":"999","y":"y"}',
      'file "/b.csv", row 1001: Too few fields: expected 2 fields but parsed 1',
    ]);
  });

  test("out of Parquet, plain, gzipped, and in a zip", async () => {
    const content = await readFile(join(root, "test", "calibration", "parquet", "text-snappy.parquet")).catch(
      () => undefined,
    );
    const path = content === undefined ? undefined : "t.parquet";
    if (content === undefined || path === undefined) throw new Error("the Parquet fixture has moved");
    const plain = await read(path, content);
    expect(plain.length).toBeGreaterThan(1);
    expect(await read("g.parquet.gz", gzipSync(content))).toEqual(
      plain.map((line) => line.replace("t.parquet", "g.parquet.gz")),
    );
    expect(await read("z.zip", zipSync({ "t.parquet": new Uint8Array(content) }))).toEqual(plain);
  });

  test("out of zips and folders in the order of names, other files aside", async () => {
    const files = {
      "data/b.jsonl": bytes('{"b":1}'),
      "data/a.json.gz": new Uint8Array(gzipSync('[{"a":1}]')),
      "README.md": bytes("no data"),
      "__MACOSX/data/._b.jsonl": bytes("no data"),
    };
    expect(await read("z.zip", zipSync(files))).toEqual(['data/a.json.gz: {"a":1}', 'data/b.jsonl: {"b":1}']);
    await read("f/z.zip", zipSync({ "in.jsonl": bytes("7") }));
    await read("f/deep/er.jsonl", "8");
    await writeFile(join(folder, "f", "notes.txt"), "no data");
    expect(await read("f")).toEqual(["deep/er.jsonl: 8", "in.jsonl: 7"]);
  });

  test("whatever the blocks that a file is read in", async () => {
    const json = fc.jsonValue({ maxDepth: 3 }).filter((value) => JSON.stringify(value) !== undefined);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(json, fc.constant('\\"]}{[\\\\'), fc.constant({ data: [1] })), { maxLength: 5 }),
        fc.constantFrom("array", "data", "lines"),
        fc.integer({ min: 1, max: 9 }),
        fc.constantFrom(undefined, 1),
        async (records, form, size, indent) => {
          // The first of several values may not itself look like the object around the records.
          fc.pre(
            form !== "lines" ||
              (records.length > 0 && !Array.isArray(records[0]) && !JSON.stringify(records[0]).includes('"data":[')),
          );
          const text =
            form === "lines"
              ? records.map((record) => JSON.stringify(record, null, indent)).join("\n")
              : JSON.stringify(
                  form === "array" ? records : { a: { data: "x" }, data: records, z: ["]"] },
                  null,
                  indent,
                );
          const found: unknown[] = [];
          for await (const { bytes } of splitJsonValues(inBlocks(Buffer.from(text), size), "file", 1e6)) {
            found.push(JSON.parse(bytes.toString()));
          }
          expect(found).toEqual(JSON.parse(JSON.stringify(records)));
        },
      ),
    );
  });
});

describe("files as people have them:", () => {
  const rows = '{"text":"a"}\n{"text":"ü"}\n';
  const two = (name: string): string[] => [`${name}: {"text":"a"}`, `${name}: {"text":"ü"}`];

  test("zstd with one frame or several, and cut off", async () => {
    expect(await read("a.jsonl.zst", await fixture("rows.jsonl.zst"))).toEqual(two("a.jsonl.zst"));
    const frame = await fixture("rows.jsonl.zst");
    const both = await read("b.jsonl.zst", Buffer.concat([frame, frame]));
    expect(both).toEqual([...two("b.jsonl.zst"), ...two("b.jsonl.zst")]);
    for (const length of [frame.length - 1, frame.length - 8, 12, 5]) {
      expect(await failure(read("c.jsonl.zst", frame.subarray(0, length)))).toMatch(
        /^Cannot unpack .* \| is it cut off/,
      );
    }
    const greedy = Buffer.from(frame);
    greedy[4] = 0;
    greedy[5] = 0xf8;
    expect(await failure(read("d.jsonl.zst", greedy))).toMatch(/asks for a window of/);
  });

  test("a zip whose content is not what its checksum says is refused", async () => {
    const packed = Buffer.from(zipSync({ "a.jsonl": [bytes(rows), { level: 0 }] }));
    const at = packed.indexOf('"a"');
    packed[at + 1] = "b".charCodeAt(0);
    expect(await failure(read("a.zip", packed))).toMatch(
      /its checksum does not match its content \| is the zip complete/,
    );
  });

  test("a record of arrays in arrays without end is a bad record", async () => {
    const deep = `{"input_ids":${"[".repeat(20_000)}${"]".repeat(20_000)}}`;
    expect(await read("deep.jsonl", `${deep}\n{"text":"a"}\n`)).toEqual([
      expect.stringMatching(/line 1: nests arrays and objects more than 200 levels deep$/),
      'deep.jsonl: {"text":"a"}',
    ]);
  });

  test("gzip with several members, without its extension, or followed by something else", async () => {
    const packed = gzipSync(rows);
    expect(await read("a.jsonl.gz", Buffer.concat([packed, packed]))).toHaveLength(4);
    expect(await read("b.jsonl", packed)).toEqual(two("b.jsonl"));
    expect(await read("c.00000-of-01024.json.gz", packed)).toHaveLength(2);
    expect(await failure(read("d.jsonl.gz", Buffer.concat([packed, packed.subarray(0, 20)])))).toMatch(/Cannot unpack/);
    expect(await failure(read("e.jsonl.gz", Buffer.concat([packed, bytes("more")])))).toMatch(/Cannot unpack/);
    const thrice = gzipSync(gzipSync(gzipSync(rows)));
    expect(await failure(read("f.jsonl.gz", thrice))).toMatch(/is packed more than 2 times/);
  });

  test("UTF-16 with its mark, tabs, and carriage returns", async () => {
    const utf16 = Buffer.from(`\ufeff${rows}`, "utf16le");
    expect(await read("a.jsonl", utf16)).toEqual(two("a.jsonl"));
    expect(await read("b.jsonl", Buffer.from(utf16).swap16())).toEqual(two("b.jsonl"));
    expect(await read("c.tsv", "id\ttext\r\n1\ta, b\r\n")).toEqual(['c.tsv: {"id":"1","text":"a, b"}']);
    expect(await failure(read("d.jsonl", utf16.subarray(0, utf16.length - 1)))).toMatch(/is not valid UTF-16/);
  });

  test.each([
    ["a.jsonl.bz2", "BZh91AY&SY\x01\x02\x03", /is packed with bzip2 \| unpack it: bunzip2/],
    ["a.jsonl.xz", "\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46", /is packed with xz \| unpack it: unxz/],
    ["data-00000-of-00001.arrow", "ARROW1\0\0\x01\x02\x03", /is an Arrow file \| .*to_parquet/],
    ["stream", "\xff\xff\xff\xff\x10\0\0\0\0\0\0", /is an Arrow file/],
    ["a.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n", /is a pointer of Git LFS/],
    ["a.json", "<!DOCTYPE html><html>log in</html>", /is a web page/],
    ["a.pkl", "\x80\x04\x95\x10\0\0\0\0\0\0\0", /is a pickle of Python \| a pickle can run programs/],
    ["a.parquet", '{"text":"a"}', /is no parquet file, though its name says so/],
    ["a.json.gz", '{"text":"a"}', /is no gzip file, though its name says so/],
    ["a.npy", "\x93NUMPY\x01\0v\0{'d", /is an array of NumPy/],
  ])("%s is refused by name", async (name, content, message) => {
    expect(await failure(read(name, Buffer.from(content, "latin1")))).toMatch(message);
  });

  test.each([
    ['[{"x":1} {"x":2}]', /line 1 is not JSON: "{" where a comma belongs/],
    ['[{"x":1},,{"x":2}]', /"," where a value belongs/],
    ['[{"x":1},]', /"]" where a value belongs/],
    ['[{"x":1}]]', /"]" after the end of its array/],
    ["[1,2]\n[3]", /line 2 is not JSON: "\[" after the end of its array \| one value a line is JSONL/],
    ['{"x":1}]', /"]" where a value belongs/],
    ['{"a":1,"data":[1],"b":[}]}', /the object around its records/],
    ['{"a" 1,"data":[1]}', /the object around its records/],
  ])("%s is not JSON", async (content, message) => {
    expect(await failure(read("a.json", content))).toMatch(message);
  });

  test("splits of a data set are not mixed", async () => {
    for (const name of ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test-00000-of-00001.jsonl"]) {
      await read(`set/${name}`, `"${name.slice(0, 9)}"`);
    }
    expect(await failure(read("set"))).toBe(
      '"/set" holds several splits of a data set: test (1 file), train (2 files) | choose one: --split test',
    );
    const set = await openDataSet(join(folder, "set"), { takesText: false, split: "train" });
    expect(set.files.map(({ name }) => name)).toEqual(["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"]);
    expect(set.leftOut).toEqual([{ name: "test-00000-of-00001.jsonl", reason: "not of this split" }]);
    const wrong = openDataSet(join(folder, "set"), { takesText: false, split: "dev" });
    expect(await failure(wrong)).toMatch(/has no file of --split dev: its splits are test, train/);
    await read("other/a/train.jsonl", "1");
    await read("other/b/test.jsonl", "2");
    expect(await read("other")).toHaveLength(2);
  });

  test("nothing of a folder is left out without a word", async () => {
    for (const name of ["README.md", "data.jsonl", "notes.txt", "old.jsonl.bz2", "script.py", ".hidden"]) {
      await read(`set/${name}`, '"x"').catch(() => undefined);
    }
    const { files, leftOut } = await openDataSet(join(folder, "set"), { takesText: false });
    expect(files.map(({ name }) => name)).toEqual(["data.jsonl"]);
    expect(describeLeftOut(leftOut)).toBe(
      '4 files are left out: "README.md" (no data); "notes.txt" (text, not records); "old.jsonl.bz2" (is packed with bzip2); "script.py" (no data file by its name)',
    );
  });

  test("a data set in the cache of Hugging Face, and one of save_to_disk", async () => {
    await read("hub/datasets--a--b/blobs/1234", rows).catch(() => undefined);
    await read("hub/datasets--a--b/refs/main", "rev2").catch(() => undefined);
    for (const revision of ["rev1", "rev2"]) {
      await mkdir(join(folder, "hub/datasets--a--b/snapshots", revision), { recursive: true });
      await symlink("../../blobs/1234", join(folder, "hub/datasets--a--b/snapshots", revision, "data.jsonl"));
    }
    expect(await read("hub/datasets--a--b")).toEqual(two("data.jsonl"));
    await read("saved/train/data-00000-of-00001.arrow", "x").catch(() => undefined);
    await read("saved/dataset_dict.json", "{}").catch(() => undefined);
    expect(await failure(read("saved"))).toMatch(
      /holds Arrow files, as save_to_disk .* \| write it as JSONL or Parquet/,
    );
  });

  test("bombs end in a sentence", async () => {
    expect(await failure(read("lines.jsonl.gz", gzipSync(Buffer.alloc(2 ** 24, "\n"))))).toMatch(/more blank lines/);
    expect(await failure(read("blanks.json.gz", gzipSync(Buffer.alloc(2 ** 25, " "))))).toMatch(/more blanks/);
    const field = Buffer.concat([bytes('text\n"'), Buffer.alloc(2 ** 25, "a, ")]);
    expect(await failure(read("field.csv.gz", gzipSync(field)))).toMatch(
      /row 1 has more than 16777216 characters \| is there/,
    );
  });

  test("folders and zips of very many files", async () => {
    await mkdir(join(folder, "many"));
    for (let i = 0; i < 3000; i++) await writeFile(join(folder, "many", `${i}.jsonl`), "1");
    expect(await read("many")).toHaveLength(3000);
    const names = Object.fromEntries(Array.from({ length: 20_001 }, (_, i) => [`${i}.jsonl`, bytes("1")]));
    expect(await failure(read("many.zip", zipSync(names, { level: 0 })))).toMatch(
      /holds 20001 files, more than the 20000/,
    );
  });
});

describe("bad files are told of:", () => {
  test("a record that is no JSON or no UTF-8 is named and the next one read", async () => {
    expect(await read("a.jsonl", '{"x":1}\n{"x":\n{"x":3}\n')).toEqual([
      'a.jsonl: {"x":1}',
      expect.stringMatching(/^file "\/a.jsonl", line 2: is not JSON: /),
      'a.jsonl: {"x":3}',
    ]);
    expect(await read("b.json", '[{"x":1},\n\n{"x" 2},{"x":3}]')).toEqual([
      'b.json: {"x":1}',
      expect.stringMatching(/^file "\/b.json", record 2 \(line 3\): is not JSON: /),
      'b.json: {"x":3}',
    ]);
    const latin1 = Buffer.concat([Buffer.from('"a"\n"'), Buffer.from([0xe9]), Buffer.from('"\n"b"')]);
    expect(await read("c.jsonl", latin1)).toEqual([
      'c.jsonl: "a"',
      'file "/c.jsonl", line 2: is not valid UTF-8',
      'c.jsonl: "b"',
    ]);
    expect(await failure(read("d.csv", Buffer.concat([Buffer.from("x\n"), Buffer.from([0xe9, 0x0a])])))).toMatch(
      /^File "\/d.csv" is not valid UTF-8/,
    );
  });

  test("files that are cut off", async () => {
    expect(await failure(read("a.json", '[{"x":1},\n{"x":"'))).toBe(
      'File "/a.json" ends within record 2 (line 2) | is it cut off?',
    );
    expect(await failure(read("b.json", '[{"x":1}'))).toMatch(/^File "\/b.json" ends within its array/);
    expect(await failure(read("c.json", '{"data":[1,2]'))).toMatch(/ends within its array or object/);
    const packed = gzipSync(JSON.stringify(Array.from({ length: 5000 }, (_, i) => i * 7919)));
    expect(await failure(read("d.json.gz", packed.subarray(0, 2000)))).toMatch(
      /^Cannot unpack file "\/d.json.gz": .* \| is it cut off/,
    );
    const zip = zipSync({ "a.jsonl": bytes('{"x":1}\n'.repeat(1000)) });
    expect(await failure(read("e.zip", zip.subarray(0, zip.length - 30)))).toMatch(
      /^Cannot read file "\/e.zip": .* \| is the zip complete/,
    );
    const broken = zip.slice();
    broken.fill(0, 60, 70);
    expect(await failure(read("f.zip", broken))).toMatch(/^Cannot read "a.jsonl" of file "\/f.zip"/);
    const parquet = await readFile(join(root, "test", "calibration", "parquet", "text-snappy.parquet"));
    expect(await failure(read("g.parquet", parquet.subarray(0, 300)))).toMatch(/^Cannot read file "\/g.parquet"/);
  });

  test("zips whose names lead elsewhere", async () => {
    expect(await failure(read("a.zip", zipSync({ "../../etc/x.jsonl": bytes("1") })))).toMatch(/invalid relative path/);
    expect(await failure(read("b.zip", zipSync({ "/etc/x.jsonl": bytes("1") })))).toMatch(/absolute path/);
  });

  test("kinds that are not known, and nothing at all", async () => {
    expect(await failure(read("a.bin", Buffer.from([1, 2, 0, 0, 3, 4, 5, 6, 7, 8, 9, 10])))).toMatch(
      /^File "\/a.bin" is of no kind that is known \| supported are json/,
    );
    expect(await failure(read("b.gz", gzipSync(zipSync({ "a.json": bytes("1") }))))).toMatch(/zip within/);
    expect(await failure(read("none.json"))).toMatch(/no such file/);
    await mkdir(join(folder, "empty"));
    expect(await failure(read("empty"))).toBe(
      '"/empty" has no data file: it is empty | supported are json, jsonl, csv, tsv and parquet, each also as .gz or .zst, in a zip, or in a folder',
    );
    expect(await read("empty.json", "")).toEqual([]);
  });

  test("a record longer than allowed", async () => {
    const values = splitJsonValues(inBlocks(Buffer.from(`["${"a".repeat(100)}"]`), 10), 'file "x"', 50);
    expect(await failure(values.next())).toMatch(/^File "x", record 1 \(line 1\) has more than 50 bytes/);
  });
});

test("a file of 120 MB in one array is read within 48 MB of heap", async () => {
  const path = join(folder, "big.json");
  const file = createWriteStream(path);
  const record = JSON.stringify({ context: 'word "quoted" \\ and\n'.repeat(50_000) });
  for (let i = 0; i < 100; i++) file.write(`${i === 0 ? "[" : ",\n"}${record}`);
  await new Promise<void>((resolve) => void file.end("]", resolve));
  const reader = pathToFileURL(join(root, "dist", "formats", "records", "record-files.js")).href;
  const script = `
    const { openDataSet } = await import(${JSON.stringify(reader)});
    let records = 0, characters = 0;
    for (const file of (await openDataSet(${JSON.stringify(path)}, { takesText: false })).files)
      for await (const { value } of file.records()) { records++; characters += value.context.length; }
    console.log(records, characters);`;
  const child = spawnSync(process.execPath, ["--max-old-space-size=48", "--input-type=module", "-e", script]);
  expect(child.stderr.toString()).toBe("");
  expect(child.stdout.toString().trim()).toBe(`100 ${100 * 50_000 * 'word "quoted" \\ and\n'.length}`);
});
