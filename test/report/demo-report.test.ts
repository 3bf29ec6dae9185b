import { expect, test } from "vitest";
import { parsePattern } from "../../src/pattern/pattern.ts";
import { formatDemoReport } from "../../src/report/demo-report.ts";

test("questions, answers, losses and indexers stand side by side in 80 columns", () => {
  const wrong = { text: " 4606062.\nAnd so on, and on", correct: false };
  const right = { text: "6204909", correct: true };
  const text = formatDemoReport({
    length: 1024,
    arms: [
      { name: "full", pattern: parsePattern("FFFF"), loss: 1.04066 },
      { name: "searched", pattern: parsePattern("FSSF"), loss: 1.09956 },
      { name: "uniform", pattern: parsePattern("FSFS"), loss: 1.65473 },
    ],
    questions: [
      {
        task: "niah",
        question: "number of a-key-that-is-longer-than-it-may-be",
        expected: "6204909",
        answers: [right, right, wrong],
      },
      {
        task: "vt",
        question: "variables that are 74931",
        expected: "ZNKDB, XVTNN, QQQQQ",
        answers: [right, wrong, wrong],
      },
    ],
  });
  expect(text.split("\n").every((line) => line.length <= 80)).toBe(true);
  expect(text).toMatch(/number of a-key-that-is-lo… +6204909 +✓ +✓ +✗ 4606062…/);
  expect(text).toMatch(/answered as expected +2 of 2 +1 of 2 +0 of 2/);
  expect(text).toMatch(/loss on held-out text +1.04066 +\+0.05890 +\+0.61407/);
  expect(text).toMatch(/indexers that run +4 of 4 +2 of 4 +2 of 4/);
});
