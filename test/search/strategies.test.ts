import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { RuntimeFailure, UsageError } from "../../src/base/errors.ts";
import { TIE_NATS } from "../../src/base/near-tie.ts";
import { fullLayers, fullPattern, type Pattern, parsePattern } from "../../src/pattern/pattern.ts";
import type { SearchEvent } from "../../src/search/events.ts";
import { ProgressTracker } from "../../src/search/progress.ts";
import { differences, PatternSpace } from "../../src/search/space.ts";
import { blockwise } from "../../src/search/strategies/blockwise.ts";
import { exhaustive } from "../../src/search/strategies/exhaustive.ts";
import { greedy } from "../../src/search/strategies/greedy.ts";
import { rankedExchanges } from "../../src/search/strategies/ranked-exchanges.ts";
import { refine } from "../../src/search/strategies/refine.ts";
import { strategies } from "../../src/search/strategies/strategies.ts";
import type { SearchMethod } from "../../src/search/strategy.ts";
import { beam, floating, forward, withSwaps } from "./comparators.ts";
import { everyLoss, indices, knownOf, layersRun, noise, type Problem, problems, run } from "./synthetic.ts";

const race = { alpha: 0.05, block: 2, seed: 1 };
const methods: SearchMethod[] = [
  { strategy: refine },
  { strategy: greedy },
  { strategy: forward },
  { strategy: blockwise, settings: { blocks: 2 } },
  { strategy: beam(3, "backward") },
  { strategy: beam(3, "forward") },
  { strategy: floating },
  { strategy: exhaustive },
  { strategy: withSwaps(greedy) },
  { strategy: withSwaps(floating, { pairs: true }) },
  { strategy: withSwaps(refine, { pairs: true }) },
  { strategy: greedy, race },
  { strategy: forward, race },
  { strategy: beam(2, "backward"), race },
  { strategy: greedy, bounded: true },
  { strategy: beam(2, "forward"), bounded: true },
  { strategy: refine, bounded: true },
];
const named = methods.map((method) => {
  const { strategy, ...others } = method;
  return [`${strategy.name} ${JSON.stringify(others)}`, method] as const;
});

/** What does not depend on where evaluations came from. */
function told(events: readonly SearchEvent[]): unknown[] {
  return events.map((event) => (event.kind === "evaluation done" ? { ...event, replayed: undefined } : event));
}

describe("refine with few indexers", () => {
  /** Patterns have nothing to do with each other: the best one is not on a way that greedy would take. */
  const problem = (layers: number, targets: number[]): Problem => ({
    start: fullPattern(layers),
    targets,
    sequences: 2,
    loss: (pattern, sequence) => 1 + sequence + 0.1 * noise(pattern),
  });

  test("measures every pattern of the wanted sizes where that takes no more layers than it may run, and says so", async () => {
    for (const [layers, targets] of [
      [12, [3]],
      [10, [2, 3]],
      [7, [6]],
    ] as const) {
      const asked = problem(layers, [...targets]);
      const { result, events, calls } = await run({ strategy: refine }, asked);
      const all = await run({ strategy: exhaustive }, asked);
      const plain = await run({ strategy: greedy }, asked);
      expect(result.isOptimum).toBe(true);
      expect(all.result.isOptimum).toBe(true);
      expect(plain.result.isOptimum).toBeUndefined();
      expect(result.patterns.map(({ pattern }) => pattern)).toEqual(all.result.patterns.map(({ pattern }) => pattern));
      const measured = new Set(calls.map(({ pattern }) => pattern));
      for (const { pattern } of all.calls) expect(measured).toContain(pattern);
      expect(result.layers).toBeLessThanOrEqual(2 * plain.result.layers);
      expect(events[0]).toMatchObject({ kind: "plan", foreseen: { isOptimum: true } });
    }
  });

  test("does not where there are too many, unless its budget allows them", async () => {
    const asked = problem(10, [5]);
    const { result, events, calls } = await run({ strategy: refine }, asked);
    expect(result.isOptimum).toBeUndefined();
    expect(events[0]).toMatchObject({ kind: "plan", foreseen: { isOptimum: false } });
    const measured = new Set(calls.map(({ pattern }) => pattern));
    expect([...measured].filter((pattern) => fullLayers(pattern).length === 5).length).toBeLessThan(126);
    const rich = await run({ strategy: refine, settings: { budget: 6 } }, asked);
    expect(rich.result.isOptimum).toBe(true);
    expect(rich.result.patterns[0]?.evaluation.loss).toBe(
      (await run({ strategy: exhaustive }, asked)).result.patterns[0]?.evaluation.loss,
    );
  });
});

