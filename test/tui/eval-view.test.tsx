import { render } from "ink-testing-library";
import { describe, expect, test } from "vitest";
import type { EvalProgress } from "../../src/eval/run/progress.ts";
import { PlainEvalDisplay } from "../../src/report/eval/eval-display.ts";
import { EvalView } from "../../src/tui/eval-view.tsx";

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const controls = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/;

const progress: EvalProgress = {
  arms: ["full", "quarter.json"],
  scores: [0.812, 0.799],
  items: { done: 45, total: 600, replayed: 5 },
  task: "vt",
  length: 1024,
  elapsedSeconds: 75,
  etaSeconds: 130,
};

describe("the view of an evaluation", () => {
  test("shows how far it is, and each arm against the baseline", () => {
    const { lastFrame, unmount } = render(<EvalView title="demo: ruler-core" progress={progress} journal="r.jsonl" />);
    expect(lastFrame()).toMatchInlineSnapshot(`
      "demo: ruler-core
      ███░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░   7%  1 min 15 s elapsed
      45 of 600 items (vt at 1024), about 2 min 10 s left

      mean score so far, out of 100
      full         ████████████████████████░░░░░░  81.2  baseline
      quarter.json ████████████████████████░░░░░░  79.9  -1.3 points so far

      Ctrl-C saves; journal r.jsonl"
    `);
    unmount();
  });

  test("compares nothing before the first item", () => {
    const start = { ...progress, scores: [undefined, undefined], items: { done: 0, total: 600, replayed: 0 } };
    const { lastFrame, unmount } = render(<EvalView title="demo" progress={start} journal="r.jsonl" />);
    expect(lastFrame()).toMatch(/^quarter\.json ░+ {5}-$/m);
    unmount();
  });

  test("shows what a terminal would obey in names of models, patterns, tasks and files", () => {
    const evil = { ...progress, arms: ["full", "\u001b[2Jq.json"], task: "vt\u001b]0;x\u0007\n" };
    const { lastFrame, unmount } = render(
      <EvalView title={"de\u001b[31mmo: ruler-core"} progress={evil} journal={"r\u009b2J.jsonl"} />,
    );
    const text = lastFrame() ?? "";
    unmount();
    expect(text).not.toMatch(controls);
    for (const words of [
      "de\\u001b[31mmo: ruler-core",
      "(vt\\u001b]0;x\\u0007\\n at 1024)",
      "full            █",
      "\\u001b[2Jq.json █",
      "journal r\\u009b2J.jsonl",
    ]) {
      expect(text).toContain(words);
    }
    const lines: string[] = [];
    new PlainEvalDisplay((line) => lines.push(line)).show(evil);
    expect(lines.join("")).not.toMatch(controls);
  });

  test.each([60, 80, 140, 200])("fits into %i columns, with names of any length", (columns) => {
    const arms = ["full", `${"long/".repeat(30)}quarter.json`];
    const { lastFrame, unmount } = render(
      <EvalView title="demo" progress={{ ...progress, arms }} journal="r.jsonl" columns={columns} />,
    );
    const text = lastFrame() ?? "";
    unmount();
    expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThanOrEqual(columns);
    expect(text).toContain("-1.3 points so far");
  });

  test("is lines, one in a while, where there is no terminal", () => {
    const lines: string[] = [];
    const display = new PlainEvalDisplay((line) => lines.push(line));
    display.show({ ...progress, items: { ...progress.items, done: 0 } });
    display.show(progress);
    display.show({ ...progress, elapsedSeconds: 80 });
    display.show({ ...progress, elapsedSeconds: 90, items: { done: 50, total: undefined, replayed: 0 } });
    display.close({ ...progress, elapsedSeconds: 91 });
    expect(lines).toEqual([
      "45 of 600 items (vt at 1024), about 2 min 10 s left; full 81.2, quarter.json 79.9",
      "50 items (vt at 1024), about 2 min 10 s left; full 81.2, quarter.json 79.9",
      "45 items in 1 min 31 s, 5 from the journal",
    ]);
  });
});
