import { rmSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { EvalItem, Suite } from "../../../src/eval/item.ts";
import { truncateMiddle } from "../../../src/eval/longbench/truncation.ts";
import { listSuites, openSuite, type SuiteName, type SuiteOptions } from "../../../src/eval/suites.ts";
import { temporaryFolder } from "../../temporary-folder.ts";
import { tokenizerHash, wordCounter } from "../counter.ts";
import { collect, failure as refusal } from "../suite-outcomes.ts";
import { longbenchRecords, longbenchV2Records, writeLongbenchV2, writeLongbenchZip } from "./synthetic-files.ts";

const folder = temporaryFolder("test");

const open = (name: SuiteName, options: Partial<SuiteOptions> = {}): Promise<Suite> =>
  openSuite(name, { counter: wordCounter(), tokenizerHash, data: folder, ...options });

const failure = async (promise: Promise<unknown>): Promise<string> => (await refusal(promise)).replaceAll(folder, "");

const write = (name: string, content: unknown): Promise<void> =>
  writeFile(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));

const jieba = (() => {
  try {
    return createRequire(import.meta.url).resolve("@node-rs/jieba") !== "";
  } catch {
    return false;
  }
})();

describe("LongBench", () => {
  test.runIf(jieba)("out of its zip: 21 tasks, in the order of its paper, each with its own rules", async () => {
    const data = join(folder, "data.zip");
    await writeLongbenchZip(data, 3);
    const suite = await open("longbench", { data });
    expect(suite.tasks.length).toBe(21);
    expect(suite.skipped).toEqual([]);
    const items = await collect(suite);
    expect(items.length).toBe(63);
    for (const item of items) {
      const task = suite.tasks.find(({ name }) => name === item.task);
      expect(task?.score(item.goldAnswer, item), item.task).toBeCloseTo(1, 5);
      expect(task?.score("", item)).toBe(0);
    }
    const first = (task: string): EvalItem | undefined => items.find((item) => item.task === task);
    expect(first("trec")).toMatchObject({
      id: "trec-0",
      prompt: { chat: false, answerPrefix: "" },
      goldAnswer: expect.stringMatching(/^ \w/),
    });
    expect(first("trec")?.classes).toContain("Other location");
    expect(first("passage_count")?.goldAnswer).toMatch(/^\d/);
    expect(first("vcsum")?.goldAnswer).toBe("经济发展");
    expect(first("lcc")?.prompt.user).toMatch(/^Please complete the code given below\. \n.*Next line of code:\n$/s);
    expect(first("hotpotqa")?.groups).toEqual({ category: "multi-doc QA", language: "en" });
  });

  test("takes folders, records that name their task, other names of fields, and CSV", async () => {
    const [record] = longbenchRecords("qasper", "en", 1, 3) as Record<string, unknown>[];
    await mkdir(join(folder, "hotpotqa"));
    const { input, answers, _id, ...rest } = record as Record<string, unknown>;
    await write("hotpotqa/test-00000.json", { data: [{ ...rest, question: input, answers: "one", id: 5 }] });
    await write(
      "all.jsonl",
      `${JSON.stringify({ ...record, dataset: "musique" })}\n${JSON.stringify({ ...record, dataset: "other" })}`,
    );
    await write(
      "trec.csv",
      `context,input,answers,all_classes\nsome,"q ""x""\nType:","[""A"",""B""]","[""A"",""B""]"\n`,
    );
    const suite = await open("longbench", { tasks: ["hotpotqa", "musique", "trec", "samsum"] });
    const items = await collect(suite);
    expect(items.map(({ task, id, references }) => [task, id, references.length])).toEqual([
      ["musique", "qasper-0", 1],
      ["hotpotqa", "5", 1],
      ["trec", "0", 2],
    ]);
    expect(suite.tasks.map(({ name }) => name)).toEqual(["hotpotqa", "musique", "trec"]);
    expect(suite.skipped).toEqual([{ task: "samsum", reason: "--data has no records of it" }]);
  });

  test("E has its own files and classes of length", async () => {
    const data = join(folder, "data.zip");
    await writeLongbenchZip(data, 4, 3, "both");
    const suite = await open("longbench-e", { data, limit: 3 });
    expect(suite.tasks.length).toBe(13);
    const items = await collect(suite);
    expect(items.length).toBe(39);
    expect(new Set(items.map(({ groups }) => groups?.bucket))).toEqual(new Set(["0-4k", "4-8k", "8k+"]));
    expect((await collect(await open("longbench", { data, tasks: ["qasper"] }))).length).toBe(4);
  });

  test("cuts the middle of what is too long, so that wrapper, prompt and answer fit", async () => {
    await write("qasper.json", longbenchRecords("qasper", "en", 2, 60));
    const counter = wordCounter();
    const [whole] = await collect(await open("longbench", { counter }));
    const [cut] = await collect(await open("longbench", { counter, window: 400, wrapperTokens: 5 }));
    const text = cut?.prompt.user ?? "";
    expect(whole?.truncated).toBeUndefined();
    expect(cut?.truncated).toEqual({
      before: counter.encode(whole?.prompt.user ?? "").length,
      after: counter.encode(text).length,
    });
    expect(counter.encode(text).length).toBe(400 - 5 - 128);
    expect(text.startsWith("You are given a scientific article")).toBe(true);
    expect(text.endsWith("Question: What is said about 0?\n\nAnswer:")).toBe(true);
    expect(await failure(open("longbench", { window: 150 }).then(collect))).toMatch(
      /^qasper does not fit into 150 tokens: its answer may have 128, which leaves 22 for the prompt/,
    );
  });

  test("cuts at --max-length as published: wrapper and answer come on top, the tokenizer's own tokens count", async () => {
    await write("qasper.json", longbenchRecords("qasper", "en", 1, 60));
    const counter = wordCounter();
    const [whole] = await collect(await open("longbench", { counter }));
    const ids = counter.encode(whole?.prompt.user ?? "");
    const cutTo = async (maxLength: number, specialTokens: number): Promise<string> => {
      const options = { counter: { ...counter, specialTokens }, maxLength, window: 4096, wrapperTokens: 5 };
      const [item] = await collect(await open("longbench", options));
      return item?.prompt.user ?? "";
    };
    const halves = (head: number, tail: number) =>
      counter.decode(ids.slice(0, head)) + counter.decode(ids.slice(-tail));
    expect(await cutTo(400, 0)).toBe(halves(200, 200));
    // The halves are rounded down, and BOS is one of the first half's tokens.
    expect(await cutTo(401, 1)).toBe(halves(199, 200));
    expect(await cutTo(ids.length, 0)).toBe(whole?.prompt.user);
    expect(await cutTo(ids.length, 1)).not.toBe(whole?.prompt.user);
    const { notes } = await open("longbench", { counter, maxLength: 400, window: 512, wrapperTokens: 5 });
    expect(notes).toEqual([expect.stringMatching(/leaves 107 tokens of the window of 512 .*: qasper \(128\)$/)]);
  });

  test("samsum ends at the token of a line break, which cannot come first", async () => {
    await write("samsum.json", longbenchRecords("samsum", "en", 1, 2));
    const { tasks } = await open("longbench");
    expect(tasks[0]).toMatchObject({ name: "samsum", stop: [], oneLine: true });
  });

  test("answers have other budgets where they are asked for, and leave that much room", async () => {
    await write("qasper.json", longbenchRecords("qasper", "en", 1, 60));
    const counter = wordCounter();
    const budget = { tasks: new Map([["qasper", 50]]), all: 7 };
    const suite = await open("longbench", { counter, window: 400, budget });
    expect(suite.tasks.map(({ maxNewTokens }) => maxNewTokens)).toEqual([50]);
    const [cut] = await collect(suite);
    expect(counter.encode(cut?.prompt.user ?? "").length).toBe(350);
    const unknown = { tasks: new Map([["vt", 50]]) };
    expect(await failure(open("longbench", { counter, budget: unknown }))).toMatch(/names task "?vt"?, which suite/);
  });

  test("names what is bad, or counts it", async () => {
    const [good] = longbenchRecords("trec", "en", 1, 2) as Record<string, unknown>[];
    const bads: [object | string, RegExp][] = [
      [{ context: "x" }, /line 2: has no "answers", "input"; its fields are "context"/],
      [{ ...good, context: 3 }, /line 2: "context": .*expected string/],
      [{ ...good, answers: [] }, /line 2: "answers": is empty/],
      [{ ...good, answers: [{}] }, /line 2: "answers\[0\]": /],
      [{ ...good, _id: "b", all_classes: null }, /line 2: "all_classes": expected a list of classes/],
      [good as object, /line 2: "_id": trec-0 is the id of an earlier record/],
      ["[1]", /line 2: is no object with fields/],
      ["{", /line 2: is not JSON/],
    ];
    for (const [bad, message] of bads) {
      const lines = [good, bad, { ...good, _id: "last" }].map((line) =>
        typeof line === "string" ? line : JSON.stringify(line),
      );
      await write("trec.jsonl", lines.join("\n"));
      expect(await failure(open("longbench").then(collect))).toMatch(message);
      expect(await failure(open("longbench").then(collect))).toMatch(/^File "\/trec.jsonl", .* \| --skip-bad/);
      const suite = await open("longbench", { skipBad: true });
      expect((await collect(suite)).map(({ id }) => id)).toEqual(["trec-0", "last"]);
      expect(suite.bad.length).toBe(1);
      // A second reading does not count twice.
      await collect(suite);
      expect(suite.bad.length).toBe(1);
    }
  });

  test("says what it lacks", async () => {
    expect(await failure(openSuite("longbench", { counter: wordCounter(), tokenizerHash }))).toMatch(/needs --data/);
    await write("other.jsonl", '{"context":"x"}');
    expect(await failure(open("longbench"))).toMatch(/^"" has no record of any task of longbench \| files are named/);
    expect(await failure(open("longbench-v2", { skipBad: true }).then(collect))).toMatch(
      /^--data "" holds no record that can be used, 1 are bad: file "\/other.jsonl", line 1: has no "question", "answer".* \| is it data of another suite/,
    );
    await write("lcc.jsonl", "");
    expect(await failure(open("longbench", { tasks: ["lcc"] }).then(collect))).toMatch(/^--data "" holds no record/);
    rmSync(join(folder, "lcc.jsonl"));
    expect(await failure(open("longbench", { tasks: ["lcc"] }))).toMatch(
      /^"" has no record of lcc \| files are named after/,
    );
    expect(await failure(open("longbench", { tasks: ["mmlu"] }))).toMatch(/no task "mmlu"/);
    expect(await failure(open("longbench", { limit: 0 }))).toMatch(/--limit is 0/);
  });
});

