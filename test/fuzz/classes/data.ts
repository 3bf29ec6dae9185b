/** Texts to measure on: calibration sets in their forms and packings, benchmark records, prompts. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { zipSync } from "fflate";
import { loadCalibrationSet } from "../../../src/calibration/calibration-set.ts";
import { readPrompt } from "../../../src/cli/run.ts";
import { openSuite } from "../../../src/eval/suites.ts";
import { fuzzClass } from "../fuzz-class.ts";
import { type ByteMutation, byteMutation, jsonMutation, mutateBytes, mutateJson } from "../mutations.ts";

const model = { vocabSize: 83, indexTopk: 4, maxPositionEmbeddings: 4096 };
const encode = async (text: string): Promise<number[]> => [...Buffer.from(text)].map((byte) => byte % 83);

const load = (path: string, textColumn?: string) =>
  loadCalibrationSet(path, model, encode, { sequenceLength: 16, ...(textColumn === undefined ? {} : { textColumn }) });

const documents = Array.from({ length: 12 }, (_, index) => `Document ${index}: ${"the quick brown fox ".repeat(3)}\n`);
const jsonl = documents.map((text) => `${JSON.stringify({ text })}\n`).join("");

/** Rows of JSONL, one of them changed: all that is not read is told of, and what is read is counted. */
const calibrationRows = fuzzClass({
  name: "calibration rows",
  mutation: fc.oneof(
    fc.record({ row: fc.nat({ max: 11 }), json: jsonMutation, column: fc.boolean() }),
    fc.record({ bytes: byteMutation, form: fc.constantFrom("jsonl", "json", "csv", "txt", "tsv") }),
    fc.record({ ids: jsonMutation }),
  ),
  runs: 60,
  async prepare(folder) {
    const forms: Record<string, string> = {
      jsonl,
      json: JSON.stringify(documents.map((text) => ({ text }))),
      csv: `text\n${documents.map((text) => `"${text}"\n`).join("")}`,
      tsv: `id\ttext\n${documents.map((text, index) => `${index}\t"${text}"\n`).join("")}`,
      txt: documents.join("\n"),
    };
    const path = join(folder, "rows.jsonl");
    await writeFile(path, jsonl);
    const original = await load(path);
    return async (mutation) => {
      if ("bytes" in mutation) {
        const text = forms[mutation.form] as string;
        const file = join(folder, `rows.${mutation.form}`);
        await writeFile(file, mutateBytes(Buffer.from(text), mutation.bytes));
        const { windows } = await load(file);
        if (mutation.form === "json" && mutation.bytes.kind === "cut" && mutation.bytes.at % text.length > 0)
          return "a cut JSON array is read";
        return windows.every((window) => window.every((id) => id >= 0 && id < 83))
          ? undefined
          : "ids outside the vocabulary";
      }
      if ("ids" in mutation) {
        const row = JSON.stringify({ input_ids: Array.from({ length: 32 }, (_, index) => index) });
        const changed = mutateJson(row, mutation.ids).text;
        await writeFile(path, `${changed}\n${row}\n`);
        const set = await load(path);
        if (set.windows.some((window) => window.some((id) => !(id >= 0 && id < 83))))
          return "ids outside the vocabulary";
        return set.documents < 2 && set.warnings.length === 0 ? "a row is left out without a word" : undefined;
      }
      const rows = documents.map((text) => JSON.stringify({ text }));
      rows[mutation.row] = mutateJson(rows[mutation.row] as string, mutation.json).text;
      await writeFile(path, `${rows.join("\n")}\n`);
      const set = await load(path, mutation.column ? "text" : undefined);
      if (set.documents < original.documents && set.warnings.length === 0) return "a row is left out without a word";
      return undefined;
    };
  },
});

/** Packed files carry checksums: what unpacks is what was packed. */
function packedClass(name: string, extension: string, pack: (folder: string) => Promise<Buffer>, runs: number) {
  return fuzzClass<ByteMutation>({
    name,
    mutation: byteMutation,
    runs,
    async prepare(folder) {
      const path = join(folder, `rows.jsonl.${extension}`);
      const bytes = await pack(folder);
      await writeFile(path, bytes);
      const original = (await load(path)).hash;
      return async (mutation) => {
        await writeFile(path, mutateBytes(bytes, mutation));
        return (await load(path)).hash === original ? undefined : "other text is read without a word";
      };
    },
  });
}

