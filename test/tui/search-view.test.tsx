import { PassThrough } from "node:stream";
import { render } from "ink-testing-library";
import { describe, expect, test, vi } from "vitest";
import { parsePattern } from "../../src/pattern/pattern.ts";
import type { Candidate } from "../../src/search/events.ts";
import type { SearchProgress } from "../../src/search/progress.ts";
import { openSearchView, SearchView } from "../../src/tui/search-view.tsx";

// ink looks at CI when it is imported, and then draws nothing before the end; a command opens no view there.
vi.hoisted(() => {
  process.env.CI = "false";
  process.env.CONTINUOUS_INTEGRATION = "false";
});

function tried(candidate: Pick<Candidate, "flipped" | "loss"> & Partial<Candidate>): Candidate {
  return { changeError: 0.001, sequences: 16, dropped: false, ...candidate };
}

const progress: SearchProgress = {
  pattern: parsePattern("FFSFFFFFFF"),
  step: 2,
  steps: 7,
  patterns: { done: 17, total: 46, isExact: false, replayed: 0 },
  layers: { done: 100, total: 260 },
  baselineLoss: 2.5,
  loss: 2.5625,
  sequences: 16,
  candidates: [1, 3, 4, 5, 6, 7, 8].map((layer) => tried({ flipped: [layer], loss: 3 - layer / 16 })),
  trying: [9],
  best: tried({ flipped: [8], loss: 2.5 }),
  path: [
    { full: 10, loss: 2.5 },
    { full: 9, loss: 2.5625 },
  ],
  accepted: [{ flipped: [2], letter: "S", loss: 2.5625 }],
  bests: new Map([
    [10, { pattern: parsePattern("FFFFFFFFFF"), loss: 2.5, firstLoss: 2.5 }],
    [9, { pattern: parsePattern("FFSFFFFFFF"), loss: 2.5625, firstLoss: 2.5625 }],
  ]),
  targets: [5, 3],
  isRefining: false,
  isResampling: false,
  elapsedSeconds: 75,
  etaSeconds: 130,
};

function frame(changes: Partial<SearchProgress> = {}, { columns = 80, rows = 24, hasJournal = true } = {}): string {
  const { lastFrame, unmount } = render(
    <SearchView
      title="glm-tiny"
      progress={{ ...progress, ...changes }}
      journal={hasJournal ? "p.json.journal.jsonl" : undefined}
      columns={columns}
      rows={rows}
      sideBySide={2}
    />,
  );
  const text = lastFrame() ?? "";
  unmount();
  return text;
}

/** A search of a deep model in its middle. */
function deep(): Partial<SearchProgress> {
  const pattern = parsePattern(`FFF${"FSSS".repeat(18)}FSF`);
  const sizes = Array.from({ length: 40 }, (_, index) => 78 - index);
  return {
    pattern,
    sequences: 16,
    candidates: Array.from({ length: 30 }, (_, index) => tried({ flipped: [index + 1], loss: 2.6 + index / 300 })),
    best: tried({ flipped: [1], loss: 2.6 }),
    trying: [40],
    accepted: sizes
      .slice(1)
      .map((size, index) => ({ flipped: [size - 1], letter: "S" as const, loss: 2.5 + index / 500 })),
    bests: new Map(
      sizes.map((size, index) => [size, { pattern, loss: 2.5 + index / 500, firstLoss: 2.5 + index / 500 }]),
    ),
  };
}

