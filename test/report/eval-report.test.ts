import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { evalResultSchema, formatEvalResult, readEvalResult } from "../../src/formats/eval-result.ts";
import type { Sample } from "../../src/formats/sample-journal.ts";
import { parsePattern } from "../../src/pattern/pattern.ts";
import { gateFailures } from "../../src/report/eval/eval-gate.ts";
import { formatJunit } from "../../src/report/eval/eval-junit.ts";
import { evalRecord } from "../../src/report/eval/eval-record.ts";
import { formatEvalMarkdown, formatEvalReport } from "../../src/report/eval/eval-report.ts";
import { binaryTask, gradedTask, pair } from "../eval/run/samples.ts";

function result(items: readonly Sample[][], joined: Partial<Parameters<typeof evalRecord>[0]> = {}) {
  return evalRecord({
    fingerprint: {
      model_name: "tiny",
      model_config_hash: "a",
      weight_hash: "b",
      tokenizer_hash: "c",
      chat_template: "none",
      chat_template_hash: null,
      suite: "ruler-core",
      suite_version: 1,
      settings: { seed: 42 },
      tool_version: "0",
    },
    described: { samples: items.length },
    arms: [
      { name: "full", pattern: parsePattern("FFFF"), repeat: 0 },
      { name: "a<b>&.json", pattern: parsePattern("FSFS"), repeat: 0 },
    ],
    tasks: [binaryTask],
    items,
    statistics: { margin: 0.01, alpha: 0.05, permutations: 100, seed: 42 },
    notes: ["A note"],
    skipped: [{ task: "qa_1", reason: "needs --squad" }],
    bad: [{ where: "x.jsonl, line 3", problem: "no answer" }],
    wallSeconds: 12,
    runtime: "onnxruntime-node 1",
    command: "indexcache eval -o e.json",
    ...joined,
  });
}

const many = (lost: number, items: number, length?: number): Sample[][] =>
  Array.from({ length: items }, (_, id) =>
    pair({ id: String(id), ...(length === undefined ? {} : { length }) }, id < lost ? { score: 0 } : {}),
  );

/** Nothing is right under either arm; what answers lose moves all the same. */
const atFloor = (items: readonly Sample[][]): Sample[][] =>
  items.map((samples) => samples.map((one, arm) => ({ ...one, score: 0, gold_loss: { nats: 4 + arm, tokens: 4 } })));

test("joined suites are tables of their own, and the mean over all of them comes last", () => {
  const ask = (task: string, suite: string): Sample[] => pair({ task, item: { groups: { suite } } });
  const items = [ask("needle", "one"), ask("words", "two")];
  const text = formatEvalReport(
    result(items, {
      tasks: [binaryTask, gradedTask],
      sections: [
        { name: "one", version: 1, tasks: ["needle"] },
        { name: "two", version: 1, tasks: ["words"] },
      ],
    }),
  );
  const begins = text.split("\n").map((line) => line.split(/ {2,}/)[0]);
  expect(begins.filter((word) => /^(one|two|all suites|needle|words|suite: .*|overall)$/.test(word ?? ""))).toEqual([
    ...["one", "needle", "suite: one", "two", "words", "suite: two", "all suites", "overall"],
  ]);
  expect(text.match(/^Task /gm)).toHaveLength(3);
});

