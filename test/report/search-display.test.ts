import { describe, expect, test } from "vitest";
import { fullPattern } from "../../src/pattern/pattern.ts";
import { PlainDisplay } from "../../src/report/search/search-display.ts";
import { oneByOne } from "../../src/search/events.ts";
import { ProgressTracker } from "../../src/search/progress.ts";
import { search } from "../../src/search/search.ts";
import { PatternSpace } from "../../src/search/space.ts";
import { exhaustive } from "../../src/search/strategies/exhaustive.ts";
import { greedy } from "../../src/search/strategies/greedy.ts";
import { refine } from "../../src/search/strategies/refine.ts";

const space = new PatternSpace(fullPattern(4));

/** Lines that the plain display writes for a search of four layers whose evaluations take `seconds` each. */
async function lines(seconds: number): Promise<string[]> {
  const written: string[] = [];
  const display = new PlainDisplay((line) => written.push(line));
  let now = 0;
  const tracker = new ProgressTracker(now);
  const evaluate = oneByOne(async (pattern) => {
    now += seconds;
    return [{ loss: 2 + pattern.lastIndexOf("S") / 8 + 1 / 8, tokens: 1 }];
  });
  for await (const event of search({ strategy: greedy }, { space, targets: [2], sequences: [0], evaluate })) {
    const progress = tracker.advance(event, now);
    if (progress !== undefined) display.show(event, progress);
  }
  display.close();
  return written;
}

describe("the plain display", () => {
  test("says of other strategies what they did, and that it knows their length roughly", async () => {
    const written: string[] = [];
    const display = new PlainDisplay((line) => written.push(line));
    const tracker = new ProgressTracker(0);
    const losses = new Map(Object.entries({ FFSS: 2.5, FSFS: 3, FSSF: 2, FSSS: 4 }));
    const evaluate = oneByOne(async (pattern) => [{ loss: losses.get(pattern) ?? 2.25, tokens: 1 }]);
    const patterns = { space, targets: [2], sequences: [0], evaluate };
    for (const strategy of [refine, exhaustive]) {
      for await (const event of search({ strategy }, patterns)) {
        const progress = tracker.advance(event, 0);
        if (progress !== undefined) display.show(event, progress);
      }
    }
    expect(written).toEqual([
      "refine: 3 steps, about 7 patterns from FFFF",
      "baseline: loss 2.25000, 1 of about 7 patterns",
      "step 1 of 3: layer 1 is Shared, loss 2.25000 (+0.00000), FSFF, 4 of about 7 patterns, about 0 s left",
      "step 2 of 3: layer 2 is Shared, loss 2.00000 (-0.25000), FSSF, 7 patterns",
      "8 patterns in 0 s",
      "exhaustive: 1 step, 4 patterns from FFFF",
      "baseline: loss 2.25000, 1 of 4 patterns, about 0 s left",
      "step 1 of 1: layers 1 and 2 are Shared, loss 2.00000 (-0.25000), FSSF, 4 patterns",
      "4 patterns in 0 s",
    ]);
  });

  test("writes one line a step", async () => {
    expect(await lines(1)).toEqual([
      "greedy: 2 steps, 6 patterns from FFFF",
      "baseline: loss 2.00000, 1 of 6 patterns",
      expect.stringMatching(
        /^step 1 of 2: layer 1 is Shared, loss 2.25000 \(\+0.25000\), FSFF, 4 of 6 patterns, about \S+ s left$/,
      ),
      "step 2 of 2: layer 2 is Shared, loss 2.37500 (+0.37500), FSSF, 6 patterns",
      "6 patterns in 6 s",
    ]);
  });

  test("is never silent for much longer than ten seconds", async () => {
    const written = await lines(11);
    expect(written.filter((line) => line.includes("best so far")).length).toBeGreaterThanOrEqual(3);
    expect(written).toContainEqual(
      expect.stringMatching(/^step 1 of 2, best so far layer 1 at 2.25000, 2 of 6 patterns, about /),
    );
  });
});