const mean = ({ loss, sequences = 1 }: Problem, pattern: ReturnType<typeof parsePattern>): number =>
  indices(sequences).reduce((sum, index) => sum + loss(pattern, index), 0) / sequences;

describe.each(named)("%s", (_, method) => {
  const all = problems({ maxSequences: 6, constrained: method.strategy !== blockwise });

  test("gives an allowed pattern of every wanted size, measured on all sequences, with the steps that lead to it", async () => {
    await fc.assert(
      fc.asyncProperty(all, async (problem) => {
        const { result, calls } = await run(method, problem);
        const { start, targets, constraints = {} } = problem;
        const space = new PatternSpace(start, constraints);
        expect(result.patterns.map(({ pattern }) => fullLayers(pattern).length)).toEqual(
          [...targets].sort((left, right) => right - left),
        );
        for (const { pattern, base } of calls) {
          for (const one of [pattern, base]) {
            expect(one[0]).toBe("F");
            for (const layer of fullLayers(one)) expect(start[layer]).toBe("F");
          }
        }
        for (const { pattern, evaluation, steps } of result.patterns) {
          expect(space.allows(pattern)).toBe(true);
          expect(evaluation).toMatchObject({ complete: true, loss: expect.closeTo(mean(problem, pattern), 9) });
          expect(steps.at(-1)?.pattern ?? pattern).toBe(pattern);
          for (const [index, step] of steps.entries()) {
            const before = steps[index - 1];
            if (before !== undefined) expect(differences(before.pattern, step.pattern)).toEqual(step.flipped);
            expect(step.candidates).toContainEqual(
              expect.objectContaining({ flipped: step.flipped, loss: step.evaluation.loss, dropped: false }),
            );
          }
        }
      }),
    );
  });

  test("measures no pattern twice on a sequence, counts to its end, and departs from bases that it has run", async () => {
    await fc.assert(
      fc.asyncProperty(all, async (problem) => {
        const { events, calls, result } = await run(method, problem);
        const measured = calls.flatMap(({ pattern, sequences }) => sequences.map((index) => `${pattern}/${index}`));
        expect(new Set(measured).size).toBe(measured.length);
        expect(result.evaluations).toBe(new Set(calls.map(({ pattern }) => pattern)).size);
        expect(result.sequenceEvaluations).toBe(measured.length);
        const seen = new Set<string>();
        for (const { pattern, base } of calls) {
          seen.add(pattern);
          expect(seen.has(base)).toBe(true);
        }
        const plan = events[0];
        if (plan?.kind !== "plan") throw new Error("no plan");
        const tracker = new ProgressTracker(0);
        const counted = new Set<Pattern>();
        for (const [index, event] of events.entries()) {
          const progress = tracker.advance(event, index);
          expect(progress?.patterns.done).toBeLessThanOrEqual(progress?.patterns.total ?? 0);
          if (event.kind === "evaluation done") expect(event.done).toBe(counted.add(event.pattern).size);
          if (event.kind === "done") {
            expect(progress?.patterns).toMatchObject({ done: counted.size, total: counted.size });
            expect(event.result.evaluations).toBe(counted.size);
          }
        }
      }),
    );
  });

  test("replays what is known, without a question, to the same events", async () => {
    await fc.assert(
      fc.asyncProperty(all, fc.nat(), async (problem, cut) => {
        const whole = await run(method, problem);
        const before = whole.calls.slice(0, cut % (whole.calls.length + 1));
        const resumed = await run(method, problem, { recall: knownOf(before, problem.loss) });
        expect(told(resumed.events)).toEqual(told(whole.events));
        expect([...before, ...resumed.calls]).toEqual(whole.calls);
      }),
      { numRuns: 30 },
    );
  });

  test("gives the same result whatever another strategy has measured before", async () => {
    await fc.assert(
      fc.asyncProperty(all, async (problem) => {
        const other = await run({ strategy: greedy }, problem);
        const { result } = await run(method, problem, { recall: knownOf(other.calls, problem.loss) });
        expect(result).toEqual((await run(method, problem)).result);
      }),
      { numRuns: 30 },
    );
  });

  const rough: Problem = {
    start: fullPattern(6),
    targets: [3],
    loss: (pattern) => 2 + Math.sin(1 + pattern.lastIndexOf("F") + 3 * pattern.indexOf("S")),
  };

  test("does not go on with a loss that is not a number", async () => {
    let asked = 0;
    const loss = (): number => (++asked === 4 ? Number.NaN : 2);
    await expect(run(method, { ...rough, loss })).rejects.toThrow(RuntimeFailure);
    expect(asked).toBe(4);
  });

  test("stops between two evaluations when asked", async () => {
    const stop = new AbortController();
    let asked = 0;
    const loss = (): number => {
      if (++asked === 5) stop.abort(new Error("asked to stop"));
      return 2 + asked / 10;
    };
    await expect(run(method, { ...rough, loss }, { signal: stop.signal })).rejects.toThrow("asked to stop");
    expect(asked).toBe(5);
  });

  test("measures the baseline alone where nothing is to be shared", async () => {
    const { last, calls } = await run(method, { start: parsePattern("FFSF"), targets: [3], loss: () => 2 });
    expect(last).toMatchObject({ pattern: "FFSF", evaluation: { loss: 2, change: 0 }, steps: [] });
    expect(calls).toHaveLength(1);
  });

  test("refuses a target above the model's own Full layers", async () => {
    await expect(run(method, { start: parsePattern("FSSF"), targets: [3], loss: () => 2 })).rejects.toThrow(UsageError);
  });
});

