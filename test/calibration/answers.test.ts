/** Sets of answers with their prompts, and mixes of sources. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { InputError, UsageError } from "../../src/base/errors.ts";
import { estimate } from "../../src/base/estimate.ts";
import { answerSet, loadAnswers, type PromptAndAnswer } from "../../src/calibration/answers.ts";
import { hashWindows } from "../../src/calibration/calibration-set.ts";
import { mixSets, sourceFactors } from "../../src/calibration/mix.ts";
import { calibrationSeed, requireEvaluationSeed } from "../../src/eval/generated/seeds.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const model = { vocabSize: 257, indexTopk: 4, maxPositionEmbeddings: 64 };

/** Bytes as ids, the turns one after the other. */
async function encode({ earlier, prompt, answer }: PromptAndAnswer) {
  const before = [256, ...Buffer.from(earlier.map(({ content }) => content).join("") + prompt)];
  return { ids: [...before, ...Buffer.from(answer)], scoredFrom: before.length };
}

const folder = temporaryFolder("file");

async function load(rows: object[], options = {}) {
  const path = join(folder, "set.jsonl");
  await writeFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  return loadAnswers(path, model, encode, options);
}

const answersOf = (set: Awaited<ReturnType<typeof load>>): string[] =>
  (set?.windows ?? []).map((ids, index) => Buffer.from(ids.slice(set?.scoredFrom[index])).toString());

describe("records", () => {
  test("of all shapes that have an answer give it, the rest is the prompt", async () => {
    const set = await load([
      { prompt: "How many?", answer: "four" },
      { prompt: "Once upon", completion: " a time" },
      { question: "Where?", context: "In Rome it was.", answers: { text: ["Rome"] } },
      {
        messages: [
          { role: "user", content: "one" },
          { role: "assistant", content: "first" },
          { role: "user", content: "two" },
          { role: "assistant", content: "second" },
          { role: "user", content: "thanks" },
        ],
      },
    ]);
    expect(answersOf(set)).toEqual(["four", " a time", "Rome", "second"]);
  });

  test("without an answer, too short or too long are left out, and counted", async () => {
    const set = await load([
      { prompt: "How many?", answer: "four" },
      { prompt: "?", answer: "no" },
      { prompt: "long ".repeat(20), answer: "no" },
      { messages: [{ role: "user", content: "nobody answers" }] },
    ]);
    expect(answersOf(set)).toEqual(["four"]);
    expect(set?.warnings.join("\n")).toMatch(/1 of 4 calibration rows is left out: .*line 4 .*assistant/);
    expect(set?.warnings.join("\n")).toMatch(
      /Of 3 answers .*1 have at most 5 tokens, where no pattern changes the loss, 1 have more than 64 tokens/,
    );
  });

  test("that have none are told from plain text", async () => {
    expect(await load([{ text: "a text" }, { input_ids: [1, 2, 3] }])).toBeUndefined();
    await expect(load([{ messages: [{ role: "user", content: "nobody answers" }] }])).rejects.toThrow(InputError);
  });

  test("are chosen by the seed, and the hash knows which tokens count", async () => {
    const rows = Array.from({ length: 9 }, (_, index) => ({ prompt: `Which is ${index}?`, answer: `number ${index}` }));
    const [one, same, other] = [
      await load(rows, { sequences: 3, seed: 1 }),
      await load(rows, { sequences: 3, seed: 1 }),
      await load(rows, { sequences: 3, seed: 2 }),
    ];
    expect(answersOf(one)).toEqual(answersOf(same));
    expect(answersOf(one)).not.toEqual(answersOf(other));
    const windows = one?.windows ?? [];
    expect(one?.hash).not.toBe(hashWindows(windows));
    expect(one?.hash).not.toBe(hashWindows(windows, [2, 2, 2]));
    expect(hashWindows(windows, [1, 1, 1])).toBe(hashWindows(windows));
  });
});

describe("a mix", () => {
  const set = (answers: readonly string[]) =>
    answerSet(
      "set",
      model,
      answers.map((answer) => ({ ids: Buffer.from(`prompt${answer}`), scoredFrom: 6 })),
      {},
    );

  test("is the weighted mean of its sources' means, whatever their sizes", () => {
    const mix = mixSets([
      { name: "few", weight: 3, answers: true, set: set(["abc", "d"]) },
      { name: "many", weight: 1, answers: true, set: set(["e", "f", "g", "hi", "jklm"]) },
    ]);
    expect(mix.sources.map(({ weight }) => weight)).toEqual([0.75, 0.25]);
    expect(mix.source).toBe("few=0.75 + many=0.25");
    const tokens = (index: number): number => (mix.windows[index]?.length ?? 0) - (mix.scoredFrom[index] ?? 0);
    const losses = [1, 5, 2, 8, 3, 7, 4];
    for (const judged of [
      [0, 1, 2, 3, 4, 5, 6],
      [1, 2, 4, 6],
    ]) {
      const factor = sourceFactors(mix.sources, judged, tokens);
      const mean = (of: readonly number[], weigh: (index: number) => number) =>
        estimate(of.map((index) => ({ loss: losses[index] ?? 0, tokens: tokens(index) * weigh(index) }))).mean;
      const [few, many] = mix.sources.map(({ sequences }) => sequences.filter((index) => judged.includes(index)));
      const wanted = 0.75 * mean(few ?? [], () => 1) + 0.25 * mean(many ?? [], () => 1);
      expect(mean(judged, factor)).toBeCloseTo(wanted, 12);
    }
    expect(() => sourceFactors(mix.sources, [0, 1], tokens)).toThrow(/"many"/);
  });

  test("of one source is that source", () => {
    const only = set(["abc", "d"]);
    const mix = mixSets([{ name: "only", weight: 0.3, answers: true, set: only }]);
    expect(mix.hash).toBe(only.hash);
    expect(sourceFactors(mix.sources, [0, 1], () => 3)(1)).toBe(1);
  });
});

test("seeds of calibration samples and of eval have no number in common", () => {
  expect(calibrationSeed(42)).toBe(2 ** 31 + 42);
  requireEvaluationSeed(2 ** 31 - 1);
  expect(() => requireEvaluationSeed(calibrationSeed(0))).toThrow(UsageError);
  expect(() => calibrationSeed(2 ** 31)).toThrow(UsageError);
});