describe("LongBench v2", () => {
  test("of 503 items, with its groups", async () => {
    const data = join(folder, "data.json");
    await writeLongbenchV2(data);
    const suite = await open("longbench-v2", { data });
    const items = await collect(suite);
    const count = (group: string, name: string): number =>
      items.filter(({ groups }) => groups?.[group] === name).length;
    expect(items.length).toBe(503);
    expect(["easy", "hard"].map((name) => count("difficulty", name))).toEqual([192, 311]);
    expect(["short", "medium", "long"].map((name) => count("length", name))).toEqual([180, 215, 108]);
    expect(suite.notes).toEqual([]);
    const [task] = suite.tasks;
    for (const item of items) {
      expect(task?.score(item.goldAnswer, item)).toBe(1);
      expect(item.choiceLead + (item.references[0] ?? "")).toBe(item.goldAnswer.slice(0, -1));
    }
    const [item] = items as [EvalItem];
    expect(task?.score("", item)).toBe(0);
    expect(item.choices).toEqual(["A", "B", "C", "D"]);
    expect(item.prompt).toMatchObject({ chat: true, answerPrefix: "" });
    expect((await collect(await open("longbench-v2", { data, limit: 7 }))).length).toBe(7);
  });

  test("rounds the second half of a cut up, as its own code does", async () => {
    await write(
      "data.jsonl",
      JSON.stringify({ context: "many words ".repeat(300), question: "q", choices: ["w", "x", "y", "z"], answer: 0 }),
    );
    const counter = wordCounter();
    const [whole] = await collect(await open("longbench-v2", { counter }));
    const [cut] = await collect(await open("longbench-v2", { counter, maxLength: 101 }));
    const ids = counter.encode(whole?.prompt.user ?? "");
    expect(cut?.prompt.user).toBe(counter.decode([...ids.slice(0, 50), ...ids.slice(-51)]));
  });

  test("thinks in a first turn and answers in a second one, without the text", async () => {
    await write(
      "data.jsonl",
      longbenchV2Records(5, 2)
        .map((record) => JSON.stringify(record))
        .join("\n"),
    );
    const suite = await open("longbench-v2", { cot: true });
    const [item] = await collect(suite);
    expect(suite.tasks[0]).toMatchObject({ name: "longbench_v2_cot", maxNewTokens: 1024 });
    expect(item?.prompt.user.endsWith("Let’s think step by step:")).toBe(true);
    expect(item?.choices).toBeUndefined();
    const second = item?.followUp?.prompt("  I think. ").user ?? "";
    expect(second).toMatch(/omitted here\.\n\nWhat is .*Let’s think step by step: I think\.\n\nBased on the above/s);
    expect(item?.followUp?.maxNewTokens).toBe(128);
    expect(suite.notes).toEqual(["The data has 2 items, LongBench v2 has 503"]);
  });

  test("takes choices as a list and answers as an index, and names what is neither", async () => {
    const copy = { context: "t", question: "q", choices: ["w", "x", "y", "z"], answer: 2, id: 1 };
    await write("data.json", [copy, { ...copy, id: 2, answer: "b" }]);
    expect((await collect(await open("longbench-v2"))).map(({ references }) => references[0])).toEqual(["C", "B"]);
    for (const [change, message] of [
      [{ answer: "E" }, /record 1 \(line 1\): "answer": expected A, B, C, D, or 0 to 3/],
      [{ choices: ["w"] }, /expected 4 choices/],
      [{ choices: undefined }, /has no "choice_A", "choice_B", "choice_C", "choice_D"; its fields are "context"/],
      [{ difficulty: "tough" }, /"difficulty": /],
    ] as const) {
      await write("data.json", [{ ...copy, ...change }]);
      expect(await failure(open("longbench-v2").then(collect))).toMatch(message);
    }
  });
});

