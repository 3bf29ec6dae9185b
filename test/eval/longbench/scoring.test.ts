import { createRequire } from "node:module";
import { describe, expect, test } from "vitest";
import { rougeL } from "../../../src/eval/longbench/rouge.ts";
import {
  classificationScore,
  codeSimilarity,
  countScore,
  firstLine,
  fuzzRatio,
  qaF1,
  qaF1Chinese,
  retrievalScore,
  rougeChinese,
} from "../../../src/eval/longbench/scoring.ts";
import { loadSegmentation } from "../../../src/eval/longbench/segmentation.ts";
import { longbenchTasks } from "../../../src/eval/longbench/tasks.ts";
import { extractAnswer } from "../../../src/eval/longbench/v2.ts";

/** Values of the reference Python: pltrdy/rouge 1.0.1, fuzzywuzzy over difflib, THUDM's metrics.py. */
test("code_sim rounds 100 times the ratio, as fuzzywuzzy does, not the ratio of 100 times the matches", () => {
  // 2 * 23 / 80 is 0.575, and 100 times that a little below 57.5.
  expect(fuzzRatio("c".repeat(23) + "x".repeat(20), "c".repeat(23) + "y".repeat(14), "difflib")).toBe(57);
});

describe("LongBench's scores are the official ones:", () => {
  test.each([
    ["the cat sat on the mat", "the cat is on the mat", 0.8],
    ["the the the cat. a dog barked", "the cat. the dog barked loudly", 0.8],
    ["Hello world", "hello world", 0.5],
    ["a b c d e f g", "g f e d c b a", 1 / 7],
    [
      "The committee met on Monday. It approved the budget. Members left early.",
      "On Monday the committee approved the budget. The members then left.",
      0.54545454,
    ],
    ["x. y. z", "z. y. x", 1],
    ["3.14 is pi", "pi is 3.14", 0.75],
    ["", "a b", 0],
    [".", "a b", 0],
    ["...", "a b", 0],
    [" ", "a b", 0],
  ])("rouge of %j and %j", (hypothesis, reference, expected) => {
    expect(rougeL(hypothesis, reference)).toBeCloseTo(expected, 7);
  });

  test("rouge of sentences on which the original's recursion fails", () => {
    const words = Array.from({ length: 2000 }, (_, i) => `w${i}`).join(" ");
    expect(rougeL(words, words)).toBeCloseTo(1, 7);
  });

  test.each([
    ["return x + 1", "return x+1", 91, 91, 91],
    ["    for i in range(10):", "    for i in range(n):", 93, 93, 93],
    ["abcd", "bcda", 75, 75, 75],
    ["qabxcd", "abycdf", 67, 67, 67],
    ["self.assertEqual(a, b)", "self.assertTrue(b == a)", 62, 67, 67],
    ["int main(void) {", "int main() {", 86, 86, 86],
    ["private tide", "tidal privet", 42, 50, 50],
    ["if (x == null) return;", "return x != null;", 51, 36, 51],
  ])("fuzz.ratio of %j and %j", (prediction, gold, difflib, swapped, indel) => {
    expect(fuzzRatio(prediction, gold, "difflib")).toBe(difflib);
    expect(fuzzRatio(gold, prediction, "difflib")).toBe(swapped);
    expect(fuzzRatio(prediction, gold, "indel")).toBe(indel);
  });

  test("fuzz.ratio of nothing", () => {
    expect([fuzzRatio("", "", "difflib"), fuzzRatio("", "a", "difflib"), fuzzRatio("a", "", "indel")]).toEqual([
      100, 0, 0,
    ]);
  });

  test("fuzz.ratio where difflib takes characters of a long text for popular", () => {
    // Python's SequenceMatcher(None, a, b).ratio(): 0.0, and 0.571 where the popular ones belong to a block anyhow.
    expect(fuzzRatio(`b${"a".repeat(100)}`, `c${"a".repeat(250)}`, "difflib")).toBe(0);
    expect(fuzzRatio("a".repeat(100), "a".repeat(250), "difflib")).toBe(57);
    expect(fuzzRatio("a".repeat(100), "a".repeat(199), "difflib")).toBe(67);
  });

  test.each([
    ["The Eiffel Tower, in Paris.", "eiffel tower", 2 / 3],
    ["an apple a day", "the apple", 2 / 3],
    ["42", "forty-two", 0],
    ["yes", "Yes.", 1],
    ["new-york city", "New York City", 0.4],
    ["", "x", 0],
    // Letters of other scripts are letters: no article stands alone here.
    ["caña", "cña", 0],
  ])("qa_f1 of %j and %j", (prediction, gold, expected) => {
    expect(qaF1(prediction, gold)).toBeCloseTo(expected, 6);
  });

  test("count and retrieval", () => {
    expect(countScore("There are 7 of 12", "7")).toBe(0.5);
    expect(countScore("seven", "7")).toBe(0);
    expect(retrievalScore("Paragraph 3, or 4", "Paragraph 4", "Paragraph ")).toBe(0.5);
    expect(retrievalScore("段落12", "段落12", "段落")).toBe(1);
  });

  test("classification skips the class behind one that it removes", () => {
    const classes = ["City", "Other location", "location", "Other"];
    expect(classificationScore("Other location", "Other location", classes)).toBe(0.5);
    expect(classificationScore("Other location", "Other location", ["Other", "location", "Other location"])).toBe(0.5);
    expect(classificationScore("City", "Other location", classes)).toBe(0);
  });

  test("code is scored on the first line without comment or fence", () => {
    expect(codeSimilarity("\n```python\n# first\nreturn x + 1\nmore", "return x+1", "difflib")).toBe(0.91);
    expect(codeSimilarity("\n\n# only\n// comments", "return x", "difflib")).toBe(0);
    expect(firstLine("\n\nHUM\nmore")).toBe("HUM");
  });

  test.each([
    ["The correct answer is (B).", "B"],
    ["**The correct answer is C**", "C"],
    ["the correct answer is (A)", null],
    ["The correct answer is: (A)", null],
    ["The correct answer is (insert answer here) D", null],
    ["The correct answer is B) foo, no: The correct answer is (D)", "D"],
    ["Answer: D", null],
    ["The correct answer is Alpha", "A"],
    ["", null],
  ])("v2's answer in %j", (output, expected) => {
    expect(extractAnswer(output)).toBe(expected);
  });
});

