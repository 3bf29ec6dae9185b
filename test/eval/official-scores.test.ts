/** Scores against those of the official Python scorers, on records that are hard to score (`tools/scorers`). */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { loadSegmentation } from "../../src/eval/longbench/segmentation.ts";
import { type LongbenchMetric, longbenchScore } from "../../src/eval/longbench/tasks.ts";
import { extractAnswer } from "../../src/eval/longbench/v2.ts";
import { stringMatchAll, stringMatchPart } from "../../src/eval/ruler/scoring.ts";

interface OfficialRecord {
  metric: LongbenchMetric | "string_match_all" | "string_match_part" | "choice";
  prediction: string;
  answers: string[];
  classes?: string[];
  score: number;
}

const path = join(import.meta.dirname, "..", "fixtures", "scorers", "official.jsonl");
const records: OfficialRecord[] = readFileSync(path, "utf8")
  .trimEnd()
  .split("\n")
  .map((line) => JSON.parse(line));
const segment = await loadSegmentation();

function scoreOf({ metric, prediction, answers, classes = [] }: OfficialRecord): number {
  if (metric === "choice") return extractAnswer(prediction) === answers[0] ? 1 : 0;
  // RULER's functions give percent, rounded to two decimals.
  if (metric === "string_match_all") return Math.round(10_000 * stringMatchAll(prediction, answers)) / 100;
  if (metric === "string_match_part") return 100 * stringMatchPart(prediction, answers);
  if (segment === undefined) throw new Error("needs @node-rs/jieba");
  return longbenchScore(metric, prediction, answers, classes, { codeRatio: "difflib", segment });
}

describe("scores equal the official ones to the last bit", () => {
  const metrics = [...new Set(records.map(({ metric }) => metric))];
  const scorable = metrics.filter((metric) => segment !== undefined || !/^(qa_f1|rouge)_zh$/.test(metric));
  test.each(scorable)("%s", (metric) => {
    const of = records.filter((record) => record.metric === metric);
    expect(of.length).toBe(60);
    expect(new Set(of.map(({ score }) => score)).size).toBeGreaterThan(1);
    for (const record of of) expect(scoreOf(record), JSON.stringify(record)).toBe(record.score);
  });
});

describe.runIf(segment !== undefined)("Python's jieba", () => {
  test.each([
    ["用GPT-4做AES-256", ["用", "GPT", "-", "4", "做", "AES", "-", "256"]],
    ["a-1.5和50%5", ["a", "-", "1.5", "和", "50%", "5"]],
    ["T恤C++与AT&T", ["T恤", "C++", "与", "AT&T"]],
    ["豈㐀 x\r\ny", ["豈", "㐀", " ", "x", "\r\n", "y"]],
    ["", []],
  ])("cuts %j as Python does", (text, words) => {
    expect(segment?.(text)).toEqual(words);
  });
});