describe("truncateMiddle()", () => {
  test("keeps both ends of a text that is far too long without tokenizing its middle", () => {
    const words = Array.from({ length: 200_000 }, (_, i) => `w${i}`).join(" ");
    const counter = wordCounter();
    let longest = 0;
    const counting = {
      ...counter,
      encode: (text: string) => {
        longest = Math.max(longest, text.length);
        return counter.encode(text);
      },
    };
    const { text, truncated } = truncateMiddle(words, 100, counting);
    expect(longest).toBeLessThan(words.length / 50);
    expect(text).toBe(`${words.slice(0, words.indexOf(" w50"))} w199950${words.slice(words.indexOf(" w199951"))}`);
    expect(truncated?.after).toBe(100);
    expect(truncated?.before).toBeGreaterThan(150_000);
    expect(truncated?.before).toBeLessThan(250_000);
  });

  test("cuts a little more where the halves meet in more tokens than they had apart", () => {
    // Two letters are one token in one text, and two in another.
    const encode = (text: string): number[] =>
      [...text].map((letter) => letter.charCodeAt(0)).flatMap((code, i) => (i === 3 ? [code, 0] : [code]));
    const decode = (ids: readonly number[]): string => String.fromCharCode(...ids.filter((id) => id !== 0));
    const { text, truncated } = truncateMiddle("abcdefghij", 6, { encode, decode });
    expect(encode(text).length).toBeLessThanOrEqual(6);
    expect(truncated).toEqual({ before: 11, after: encode(text).length });
  });
});