describe("beam", () => {
  test.each([
    ["backward", "greedy", greedy],
    ["forward", "forward", forward],
  ] as const)("of width 1, %s, is %s", async (direction, _, strategy) => {
    await fc.assert(
      fc.asyncProperty(problems({ maxLayers: 10, constrained: true }), async (problem) => {
        const narrow = await run({ strategy: beam(1, direction) }, problem);
        const other = await run({ strategy }, problem);
        expect(narrow.calls).toEqual(other.calls);
        expect(narrow.result.patterns.map(({ pattern }) => pattern)).toEqual(
          other.result.patterns.map(({ pattern }) => pattern),
        );
      }),
    );
  });

  test.each(["backward", "forward"] as const)("that is wide, %s, finds the optimum", async (direction) => {
    await fc.assert(
      fc.asyncProperty(problems({ maxLayers: 7, constrained: true }), async (problem) => {
        const { last } = await run({ strategy: beam(64, direction) }, problem);
        expect(last.evaluation.loss).toBeLessThanOrEqual(Math.min(...everyLoss(problem, problem.retain)) + TIE_NATS);
      }),
    );
  });
});

describe("blockwise", () => {
  test("takes a flip from each block in turn and keeps the first layer of each", async () => {
    const loss = (pattern: string): number => 2 + noise(pattern);
    const { last } = await run(
      { strategy: blockwise, settings: { blocks: 3 } },
      {
        start: fullPattern(12),
        targets: [6],
        loss,
        constraints: { pinned: new Map([4, 8].map((layer) => [layer, "a block"])) },
      },
    );
    expect(last.steps.map(({ flipped: [layer = 0] }) => Math.floor(layer / 4))).toEqual([0, 1, 2, 0, 1, 2]);
    expect([0, 4, 8].map((layer) => last.pattern[layer])).toEqual(["F", "F", "F"]);
  });
});