describe("SearchView", () => {
  test("reads without colour", () => {
    expect(frame()).toMatchInlineSnapshot(`
      "glm-tiny: step 2 of 7
      ████████████░░░░░░░░░░░░░░░░░░  38%  about 2 min 10 s left, 1 min 15 s elapsed
      17 of about 46 patterns, 2 sequences at once

        0 FFSFFFFFFf
          F runs its indexer   S reuses the F before it   f, s: being tried now
      loss 2.56250 (+0.06250 against every indexer)

      trying layer 9; loss above this step's pattern, lowest first
        layer 8                                   -0.06250 ±0.00100 best
        layer 7                                   +0.00000 ±0.00100
        layer 6  ████████████████                 +0.06250 ±0.00100
        layer 5  ███████████████████████████████▓ +0.12500 ±0.00100
        and 3 more
      loss above every indexer, by Full layers (log scale above 0.01)
       +0.06250       █████
              0 ▁▁▁▁▁ █████
                10 Full   9
      accepted, last below; loss against every indexer
        layer 2 Shared  +0.06250

      Ctrl-C saves; journal p.json.journal.jsonl"
    `);
  });

  test.each([60, 80, 140, 200])("fits into %i columns and any height, with all of a deep model's layers", (columns) => {
    for (const rows of [20, 24, 40, 60]) {
      for (const changes of [{}, deep(), { ...deep(), isRefining: true, targets: [39] }]) {
        const text = frame(changes, { columns, rows });
        const lines = text.split("\n");
        expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(columns);
        // As high as the terminal, and ink would clear it.
        expect(lines.length, `${columns} x ${rows}`).toBeLessThan(rows);
        expect(text).toContain("about 2 min 10 s left");
        expect(text).toContain("Ctrl-C saves");
      }
      const strip = frame({ ...deep(), trying: [] }, { columns, rows })
        .split("\n")
        .flatMap((line) => /^ +\d+ ([FS ]+)$/.exec(line)?.[1] ?? [])
        .join("")
        .replaceAll(" ", "");
      expect(strip).toBe(deep().pattern);
    }
  });

  test("uses the room of a large terminal: more candidates, the curve and accepted steps beside them", () => {
    const small = frame(deep(), { columns: 80, rows: 24 });
    const large = frame(deep(), { columns: 140, rows: 50 });
    const candidates = (text: string): number => text.match(/layer \d+ +[█▓]/g)?.length ?? 0;
    expect(candidates(large)).toBeGreaterThan(2 * candidates(small));
    expect(large).toMatch(/layer 1 .*loss above every indexer|loss above this step.*loss above every indexer/);
    expect(large).toContain("layer 38 Shared  +0.07600");
    expect(large.match(/\d Full +39/)).not.toBeNull();
  });

  test("shows the best, not what is tried, while results are refined", () => {
    const text = frame({
      isRefining: true,
      targets: [5, 3],
      pattern: parsePattern("FFFSSSSSSS"),
      trying: [4],
      bests: new Map([
        [5, { pattern: parsePattern("FFFFFSSSSS"), loss: 2.55, firstLoss: 2.55 }],
        [3, { pattern: parsePattern("FSSFSSSSSF"), loss: 2.6, firstLoss: 2.625 }],
      ]),
    });
    expect(text).toContain("refining, looking for better patterns than greedy's");
    expect(text).toContain("  0 FSSFSSSSSF\n");
    expect(text).toContain("the best with 3 Full: loss 2.60000 (+0.10000 against every indexer)");
    expect(text).toContain("  5 Full  +0.05000  greedy's own so far");
    expect(text).toContain("  3 Full  +0.10000  greedy's +0.12500");
  });

  test("tells candidates apart that flip several layers, and what was measured on a part", () => {
    const text = frame({
      trying: [2, 5],
      candidates: [tried({ flipped: [1, 2], loss: 2.625, sequences: 4 }), tried({ flipped: [1, 6], loss: 2.5 })],
      best: tried({ flipped: [1, 6], loss: 2.5 }),
    });
    expect(text).toContain("  0 FFsFFfFFFF\n");
    expect(text).toContain("trying layers 2 and 5; loss above");
    expect(text).toMatch(
      /layers 1 and 6 .* -0.06250 ±0.00100 best\n +layers 1 and 2 .* \+0.06250 ±0.00100 4\/16 seq\./,
    );
  });

  test("knows little at first and says so", () => {
    const text = frame({
      step: 0,
      loss: undefined,
      baselineLoss: undefined,
      candidates: [],
      best: undefined,
      trying: [],
      etaSeconds: undefined,
      accepted: [],
      bests: new Map(),
    });
    expect(text).toContain("measuring the loss with every indexer");
    expect(text).toContain("loss not known yet");
    expect(text).toContain("nothing measured yet");
    expect(text).not.toContain("left");
  });

  test("is not done before its patterns are", () => {
    const late = frame({
      layers: { done: 260, total: 260 },
      patterns: { done: 59, total: 64, isExact: true, replayed: 0 },
    });
    expect(late).toMatch(/ 99% {2}nearly done, /);
    const done = frame({
      layers: { done: 260, total: 260 },
      patterns: { done: 64, total: 64, isExact: true, replayed: 0 },
    });
    expect(done).toContain("100%");
  });

  test("says when the search is over and only looks how sure it is", () => {
    const over = { done: 46, total: 46, isExact: true, replayed: 0 };
    const text = frame({
      isRefining: true,
      isResampling: true,
      layers: { done: 260, total: 260 },
      patterns: over,
      etaSeconds: 0,
    });
    expect(text).toContain("glm-tiny: found; looking whether other text would have led there as well\n");
    expect(text).toContain("100%");
    expect(text).not.toContain("left");
  });

  test("promises to save only where it does", () => {
    expect(frame({}, { hasJournal: false })).toContain("without -o nothing is saved");
  });
});

/** Text as a terminal would show it, a line for each escape. */
function withoutEscapes(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escapes are what is taken off
  return text.replace(/\u001b\[[\d;?]*[A-Za-z]/g, "\n");
}

test("openSearchView() draws on the stream it is given, follows its size, and leaves the last state there", async () => {
  const stream = new PassThrough();
  const size = { columns: 140, rows: 40, isTTY: true };
  const terminal = Object.assign(stream, size) as unknown as NodeJS.WriteStream;
  let written = "";
  stream.on("data", (block: Buffer) => {
    written += block.toString();
  });
  const display = openSearchView(terminal, "glm-tiny", undefined);
  // ink draws when its own timer lets it, which on a busy machine may be much later.
  const drawn = (text: string) =>
    vi.waitFor(() => expect(withoutEscapes(written)).toContain(text), { timeout: 10_000 });
  display.tick({ ...progress, ...deep() });
  await drawn("glm-tiny");
  written = "";
  terminal.columns = 60;
  terminal.emit("resize");
  await drawn("glm-tiny");
  expect(
    withoutEscapes(written)
      .split("\n")
      .filter((line) => line.length > 60),
  ).toEqual([]);
  display.tick({ ...progress, step: 7 });
  written = "";
  display.close();
  await drawn("step 7 of 7");
  // What stays above the result promises nothing any more.
  expect(withoutEscapes(written).split("glm-tiny").at(-1)).not.toContain("Ctrl-C");
  written = "";
  // Whatever would still draw sets a timer for it.
  vi.useFakeTimers();
  try {
    terminal.emit("resize");
    display.tick(progress);
    await vi.runAllTimersAsync();
  } finally {
    vi.useRealTimers();
  }
  expect(written).toBe("");
});
