import { PassThrough } from "node:stream";
import { render } from "ink-testing-library";
import { describe, expect, test } from "vitest";
import { parsePattern } from "../../src/pattern/pattern.ts";
import type { Candidate } from "../../src/search/events.ts";
import type { SearchProgress } from "../../src/search/progress.ts";
import { openSearchView, SearchView } from "../../src/tui/search-view.tsx";

function tried(candidate: Pick<Candidate, "layer" | "others" | "loss"> & Partial<Candidate>): Candidate {
  return { changeError: 0.001, sequences: 16, dropped: false, ...candidate };
}

const progress: SearchProgress = {
  pattern: parsePattern("FFSFFFFFFF"),
  step: 2,
  steps: 7,
  evaluations: { done: 17, total: 46, replayed: 0 },
  layers: { done: 100, total: 260 },
  baselineLoss: 2.5,
  loss: 2.5625,
  sequences: 16,
  candidates: [1, 3, 4, 5, 6, 7, 8].map((layer) => tried({ layer, loss: 3 - layer / 16 })),
  trying: 9,
  best: tried({ layer: 8, loss: 2.5 }),
  path: [
    { full: 10, loss: 2.5 },
    { full: 9, loss: 2.5625 },
  ],
  elapsedSeconds: 75,
  etaSeconds: 130,
};

function frame(changes: Partial<SearchProgress> = {}, journal: string | undefined = "p.json.journal.jsonl"): string {
  const { lastFrame, unmount } = render(
    <SearchView title="glm-tiny" progress={{ ...progress, ...changes }} journal={journal} />,
  );
  const text = lastFrame() ?? "";
  unmount();
  return text;
}

describe("SearchView", () => {
  test("shows what a terminal would obey in the names of model and journal", () => {
    const { lastFrame, unmount } = render(
      <SearchView title={"glm\u001b[2J\n"} progress={progress} journal={"p\u009b31m.jsonl"} />,
    );
    const text = lastFrame() ?? "";
    unmount();
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
    expect(text).toContain("glm\\u001b[2J\\n: step 2 of 7\n");
    expect(text).toContain("journal p\\u009b31m.jsonl");
  });

  test("reads without colour", () => {
    expect(frame()).toBe(
      [
        "glm-tiny: step 2 of 7",
        "17 of 46 evaluations, about 2 min 10 s left, 1 min 15 s elapsed",
        "",
        "FFSFFFFFF[F]",
        "loss 2.56250 (+0.06250 against every indexer)",
        "10 Full ▁█ 9 Full, highest +0.06250",
        "",
        "trying layer 9; candidates of this step, best first:",
        "  layer  8  2.50000 ±0.00100 (-0.06250)  best so far",
        "  layer  7  2.56250 ±0.00100 (+0.00000)",
        "  layer  6  2.62500 ±0.00100 (+0.06250)",
        "  layer  5  2.68750 ±0.00100 (+0.12500)",
        "  layer  4  2.75000 ±0.00100 (+0.18750)",
        "  layer  3  2.81250 ±0.00100 (+0.25000)",
        "  layer  1  2.93750 ±0.00100 (+0.37500)",
        "",
        "Ctrl-C saves; journal p.json.journal.jsonl",
      ].join("\n"),
    );
  });

  test("tells candidates apart that flip several layers", () => {
    const text = frame({
      trying: 2,
      tryingOthers: [5],
      candidates: [
        tried({ layer: 1, others: [2], loss: 2.625, sequences: 4 }),
        tried({ layer: 1, others: [6], loss: 2.5 }),
      ],
      best: tried({ layer: 1, others: [6], loss: 2.5 }),
    });
    expect(text).toContain("FF[S]FF[F]FFFF");
    expect(text).toContain("trying layers 2 and 5; candidates of this step");
    expect(text).toContain(
      "  layers 1 and 6  2.50000 ±0.00100 (-0.06250)  best so far\n" +
        "  layers 1 and 2  2.62500 ±0.00100 (+0.06250), 4 of 16 sequences\n",
    );
  });

  test("knows little at first and says so", () => {
    const text = frame({
      step: 0,
      loss: undefined,
      baselineLoss: undefined,
      candidates: [],
      best: undefined,
      trying: undefined,
      etaSeconds: undefined,
    });
    expect(text).toContain("measuring the baseline");
    expect(text).toContain("loss not known yet");
    expect(text).toContain("none yet");
    expect(text).not.toContain("left");
  });

  test("lists more candidates where there is room", () => {
    const candidates = Array.from({ length: 30 }, (_, index) => tried({ layer: index + 1, loss: 3 }));
    const lines = (rows: number): number => {
      const { lastFrame, unmount } = render(
        <SearchView title="m" progress={{ ...progress, candidates }} journal="j" rows={rows} sideBySide={2} />,
      );
      const text = lastFrame() ?? "";
      unmount();
      expect(text).toContain("2 sequences at once");
      return text.split("\n").length;
    };
    expect(lines(24)).toBeLessThan(24);
    expect(lines(40)).toBeGreaterThan(30);
    expect(lines(40)).toBeLessThan(40);
  });

  test("promises to save only where it does", () => {
    const { lastFrame, unmount } = render(<SearchView title="glm-tiny" progress={progress} journal={undefined} />);
    expect(lastFrame()).toContain("without -o nothing is saved");
    unmount();
  });

  test("shows a pattern that is wider than the terminal in full", () => {
    const pattern = parsePattern(`F${"SF".repeat(80)}`);
    expect(frame({ pattern, trying: undefined }).replaceAll("\n", "")).toContain(pattern);
  });
});

test("openSearchView() draws on the stream it is given and leaves the last state there", async () => {
  const stream = new PassThrough();
  const terminal = Object.assign(stream, { columns: 80, rows: 24, isTTY: true }) as unknown as NodeJS.WriteStream;
  let written = "";
  stream.on("data", (block: Buffer) => {
    written += block.toString();
  });
  const display = openSearchView(terminal, "glm-tiny", undefined);
  display.tick(progress);
  display.tick({ ...progress, step: 7 });
  display.close();
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(written).toContain("step 7 of 7");
});