describe("exhaustive", () => {
  const firstShared = (pattern: string): number => 2 + pattern.indexOf("S") / 10;

  test("finds the optimum of every target in as many evaluations as there are patterns", async () => {
    await fc.assert(
      fc.asyncProperty(problems({ maxSequences: 3, constrained: true }), async (problem) => {
        const { result } = await run({ strategy: exhaustive }, problem);
        for (const { pattern, evaluation } of result.patterns) {
          const losses = everyLoss(problem, fullLayers(pattern).length);
          expect(evaluation.loss).toBeLessThanOrEqual(Math.min(...losses) + TIE_NATS);
        }
      }),
    );
  });

  test("runs every shared beginning of patterns once", async () => {
    const { calls } = await run({ strategy: exhaustive }, { start: fullPattern(6), targets: [3], loss: firstShared });
    const beginnings = new Set(
      calls.slice(1).flatMap(({ pattern }) => Array.from(pattern, (_, end) => pattern.slice(0, end + 1))),
    );
    // The baseline runs every layer, the first one for all of them.
    expect(layersRun(calls)).toBe(6 + beginnings.size - 1);
  });

  test("says how many evaluations are too many", async () => {
    const problem = { start: fullPattern(47), targets: [12], loss: firstShared };
    await expect(run({ strategy: exhaustive }, problem)).rejects.toThrow(/takes 13,340,783,197 evaluations, the limit/);
    // 5,005 of 15 free layers, beside the start.
    const small = { start: fullPattern(16), targets: [7], loss: firstShared };
    await expect(run({ strategy: exhaustive }, small)).rejects.toThrow("takes 5,006 evaluations, the limit is 5,000");
  });
});

describe("floating", () => {
  test("is never worse than greedy", async () => {
    await fc.assert(
      fc.asyncProperty(problems({ maxLayers: 10, constrained: true }), async (problem) => {
        const floated = await run({ strategy: floating }, problem);
        const plain = await run({ strategy: greedy }, problem);
        expect(floated.last.evaluation.loss).toBeLessThanOrEqual(plain.last.evaluation.loss);
      }),
      { numRuns: 300 },
    );
  });

  test("gives a layer its indexer back where that beats the pattern known of that size", async () => {
    // Greedy shares 1, then 2, then 3. From there the way back up finds FFSSF, from which FFSSS is in reach.
    const known = new Map(
      Object.entries({ FFFFF: 1, FSFFF: 1.1, FSSFF: 1.2, FSSSF: 1.5, FFSSF: 1.15, FFSSS: 1.3, FSSSS: 3 }),
    );
    const problem = { start: fullPattern(5), targets: [2], loss: (pattern: string) => known.get(pattern) ?? 2 };
    expect((await run({ strategy: greedy }, problem)).last.pattern).toBe("FSSSF");
    const { last } = await run({ strategy: floating }, problem);
    expect(last.steps.map(({ pattern }) => pattern)).toEqual(["FSFFF", "FSSFF", "FSSSF", "FFSSF", "FFSSS"]);
  });
});

describe("swaps", () => {
  test("never worsen a result, and leave none that one more swap would improve", async () => {
    await fc.assert(
      fc.asyncProperty(problems({ constrained: true }), async (problem) => {
        for (const strategy of [greedy, forward]) {
          const plain = await run({ strategy }, problem);
          const { last } = await run({ strategy: withSwaps(strategy) }, problem);
          expect(last.evaluation.loss).toBeLessThanOrEqual(plain.last.evaluation.loss);
          const space = new PatternSpace(problem.start, problem.constraints);
          for (const { pattern: other } of rankedExchanges(space, last.pattern, 1, () => 0)) {
            expect(problem.loss(other, 0)).toBeGreaterThanOrEqual(last.evaluation.loss - TIE_NATS);
          }
        }
      }),
    );
  });

  test("in pairs find what single ones do not", async () => {
    const losses = new Map(Object.entries({ FFFSS: 1.5, FSSFF: 1 }));
    const loss = (pattern: string): number => losses.get(pattern) ?? 2 + pattern.lastIndexOf("S") / 100;
    const problem = { start: fullPattern(5), targets: [3], loss };
    losses.set("FFFSF", 1.8).set("FFFFS", 1.7);
    expect((await run({ strategy: withSwaps(greedy) }, problem)).last.pattern).toBe("FFFSS");
    expect((await run({ strategy: withSwaps(greedy, { pairs: true }) }, problem)).last.pattern).toBe("FSSFF");
  });
});

