import { describe, expect, test } from "vitest";
import { evalRows, type StatisticsSettings } from "../../../src/eval/run/rows.ts";
import type { EvalRow } from "../../../src/formats/eval-result.ts";
import type { Sample } from "../../../src/formats/sample-journal.ts";
import { parsePattern } from "../../../src/pattern/pattern.ts";
import { binaryTask, gradedTask, pair, sample } from "./samples.ts";

const settings: StatisticsSettings = { margin: 0.01, alpha: 0.05, permutations: 200, seed: 1 };
const rows = (items: Sample[][], tasks = [binaryTask, gradedTask]): EvalRow[] =>
  evalRows(
    items,
    tasks,
    (items[0] ?? []).map(({ arm }) => parsePattern(arm.pattern)),
    settings,
  );
const named = (found: readonly EvalRow[], name: string): EvalRow => found.find((row) => row.name === name) as EvalRow;

describe("rows", () => {
  test("are one for each task and length, one for each length, and one over all cells alike", () => {
    const items = [
      pair({ id: "a", length: 1024 }),
      pair({ id: "b", length: 1024 }),
      pair({ id: "a", length: 1024, task: "words", score: 0.5 }),
      pair({ id: "a", length: 2048, score: 0 }),
      pair({ id: "a", length: 2048, task: "words", score: 0.25 }),
    ];
    const found = rows(items);
    expect(found.map(({ kind, name, items: n, cells }) => [kind, name, n, cells])).toEqual([
      ["task", "needle 1024", 2, 1],
      ["task", "words 1024", 1, 1],
      ["task", "needle 2048", 1, 1],
      ["task", "words 2048", 1, 1],
      ["length", "all tasks at 1024", 3, 2],
      ["length", "all tasks at 2048", 2, 2],
      ["overall", "overall", 5, 4],
    ]);
    // The mean of cells, not of items.
    expect(named(found, "overall").arms[0]?.score).toBeCloseTo((1 + 0.5 + 0 + 0.25) / 4, 12);
    expect(named(found, "overall").metric).toBe("mean of tasks");
  });

  test("of one task at one length repeat nothing", () => {
    expect(rows([pair({})]).map(({ name }) => name)).toEqual(["needle"]);
  });

  test("are there for each value of a group that differs", () => {
    const groups = (difficulty: string) => ({ item: { groups: { difficulty, suite: "v2" } } });
    const found = rows([
      pair({ id: "a", ...groups("hard") }, { score: 0 }),
      pair({ id: "b", ...groups("easy") }),
      pair({ id: "c", ...groups("hard") }),
    ]);
    expect(found.map(({ name }) => name)).toEqual(["needle", "difficulty: hard", "difficulty: easy"]);
    expect(named(found, "difficulty: hard").comparisons[0]?.difference).toBe(-0.5);
  });

  test("leave out what no arm could run, and count it", () => {
    const long = { id: "b", finish: "too-long", score: 0 } as const;
    const [row] = rows([pair({ id: "a" }), pair(long, { finish: "too-long" })]);
    expect(row).toMatchObject({ items: 1, counts: { too_long: 1 }, arms: [{ score: 1 }, { score: 1 }] });
    const [empty] = rows([pair(long, { finish: "too-long" })]);
    expect(empty).toMatchObject({ items: 0, comparisons: [] });
  });

  test("leave out items with an empty output where the task drops them, as published, and count them", () => {
    const items = [
      pair({ id: "a" }, { output: "", score: 0 }),
      pair({ id: "b", thought: "" }, { score: 0 }),
      pair({ id: "c", output: " " }),
    ];
    const [dropped] = rows(items, [{ ...binaryTask, dropsEmpty: true }]);
    expect(dropped).toMatchObject({ items: 1, counts: { dropped_empty: 2 } });
    const [kept] = rows(items);
    expect(kept?.items).toBe(3);
    expect(kept?.counts.dropped_empty).toBeUndefined();
  });

  test("count thoughts that never closed, and prompts that fill less than 90% of their length", () => {
    const thinking = (closed: boolean) => ({ thinking: { text: "", tokens: 1, closed } });
    const [row] = rows([
      pair({ id: "a", ...thinking(true), item: { fill: 0.95 } }, thinking(false)),
      pair({ id: "b", ...thinking(true), item: { fill: 0.8 } }),
    ]);
    expect(row).toMatchObject({ counts: { underfilled: 1 }, arms: [{ unclosed: 0 }, { unclosed: 1 }] });
    expect(rows([pair({ id: "a" })])[0]?.arms[0]?.unclosed).toBeUndefined();
  });

  test("count empty outputs, those that the budget ended, and truncated prompts", () => {
    const [row] = rows([
      pair({ id: "a", output: " \n", item: { truncated: { before: 9, after: 5 } } }),
      pair({ id: "b" }, { finish: "length" }),
    ]);
    expect(row).toMatchObject({
      counts: { truncated: 1 },
      arms: [
        { empty: 1, cut_off: 0 },
        { empty: 1, cut_off: 1 },
      ],
    });
  });

  test("tell of outputs that part, the median position, and of gold losses", () => {
    const [row] = rows([
      pair({ id: "a" }, { output_tokens: [1, 9, 3] }),
      pair({ id: "b" }, { output_tokens: [1, 2, 3, 4], gold_loss: { nats: 6, tokens: 4 } }),
      pair({ id: "c" }),
    ]);
    expect(row?.comparisons[0]).toMatchObject({ same_outputs: 1, first_divergence: 1 });
    expect(row?.comparisons[0]?.gold_loss?.difference).toBeCloseTo(1 / 3, 12);
    expect(row?.arms[0]?.gold_loss).toBe(0.5);
  });

  test("score choices by the most likely label, besides the output", () => {
    const item = { choices: ["A", "B"], references: ["B"] };
    const found = rows([
      pair({ id: "a", item, score: 0, choice_log_probabilities: [-2, -1] }, { choice_log_probabilities: [-1, -2] }),
      pair({ id: "b", item, score: 0, choice_log_probabilities: [-1, -1] }),
    ]);
    expect(found.map(({ endpoint, metric }) => [endpoint, metric])).toEqual([
      ["generation", "string_match_all"],
      ["choices", "most likely choice"],
    ]);
    expect(found[1]).toMatchObject({
      scores: "binary",
      arms: [{ score: 0.5 }, { score: 0 }],
      comparisons: [{ lost: 1, test: "mcnemar" }],
    });
  });

  test("correct the p of tasks for their number", () => {
    const items = ["needle", "words"].flatMap((task) =>
      Array.from({ length: 8 }, (_, id) => pair({ id: String(id), task }, { score: 0 })),
    );
    const [first] = rows(items);
    expect(first?.comparisons[0]?.p_holm).toBeCloseTo(2 * (first?.comparisons[0]?.p ?? 0), 12);
  });

  test("of a single arm are scores without comparisons", () => {
    expect(rows([[sample()]])[0]).toMatchObject({ items: 1, arms: [{ score: 1 }], comparisons: [] });
  });
});
