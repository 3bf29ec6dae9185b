/** Scores against those that the cards of GraphWalks and MRCR describe, by Python (`tools/scorers/published_scores.py`). */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { answeredNodes, nodesF1 } from "../../src/eval/graphwalks/scoring.ts";
import { mrcrScore } from "../../src/eval/mrcr/suite.ts";
import { sequenceRatio } from "../../src/eval/sequence-matcher.ts";

interface PublishedRecord {
  metric: "nodes_f1" | "difflib_ratio";
  prediction: string;
  answers: string[];
  start?: string;
  score: number;
  literal?: number;
}

const path = join(import.meta.dirname, "..", "fixtures", "scorers", "published.jsonl");
const records: PublishedRecord[] = readFileSync(path, "utf8")
  .trimEnd()
  .split("\n")
  .map((line) => JSON.parse(line));

function scoreOf({ metric, prediction, answers, start = "" }: PublishedRecord): number {
  return metric === "nodes_f1" ? nodesF1(prediction, answers) : mrcrScore(prediction, answers[0] ?? "", start);
}

describe("scores equal the published ones to the last bit", () => {
  test.each(["nodes_f1", "difflib_ratio"] as const)("%s", (metric) => {
    const of = records.filter((record) => record.metric === metric);
    expect(of.length).toBeGreaterThanOrEqual(200);
    expect(new Set(of.map(({ score }) => score)).size).toBeGreaterThan(15);
    for (const record of of) expect(scoreOf(record), JSON.stringify(record)).toBe(record.score);
  });
});

describe("GraphWalks' list of nodes", () => {
  test.each([
    ["Final Answer: [a, b]", ["a", "b"]],
    ["Thinking.\nFinal Answer:[a,b ]\n", ["a", "b"]],
    ["Final Answer: []", []],
    ["Final Answer: a, b", undefined],
    ["Final Answer: [a]\nDone.", undefined],
    ["", undefined],
  ])("of %j", (output, nodes) => {
    expect(answeredNodes(output)).toEqual(nodes);
  });

  test("a wrong answer is not right, an empty one is where nothing is to be found", () => {
    expect(nodesF1("Final Answer: [x]", ["a", "b"])).toBe(0);
    expect(nodesF1("Final Answer: []", [])).toBe(1);
    expect(nodesF1("nothing", [])).toBe(0);
    expect(nodesF1("Final Answer: [a, x]", ["a", "b", "c"])).toBeCloseTo(0.4);
  });
});

test("two empty texts are alike, as difflib has it", () => {
  expect(sequenceRatio("", "")).toBe(1);
  expect(sequenceRatio("a", "")).toBe(0);
});
