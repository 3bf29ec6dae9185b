import { render } from "ink-testing-library";
import { describe, expect, test } from "vitest";
import type { DistillEvent } from "../../src/distill/group-training.ts";
import { DistillProgress, type DistillState, PlainDistillDisplay } from "../../src/report/distill/distill-progress.ts";
import { DistillView } from "../../src/tui/distill-view.tsx";

const first = { full: 0, layers: [0, 1, 2, 3] };
const second = { full: 4, layers: [4] };

/** Of layer `full`. */
function measured(group: typeof first, step: number, missed: number, best: boolean): DistillEvent {
  const of = (value: number) => new Map([[group.full, value]]);
  return { type: "measured", group, best, measured: { step, missed: of(missed), divergence: of(1) } };
}

function stepped(group: typeof first, step: number, loss: number): DistillEvent {
  return { type: "step", group, done: { step, steps: 4, rate: 1, norm: 1, losses: new Map([[group.full, loss]]) } };
}

/** A second passes before each event. */
const events: DistillEvent[] = [
  { type: "group", group: first, index: 0, groups: 3 },
  measured(first, 0, 0.08, true),
  ...[0, 1, 2, 3].map((step) => stepped(first, step, 0.5 / (step + 1))),
  measured(first, 4, 0.0321, true),
  { type: "trained", group: first, parameters: new Map(), step: 4 },
  { type: "group", group: second, index: 1, groups: 3 },
  measured(second, 0, 0.1, true),
  stepped(second, 0, 0.25),
  stepped(second, 1, 0.2),
  measured(second, 2, 0.12, false),
];

function states(): DistillState[] {
  let now = 0;
  const progress = new DistillProgress(4, () => now);
  return events.map((event) => {
    now += 1;
    progress.take(event);
    return progress.state;
  });
}
const last = states().at(-1) as DistillState;

describe("the view of a distillation", () => {
  test("shows the groups, what each learns, and the time that is left", () => {
    const { lastFrame, unmount } = render(<DistillView title="demo: distill for uniform:4" state={last} work="w" />);
    expect(lastFrame()).toMatchInlineSnapshot(`
      "demo: distill for uniform:4
      ████████████████░░░░░░░░░░░░░░░░  50%  13 s elapsed, about 9.8 s left
      group 2 of 3, 4 steps each

      indexers of      steps                                 KL  attention missed
      layers 0 to 3    ████████████████████████████████  0.1250  8.00% -> 3.21% done
      layer 4          ████████████████░░░░░░░░░░░░░░░░  0.2000  10.00% -> 10.00%

      Ctrl-C saves; work w"
    `);
    unmount();
  });

  test("says what is done before the first step, and between groups", () => {
    const making: DistillState = {
      steps: 4,
      total: 0,
      groups: [],
      carried: { layer: 3, done: 2, total: 9 },
      elapsedSeconds: 1,
    };
    const { lastFrame, rerender, unmount } = render(<DistillView title="demo" state={making} work={undefined} />);
    expect(lastFrame()).toContain("hidden states: layer 3, 2 of 9 sequences");
    rerender(
      <DistillView title="demo" state={{ steps: 4, total: 0, groups: [], elapsedSeconds: 1 }} work={undefined} />,
    );
    expect(lastFrame()).toContain("making hidden states");
    unmount();
  });

  test.each([60, 80, 140, 200])("fits into %i columns and a low window, with names of any length", (columns) => {
    const groups = Array.from({ length: 78 }, (_, layer) => ({
      name: `layer ${layer}`,
      step: 4,
      divergence: 123.4567,
      missedFirst: 0.5,
      missedBest: 0.25,
      kept: 4,
    }));
    const { lastFrame, unmount } = render(
      <DistillView
        title={"de\u001b[31mmo/".repeat(30)}
        state={{ ...last, groups, total: 78 }}
        work={"w\u009b2J".repeat(60)}
        columns={columns}
        rows={20}
      />,
    );
    const lines = (lastFrame() ?? "").split("\n");
    unmount();
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(columns);
    expect(lines.length).toBeLessThan(20);
    const text = lines.join("\n");
    expect(text).toMatch(/layer 77 .* 50\.00% -> 25\.00%/);
    expect(text).toMatch(/^\d+ earlier$/m);
    for (const control of ["\u001b", "\u009b"]) expect(text).not.toContain(control);
  });

  test("is lines where there is no terminal: every group and measurement, steps once in a while", () => {
    const lines: string[] = [];
    const display = new PlainDistillDisplay(false, (line) => lines.push(line));
    for (const [at, state] of states().entries()) display.show(state, events[at]);
    display.show({ ...last, elapsedSeconds: 40, carried: { layer: 5, done: 1, total: 2 } });
    expect(lines).toEqual([
      "group 1 of 3: layers 0 to 3",
      "  step 0: held-out attention missed 8.00%  best so far",
      "  step 4: held-out attention missed 3.21%  best so far",
      "group 2 of 3: layer 4",
      "  step 0: held-out attention missed 10.00%  best so far",
      "  step 1 of 4  KL 0.2500  about 14 s left",
      "  step 2: held-out attention missed 12.00%",
      "  hidden states: layer 5, 1 of 2 sequences",
    ]);
  });
});