test("the list of suites names every task with its metric and what it needs", async () => {
  const list = listSuites();
  const count = (suite: SuiteName): number => list.filter((row) => row.suite === suite).length;
  expect((["ruler-core", "ruler", "longbench", "longbench-e", "longbench-v2"] as const).map(count)).toEqual([
    6, 13, 21, 13, 2,
  ]);
  expect(list.find(({ task }) => task === "qa_2")).toEqual({
    suite: "ruler",
    task: "qa_2",
    version: 2,
    metric: "string_match_part",
    scores: "binary",
    maxNewTokens: 32,
    data: "--hotpotqa",
  });
  expect(list.find(({ task }) => task === "vcsum")?.data).toMatch(/jieba/);
});

test("a record that names no task, in a file of several tasks, is a bad record", async () => {
  const record = { context: "Some text.", input: "Who?", answers: ["Petra"], dataset: "qasper" };
  await write("data.jsonl", [record, { ...record, dataset: 7 }].map((one) => JSON.stringify(one)).join("\n"));
  expect(await failure(open("longbench", { tasks: ["qasper"] }).then(collect))).toMatch(/line 2: "dataset": /);
  await write("data.jsonl", [record, { ...record, dataset: null }].map((one) => JSON.stringify(one)).join("\n"));
  expect(await failure(open("longbench", { tasks: ["qasper"] }).then(collect))).toMatch(
    /line 2: "dataset": names no task/,
  );
});