describe("bounded", () => {
  test("chooses what measuring everything chooses, and never measures more", async () => {
    await fc.assert(
      fc.asyncProperty(problems({ maxLayers: 9, maxSequences: 12, constrained: true }), async (problem) => {
        // Losses of these problems are positive, as KL is.
        for (const strategy of [greedy, forward]) {
          const whole = await run({ strategy }, problem);
          const bounded = await run({ strategy, bounded: true }, problem);
          expect(bounded.last.steps.map(({ pattern }) => pattern)).toEqual(
            whole.last.steps.map(({ pattern }) => pattern),
          );
          expect(bounded.result.sequenceEvaluations).toBeLessThanOrEqual(whole.result.sequenceEvaluations);
        }
      }),
    );
  });
});

describe("racing", () => {
  test("takes exact steps where sequences differ by a constant, and drops most candidates early", async () => {
    // Every paired difference is the same on every sequence: no test can be wrong.
    const problem: Problem = {
      start: fullPattern(10),
      targets: [3],
      sequences: 24,
      loss: (pattern, sequence) => 2 + noise(pattern) + noise(`${sequence}`) * 3,
    };
    const exact = await run({ strategy: greedy }, problem);
    const raced = await run({ strategy: greedy, race: { alpha: 0.01, block: 4, seed: 0 } }, problem);
    expect(raced.last.pattern).toBe(exact.last.pattern);
    expect(raced.last.evaluation).toEqual(exact.last.evaluation);
    expect(raced.result.sequenceEvaluations).toBeLessThan(0.3 * exact.result.sequenceEvaluations);
  });

  test("is refused where patterns of different steps are compared", async () => {
    const problem = { start: fullPattern(4), targets: [2], loss: () => 2 };
    const racing = strategies.filter(({ mayRace }) => mayRace).map(({ name }) => name);
    expect(racing).toContain("greedy");
    await expect(run({ strategy: floating, race }, problem)).rejects.toThrow(
      `--race goes with ${racing.join(", ")}, not with --strategy floating`,
    );
  });
});

describe("refine", () => {
  test("is never worse than greedy at any target, runs at most twice its layers, and says what it gained", async () => {
    await fc.assert(
      fc.asyncProperty(problems({ maxLayers: 12, maxSequences: 8, constrained: true }), async (problem) => {
        const { result } = await run({ strategy: refine }, problem);
        const plain = await run({ strategy: greedy }, problem);
        expect(result.layers).toBeLessThanOrEqual(2 * plain.result.layers);
        for (const [index, { evaluation }] of result.patterns.entries()) {
          const first = plain.result.patterns[index];
          expect(evaluation.loss).toBeLessThanOrEqual(first?.evaluation.loss ?? 0);
          const refined = result.refinements?.find(
            ({ retain }) => retain === fullLayers(first?.pattern ?? fullPattern(1)).length,
          );
          if (refined === undefined) continue;
          expect(refined).toMatchObject({ firstPattern: first?.pattern, firstLoss: first?.evaluation.loss });
          expect(refined.gain.mean).toBeCloseTo((first?.evaluation.loss ?? 0) - evaluation.loss, 9);
          expect(refined.gain.mean === 0 || refined.gain.mean > TIE_NATS).toBe(true);
        }
      }),
      { numRuns: 200 },
    );
  });
});
