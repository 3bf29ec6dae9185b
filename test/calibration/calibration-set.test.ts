import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InputError, UsageError } from "../../src/base/errors.ts";
import {
  type CalibrationOptions,
  type CalibrationSet,
  defaultSequenceLength,
  hashWindows,
  loadCalibrationSet,
} from "../../src/calibration/calibration-set.ts";
import { chooseWindows, fillWindows, packWindows, windowPerDocument } from "../../src/calibration/windows.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const BOS = 256;
const model = { vocabSize: 257, indexTopk: 4, maxPositionEmbeddings: 4096 };
const encode = async (text: string): Promise<number[]> => [BOS, ...Buffer.from(text)];

const folder = temporaryFolder("file");

async function load(documents: object[], options: CalibrationOptions, ofModel = model): Promise<CalibrationSet> {
  const path = join(folder, "set.jsonl");
  await writeFile(path, documents.map((document) => `${JSON.stringify(document)}\n`).join(""));
  return loadCalibrationSet(path, ofModel, encode, options);
}

async function* stream<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}

describe("windows", () => {
  const documents = fc.array(fc.array(fc.integer({ min: 0, max: 99 }), { maxLength: 20 }), { maxLength: 12 });

  test("packed hold every token in order, but for a remainder shorter than a window", async () => {
    await fc.assert(
      fc.asyncProperty(documents, fc.integer({ min: 2, max: 9 }), async (lists, length) => {
        const cut = await packWindows(stream(lists), length);
        const flat = lists.flat();
        expect(cut.windows.flatMap((window) => [...window])).toEqual(flat.slice(0, flat.length - cut.droppedTokens));
        expect(cut.droppedTokens).toBe(flat.length % length);
        expect(cut.windows.every((window) => window.length === length)).toBe(true);
      }),
    );
  });

  test("one a document hold its beginning; every document is used or counted", async () => {
    await fc.assert(
      fc.asyncProperty(documents, fc.integer({ min: 2, max: 9 }), async (lists, length) => {
        const cut = await windowPerDocument(stream(lists), length);
        const used = lists.filter((list) => list.length >= length);
        expect(cut.windows.map((window) => [...window])).toEqual(used.map((list) => list.slice(0, length)));
        expect(cut.droppedDocuments).toBe(lists.length - used.length);
      }),
    );
  });

  test("a window for each document has it whole, and the next ones as far as there is room", () => {
    const documents = [[1, 2, 3], [4, 5], [6]].map((ids) => Int32Array.from(ids));
    expect(fillWindows(documents, 4).map((window) => [...window])).toEqual([
      [1, 2, 3, 4],
      [4, 5, 6, 1],
      [6, 1, 2, 3],
    ]);
  });

  test("are chosen by seed, without repetition, in their own order", () => {
    const windows = Array.from({ length: 50 }, (_, index) => Int32Array.of(index));
    const first = chooseWindows(windows, 10, 1).map(([id]) => id ?? -1);
    expect(first).toEqual([...new Set(first)].sort((a, b) => a - b));
    expect(first).toHaveLength(10);
    expect(chooseWindows(windows, 10, 1)).toEqual(chooseWindows(windows, 10, 1));
    expect(chooseWindows(windows, 10, 2)).not.toEqual(chooseWindows(windows, 10, 1));
    expect(chooseWindows(windows, 80, 1)).toEqual(windows);
  });
});

