import { expect, test } from "vitest";
import { fullPattern } from "../../src/pattern/pattern.ts";
import { oneByOne } from "../../src/search/events.ts";
import type { Recall } from "../../src/search/losses.ts";
import { ProgressTracker, type SearchProgress } from "../../src/search/progress.ts";
import { rehearse, search } from "../../src/search/search.ts";
import { PatternSpace } from "../../src/search/space.ts";
import { greedy } from "../../src/search/strategies/greedy.ts";
import { refine } from "../../src/search/strategies/refine.ts";
import { readLandscape } from "./landscape.ts";
import { indices } from "./synthetic.ts";

/** Follows a greedy search whose evaluations take one second for each layer that they run. */
async function follow(recall: Recall = () => undefined, warmUp = 0): Promise<SearchProgress[]> {
  let now = 100;
  const tracker = new ProgressTracker(now);
  const states: SearchProgress[] = [];
  const work = search(
    { strategy: greedy },
    {
      space: new PatternSpace(fullPattern(5)),
      targets: [2],
      sequences: [0],
      recall,
      evaluate: oneByOne(async (pattern, _, { base }) => {
        const first = [...pattern].findIndex((letter, layer) => letter !== base[layer]);
        now += 5 - Math.max(first, 0) + (now === 100 ? warmUp : 0);
        return [{ loss: 2 + pattern.lastIndexOf("S") / 8, tokens: 1 }];
      }),
    },
  );
  for await (const event of work) {
    const state = tracker.advance(event, now);
    if (state !== undefined) states.push(state);
  }
  return states;
}

test("the progress of a search counts, keeps the best candidate and ends at nothing left", async () => {
  const states = await follow();
  expect(states[0]).toMatchObject({
    step: 0,
    steps: 3,
    patterns: { done: 0, total: 10 },
    etaSeconds: undefined,
    elapsedSeconds: 0,
  });
  const midway = states.find(({ patterns }) => patterns.done === 4);
  expect(midway).toMatchObject({
    pattern: "FFFFF",
    step: 1,
    baselineLoss: 1.875,
    best: { flipped: [1], loss: 2.125 },
    candidates: [{ flipped: [1] }, { flipped: [2] }, { flipped: [3] }],
    elapsedSeconds: 5 + 4 + 3 + 2,
  });
  expect(states.at(-1)).toMatchObject({
    patterns: { done: 10, total: 10 },
    etaSeconds: 0,
    candidates: [],
    best: undefined,
  });
});

test("the estimate counts the layers that a rehearsal foresees, a second each", async () => {
  const states = await follow();
  const space = new PatternSpace(fullPattern(5));
  const { layers } = await rehearse({ strategy: greedy }, { space, targets: [2], sequences: [0] });
  const after = (done: number) => states.find(({ patterns }) => patterns.done === done)?.etaSeconds;
  expect(after(2)).toBeCloseTo(layers - 5 - 4, 9);
  expect(after(5)).toBeCloseTo(layers - 5 - (4 + 3 + 2 + 1), 9);
});

test("nothing is foreseen from the first evaluation, which also opens and warms up", async () => {
  const after = (states: SearchProgress[], done: number) =>
    states.find(({ patterns }) => patterns.done === done)?.etaSeconds;
  const cold = await follow(undefined, 36);
  expect(after(cold, 1)).toBeUndefined();
  expect(after(cold, 2)).toBeCloseTo(after(await follow(), 2) as number, 9);
});

test("replayed patterns are counted and do not make the estimate hopeful", async () => {
  const known: Record<string, number> = { FFFFF: 2, FSFFF: 2.1 };
  const states = await follow((pattern) => {
    const loss = known[pattern];
    return loss === undefined ? undefined : { loss, tokens: 1 };
  });
  const third = states.find(({ patterns }) => patterns.done === 2);
  expect(third).toMatchObject({ patterns: { replayed: 2 }, etaSeconds: undefined });
  expect(states.at(-1)?.patterns).toEqual({ done: 10, total: 10, isExact: true, replayed: 2 });
});

test.each([
  ["greedy", { strategy: greedy }],
  ["greedy with races", { strategy: greedy, race: { alpha: 0.1, block: 4, seed: 0 } }],
  ["refine", { strategy: refine }],
])(
  "of %s on trained models is right within a factor of two for all but a few evaluations, at the end too",
  async (_, method) => {
    const ratios: number[] = [];
    for (const name of ["demo", "l10", "l14"] as const) {
      const { layers, calibration } = readLandscape(name);
      let now = 0;
      const tracker = new ProgressTracker(now);
      const estimates: { at: number; left: number }[] = [];
      const work = search(method, {
        space: new PatternSpace(fullPattern(layers)),
        targets: [Math.round(layers / 4)],
        sequences: indices(8),
        evaluate: oneByOne(async (pattern, asked) => {
          const losses = calibration.perSequence(pattern);
          return asked.map((index) => ({ loss: losses[index] ?? Number.NaN, tokens: calibration.tokens - 1 }));
        }),
      });
      for await (const event of work) {
        // A second a layer.
        if (event.kind === "evaluation done") now += event.layers;
        const left = tracker.advance(event, now)?.etaSeconds;
        if (event.kind === "evaluation done" && left !== undefined) estimates.push({ at: now, left });
      }
      const late = estimates.filter(({ at }) => at > 0.8 * now && at < 0.98 * now);
      ratios.push(...late.map(({ at, left }) => left / (now - at)));
    }
    const right = ratios.filter((ratio) => ratio >= 0.5 && ratio <= 2);
    expect(right.length / ratios.length).toBeGreaterThan(0.75);
  },
);