const noise = Array.from(
  { length: 400 },
  (_, index) => `${JSON.stringify({ text: `${Math.sin(index + 1)} ${index} ${Math.cos(index)}` })}\n`,
).join("");
const gz = packedClass("gzip", "gz", async () => gzipSync(noise), 30);
const zip = packedClass("zip", "zip", async () => Buffer.from(zipSync({ "rows.jsonl": Buffer.from(noise) })), 30);
const zst = packedClass(
  "zstd",
  "zst",
  () => readFile(join(import.meta.dirname, "..", "fixtures", "noise.jsonl.zst")),
  30,
);

/** Pages of Parquet have no checksum by default: what is accepted has as many rows as before, or says so. */
const parquet = fuzzClass<ByteMutation>({
  name: "Parquet",
  mutation: byteMutation,
  runs: 30,
  async prepare(folder) {
    const bytes = await readFile(join(import.meta.dirname, "..", "fixtures", "rows.parquet"));
    const path = join(folder, "rows.parquet");
    await writeFile(path, bytes);
    const original = await load(path);
    return async (mutation) => {
      await writeFile(path, mutateBytes(bytes, mutation));
      const set = await load(path);
      return set.documents < original.documents && set.warnings.length === 0
        ? "rows are left out without a word"
        : undefined;
    };
  },
});

const record = { input: "Question? ", outputs: ["gold"], index: 0, length: 100, task: "niah_single_1" };
const question = {
  context: "Some context.",
  input: "Who?",
  answers: ["Petra"],
  length: 5,
  dataset: "qasper",
  language: "en",
  all_classes: null,
  _id: "x",
};

const evalData = fuzzClass({
  name: "benchmark records",
  mutation: fc.oneof(
    fc.record({ suite: fc.constantFrom("ruler" as const, "longbench" as const), json: jsonMutation }),
    fc.record({ suite: fc.constantFrom("ruler" as const, "longbench" as const), bytes: byteMutation }),
  ),
  runs: 40,
  async prepare(folder) {
    const path = join(folder, "data.jsonl");
    const counter = {
      encode: (text: string) => [...Buffer.from(text)],
      decode: (ids: readonly number[]) => Buffer.from(ids).toString(),
    };
    return async (mutation) => {
      const line = JSON.stringify(mutation.suite === "ruler" ? record : question);
      const good = `${line}\n`.repeat(2);
      await writeFile(
        path,
        "json" in mutation
          ? `${mutateJson(line, mutation.json).text}\n${line}\n`
          : mutateBytes(Buffer.from(good), mutation.bytes),
      );
      const tasks = [mutation.suite === "ruler" ? "niah_single_1" : "qasper"];
      const suite = await openSuite(mutation.suite, {
        counter,
        tokenizerHash: "x",
        data: path,
        tasks,
        window: 100_000,
      });
      let items = 0;
      for await (const item of suite.items()) {
        items += 1;
        if (item.references.length === 0) return "an item without a gold answer";
      }
      const told = suite.notes.length + suite.skipped.length + suite.bad.length;
      // A record that says it is of another dataset is none of LongBench's.
      const isOfOthers = "json" in mutation && mutateJson(line, mutation.json).path.join() === "dataset";
      return items < 2 && told === 0 && "json" in mutation && !isOfOthers
        ? `${items} of 2 records without a word`
        : undefined;
    };
  },
});

const prompts = fuzzClass({
  name: "prompts and token ids",
  mutation: fc.oneof(fc.record({ json: jsonMutation }), fc.record({ bytes: byteMutation, ids: fc.boolean() })),
  runs: 30,
  async prepare(folder) {
    const ids = JSON.stringify([1, 2, 3, 40, 5, 6, 7]);
    const path = join(folder, "ids.json");
    return async (mutation) => {
      await writeFile(
        path,
        "json" in mutation ? mutateJson(ids, mutation.json).text : mutateBytes(Buffer.from(ids), mutation.bytes),
      );
      const prompt = await readPrompt("ids" in mutation && !mutation.ids ? { promptFile: path } : { tokensFile: path });
      if ("text" in prompt) return undefined;
      return prompt.ids.every((id) => Number.isSafeInteger(id)) ? undefined : "ids that are none";
    };
  },
});

export const dataClasses = [calibrationRows, gz, zip, zst, parquet, evalData, prompts];