describe("loadCalibrationSet()", () => {
  test("puts conversations through the chat template, counts those that it refuses, and joins them without one", async () => {
    const path = join(folder, "chat.jsonl");
    const turns = (question: string): object => ({
      conversations: [
        { from: "human", value: question },
        { from: "gpt", value: "yes" },
      ],
    });
    await writeFile(path, [turns("a"), turns("bad"), { text: "cd" }].map((row) => JSON.stringify(row)).join("\n"));
    const encode = async (text: string): Promise<number[]> => [BOS, ...Buffer.from(text)];
    const model = { vocabSize: BOS + 1, indexTopk: 1, maxPositionEmbeddings: 100 };
    const encodeChat = async (messages: readonly { role: string; content: string }[]): Promise<number[]> => {
      if (messages[0]?.content === "bad") throw new InputError("the template raises");
      return encode(messages.map(({ role, content }) => `<${role}>${content}`).join(""));
    };
    const set = await loadCalibrationSet(path, model, encode, { sequenceLength: 21, encodeChat });
    expect(String.fromCharCode(...(set.windows[0] ?? []).slice(1))).toBe("<user>a<assistant>yes".slice(0, 20));
    expect(set.notes).toEqual([
      'calibration rows were read as 1 as conversations ("conversations") through the model\'s chat template; 1 as "text"',
    ]);
    expect(set.warnings).toEqual([expect.stringMatching(/^1 of 3 .* line 2 \(the template raises\)$/)]);
    const joined = await loadCalibrationSet(path, model, encode, { sequenceLength: 7 });
    expect(String.fromCharCode(...(joined.windows[0] ?? []).slice(1))).toBe("a\n\nyes");
    expect(joined.notes[0]).toMatch(/turns joined by blank lines: the model has no chat template/);
  });

  test("begins each text with BOS and uses given ids as they are", async () => {
    const set = await load([{ text: "ab" }, { input_ids: [7, 8, 9] }, { text: "" }, { text: "cd" }], {
      sequenceLength: 9,
    });
    expect(set.windows).toEqual([Int32Array.of(BOS, 97, 98, 7, 8, 9, BOS, 99, 100)]);
    expect(set).toMatchObject({ tokens: 9, documents: 3, available: 1, sequenceLength: 9 });
    expect(set.warnings).toEqual([
      expect.stringMatching(/^1 of 4 calibration rows is left out: .*line 3 \(nothing in "text"\)$/),
    ]);
  });

  test("hashes the tokens that are used, whatever file or option they come from", async () => {
    const packed = await load([{ text: "abcd" }, { text: "wxyz" }, { text: "cover" }], { sequenceLength: 5 });
    const single = await load([{ text: "abcd" }, { text: "wxyz12" }, { input_ids: [BOS, 99, 111, 118, 101] }], {
      sequenceLength: 5,
      pack: false,
    });
    expect(single.hash).toBe(packed.hash);
    expect(packed.hash).toMatch(/^[0-9a-f]{64}$/);
    expect((await load([{ text: "abde" }], { sequenceLength: 5 })).hash).not.toBe(
      (await load([{ text: "abce" }], { sequenceLength: 5 })).hash,
    );
    expect(hashWindows([Int32Array.of(1, 2), Int32Array.of(3)])).not.toBe(
      hashWindows([Int32Array.of(1), Int32Array.of(2, 3)]),
    );
  });

  test.each([
    // index_topk, the model's window, the length
    [4, 4096, 1024],
    [4, 512, 512],
    [4, 510, 508],
    [128, 1024, 1024],
    [100, 4096, 1000],
    [2048, 202_752, 8192],
    [2048, 8000, 6144],
    [2048, 4000, 4000],
  ])("with index_topk %i and a window of %i takes %i tokens", (indexTopk, maxPositionEmbeddings, length) => {
    expect(defaultSequenceLength({ vocabSize: 257, indexTopk, maxPositionEmbeddings })).toBe(length);
  });

  test("refuses a model whose window is no longer than index_topk", async () => {
    await expect(load([{ text: "abc" }], {}, { ...model, indexTopk: 64, maxPositionEmbeddings: 64 })).rejects.toThrow(
      "The model's window of 64 tokens is not longer than index_topk (64)",
    );
  });

  test("says what it dropped and what it could not give", async () => {
    const set = await load([{ text: "abcdefgh" }, { text: "a" }], { sequenceLength: 6, pack: false, sequences: 3 });
    expect(set.warnings).toEqual([
      expect.stringContaining("1 of 2 documents"),
      expect.stringContaining("fewer than the 3"),
    ]);
  });

  test.each<[string, object[], CalibrationOptions, string]>([
    ["an empty set", [], {}, "is empty"],
    [
      "a set of empty documents",
      [{ text: "" }, { input_ids: [] }],
      {},
      "holds no text: 2 of 2 calibration rows are left out",
    ],
    ["too little text", [{ text: "abc" }], { sequenceLength: 100 }, "has 4 tokens, too few for one window of 100"],
    ["short documents", [{ text: "abc" }, { text: "abcd" }], { sequenceLength: 6, pack: false }, "the longest has 5"],
    ["an id above the vocabulary", [{ text: "a" }, { input_ids: [1, 257] }], {}, "line 2: token id 257 at position 1"],
    ["a negative id", [{ input_ids: [-1] }], {}, "line 1: token id -1 at position 0"],
  ])("refuses %s", async (_, documents, options, message) => {
    const error = await load(documents, options).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(InputError);
    expect(error).toMatchObject({ message: expect.stringContaining(message) });
  });

  test.each<[CalibrationOptions, string]>([
    [{ sequenceLength: 1 }, "--sequence-length is 1"],
    [{ sequenceLength: 5000 }, "the model's window is 4096"],
    [{ sequenceLength: 4 }, "not longer than index_topk (4)"],
    [{ sequences: 0 }, "--sequences is 0"],
    [{ sequences: 1.5 }, "--sequences is 1.5"],
  ])("refuses the options %j", async (options, message) => {
    const error = await load([{ text: "abc" }], options).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(UsageError);
    expect(error).toMatchObject({ message: expect.stringContaining(message) });
  });

  test("stops when asked", async () => {
    const signal = AbortSignal.abort(new Error("stopped"));
    await expect(load([{ text: "abc" }], { sequenceLength: 5, signal })).rejects.toThrow("stopped");
  });
});
