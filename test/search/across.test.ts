/** Searches by the worst of several sources, against all patterns of their size. */
import { describe, expect, test } from "vitest";
import { fullPattern, isFull, type Pattern } from "../../src/pattern/pattern.ts";
import { oneByOne } from "../../src/search/events.ts";
import { requireFeasible, search } from "../../src/search/search.ts";
import { PatternSpace } from "../../src/search/space.ts";
import { exhaustive } from "../../src/search/strategies/exhaustive.ts";
import { greedy } from "../../src/search/strategies/greedy.ts";
import { refine } from "../../src/search/strategies/refine.ts";
import type { SearchMethod } from "../../src/search/strategy.ts";
import { noise } from "./synthetic.ts";

const sources = [
  [0, 1, 2, 3],
  [4, 5, 6, 7, 8, 9],
];
const sequences = sources.flat();
const layers = 9;
const space = new PatternSpace(fullPattern(layers));

/** Nothing with every indexer, as a divergence; each source has layers of its own that it cannot do without. */
function loss(pattern: Pattern, index: number): number {
  const source = index < 4 ? "text" : "answers";
  let total = 0;
  for (let layer = 1; layer < layers; layer++) {
    if (!isFull(pattern, layer)) total += noise(`${source} ${layer}`) ** 2 + 0.05 * noise(`${index} ${layer}`);
  }
  return total;
}

const worst = (pattern: Pattern): number =>
  Math.max(...sources.map((own) => own.reduce((sum, index) => sum + loss(pattern, index), 0) / own.length));

async function found(method: SearchMethod, retain: number) {
  const evaluate = oneByOne(async (pattern, asked) =>
    asked.map((index) => ({ loss: loss(pattern, index), tokens: 100 })),
  );
  const work = search(method, { space, targets: [retain], sequences, sources, evaluate, stability: true });
  for await (const event of work) if (event.kind === "done") return event.result;
  throw new Error("a search without a result");
}

describe.each([2, 3, 4, 5])("to %i Full layers", (retain) => {
  const least = Math.min(...[...space.patterns(retain)].map(worst));

  test.each([refine, exhaustive])("$name finds the pattern whose worst source loses least", async (strategy) => {
    const { patterns } = await found({ strategy, across: "worst" }, retain);
    expect(worst(patterns[0]?.pattern ?? space.start)).toBeCloseTo(least, 9);
    expect(patterns[0]?.evaluation.change).toBeCloseTo(least, 9);
  });

  test("a bound of divergences takes the same steps as whole measurements", async () => {
    const whole = await found({ strategy: greedy, across: "worst" }, retain);
    const bounded = await found({ strategy: greedy, across: "worst", bounded: true }, retain);
    expect(bounded.patterns[0]?.steps.map(({ pattern }) => pattern)).toEqual(
      whole.patterns[0]?.steps.map(({ pattern }) => pattern),
    );
    expect(bounded.sequenceEvaluations).toBeLessThan(whole.sequenceEvaluations);
  });
});

test("the mean leads elsewhere, and resamples are judged by the worst source as well", async () => {
  const byMean = await found({ strategy: exhaustive }, 4);
  const byWorst = await found({ strategy: exhaustive, across: "worst" }, 4);
  const [mean, minimax] = [byMean, byWorst].map(({ patterns }) => patterns[0]?.pattern ?? space.start);
  expect(minimax).not.toBe(mean);
  // Sequences of a source hardly differ here: every resample agrees with the search that it repeats.
  expect(byWorst.stability).toMatchObject([{ agreement: 1 }]);
});

test("a race, whose tests are of means, is refused", () => {
  const method = { strategy: greedy, across: "worst", race: { alpha: 0.1, block: 2, seed: 0 } } as const;
  expect(() => requireFeasible(method, space, [3])).toThrow(/--race does not go with --across worst/);
});