describe("the report", () => {
  const bad = result(many(30, 40));

  test("has scores, change and verdict in a table, and what it cannot show below", () => {
    const text = formatEvalReport(bad);
    const [title, first, second] = text.split("\n");
    expect(title).toMatch(/^Task +n +Arm +Score +Change +95% CI +p +Gold loss +Change +Verdict$/);
    expect(first).toMatch(/^needle +40 +full +100\.0 +0\.5000$/);
    expect(second).toMatch(
      /^ +a<b>&\.json +25\.0 +-75\.0 +-8\d\.\d to -5\d\.\d +<0\.0001\* +0\.5000 +\+0\.0000 +inferior$/,
    );
    for (const words of [
      "A note.",
      "Skipped qa_1: needs --squad",
      "Bad records left out: 1",
      "x.jsonl, line 3",
      "Wall time 12 s.",
    ]) {
      expect(text).toContain(words);
    }
  });

  test.each([80, 60])(
    "is laid out for a terminal of %i columns: no number is torn, every verdict is whole",
    (width) => {
      const lines = formatEvalReport(bad, width).split("\n");
      expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(width);
      expect(lines).toContain("needle, n 40");
      expect(lines.join("\n")).toMatch(
        /^ +a<b>&\.json +25\.0 +-75\.0 .*\n +(gold loss 0\.5000; change \+0\.0000; )?inferior$/m,
      );
      // A file or pipe gets the same whatever the terminal.
      expect(formatEvalReport(bad)).not.toContain("needle, n 40");
      expect(formatEvalReport(bad, 500)).toBe(formatEvalReport(bad));
    },
  );

  test("numbers arms whose names a terminal has no room for, and says which is which", () => {
    const name = `${"results/".repeat(8)}quarter.json`;
    const long = { ...bad, arms: bad.arms.map((arm, index) => (index === 0 ? arm : { ...arm, name })) };
    const text = formatEvalReport(long, 80);
    expect(text).toMatch(/^ +arm 1 +25\.0/m);
    expect(text).toMatch(/^arm 1 is\n(results\/)+quarter\.json:\nFSFS/m);
    expect(formatEvalReport(long)).toMatch(new RegExp(`^ +${name} +25`, "m"));
  });

  test("of a version that resampled is read and printed", async () => {
    const old = await readEvalResult(join(import.meta.dirname, "../fixtures/eval/result-of-0.1.0-resampled.json"));
    expect(formatEvalReport(old)).toContain("10,000 resamples, seed 42");
  });

  test("says what the number of items needed promises", () => {
    expect(formatEvalReport(result(many(1, 40)))).toContain("settle the verdict with a chance of 80%");
    expect(formatEvalReport(bad)).not.toContain("chance of 80%");
  });

  test("is a record that its own schema takes back", () => {
    expect(evalResultSchema.parse(JSON.parse(formatEvalResult(bad)))).toEqual(bad);
  });

  test("is Markdown with every interval", () => {
    const [title, line] = formatEvalMarkdown(bad).split("\n");
    expect(title?.split("|").length).toBe(line?.split("|").length);
    expect(title).toContain("| Score | 95% CI | Change | 95% CI | p |");
  });

  test("says the items that are needed, ceilings and floors", () => {
    const equal = { arms: ["full", "again"].map((name) => ({ name, pattern: parsePattern("FFFF"), repeat: 0 })) };
    expect(formatEvalReport(result(many(0, 40), equal))).toMatch(/identical \(ceiling\)/);
    expect(formatEvalReport(result(many(1, 40)))).toMatch(/inconclusive: [\d,]+ more items needed/);
    const text = formatEvalReport(result(atFloor(many(0, 40))));
    expect(text).toMatch(/cannot tell \(floor\)$/m);
    expect(text).toContain("Cannot tell (floor): the baseline scores no more there than the margin");
  });

  test("of patterns that change nothing cannot tell: they never acted", () => {
    const unmoved = result(many(0, 2000));
    expect(formatEvalReport(unmoved)).toMatch(/cannot tell \(no effect\)$/m);
    expect(gateFailures(unmoved, "inferior")).toEqual([
      "needle cannot tell whether a<b>&.json loses anything (no effect)",
    ]);
  });

  test("says how many tasks of a mean cannot tell", () => {
    const words = atFloor(many(0, 40)).map((samples) => samples.map((one) => ({ ...one, task: "words" })));
    const text = formatEvalReport(result([...many(1, 40), ...words], { tasks: [binaryTask, gradedTask] }));
    expect(text).toContain("1 of the 2 tasks in the mean cannot tell, and make every change in it smaller.");
  });

  test("fails a gate by what it says", () => {
    expect(gateFailures(bad, "inferior")).toEqual(["a<b>&.json is inferior on needle"]);
    const open = result(many(1, 40));
    expect(gateFailures(open, "inferior")).toEqual([]);
    expect(gateFailures(open, "inconclusive")).toEqual(["a<b>&.json is inconclusive on needle"]);
    const floor = result(atFloor(many(0, 4000)));
    for (const gate of ["inferior", "inconclusive"] as const) {
      expect(gateFailures(floor, gate)).toEqual(["needle cannot tell whether a<b>&.json loses anything (floor)"]);
    }
    // With several cells the row over all of them decides.
    const cells = result([...many(0, 2000, 1024), ...many(1, 40, 2048)]);
    expect(cells.rows.map(({ comparisons }) => comparisons[0]?.verdict)).toEqual([
      "inconclusive",
      "inconclusive",
      "inconclusive",
    ]);
    expect(gateFailures(cells, "inconclusive")).toEqual(["a<b>&.json is inconclusive on overall"]);
  });

  test("is JUnit XML in which names are escaped", () => {
    const xml = formatJunit(bad, "inferior");
    expect(xml).toContain(
      '<testsuite name="ruler-core: a&lt;b&gt;&amp;.json against full" tests="2" failures="1" skipped="1"',
    );
    expect(xml).toContain('<failure message="inferior: -75.00 points');
    expect(xml).toContain('name="qa_1"><skipped message="needs --squad"/>');
    // What cannot tell is not passed: without a gate it was skipped, with one it fails.
    const floor = result(atFloor(many(0, 40)));
    expect(formatJunit(floor, undefined)).toContain('<skipped message="cannot tell (floor): ');
    expect(formatJunit(floor, "inferior")).toContain('<failure message="cannot tell (floor): ');
  });
});