test("a task takes the best of its answers, and few-shot tasks the first line", () => {
  const tasks = longbenchTasks({ codeRatio: "difflib" });
  const score = (name: string, output: string, references: string[], classes?: string[]): number | undefined =>
    tasks
      .find((task) => task.name === name)
      ?.score(output, {
        id: "0",
        task: name,
        prompt: { user: "", answerPrefix: "", chat: true },
        references,
        goldAnswer: "",
        ...(classes === undefined ? {} : { classes }),
      });
  expect(score("hotpotqa", "Paris", ["London", "Paris"])).toBe(1);
  expect(score("hotpotqa", "Paris\nQuestion", ["Paris"])).toBeCloseTo(2 / 3);
  expect(score("triviaqa", "\nParis\nQuestion", ["Paris"])).toBe(1);
  expect(score("trec", "Type: City\nOther", ["City"], ["City", "Other"])).toBe(1);
  expect(tasks.map(({ maxNewTokens }) => maxNewTokens).reduce((a, b) => a + b)).toBe(3168);
});

const jiebaInstalled = (() => {
  try {
    createRequire(import.meta.url).resolve("@node-rs/jieba");
    return true;
  } catch {
    return false;
  }
})();

test.runIf(jiebaInstalled)("Chinese scores count words, not characters", async () => {
  const segment = await loadSegmentation();
  if (segment === undefined) throw new Error("jieba is installed and does not load");
  expect(segment("我来到北京清华大学")).toEqual(["我", "来到", "北京", "清华大学"]);
  expect(qaF1Chinese("我来到北京。", "我来到清华大学！", segment)).toBeCloseTo(2 / 3, 9);
  expect(rougeChinese("我来到北京", "我来到清华大学", segment)).toBeCloseTo(2 / 3, 6);
});
