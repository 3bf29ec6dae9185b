import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { RuntimeFailure, UsageError } from "../../src/base/errors.ts";
import { fullLayers, fullPattern, parsePattern } from "../../src/pattern/pattern.ts";
import type { Evaluation, SearchEvent } from "../../src/search/events.ts";
import { ProgressTracker } from "../../src/search/progress.ts";
import type { Strategy } from "../../src/search/strategy.ts";
import { differences, TIE_NATS } from "../../src/search/trials.ts";
import { everyLoss, layersRun, type Problem, problems, run } from "./synthetic.ts";

const strategies: Strategy[] = [
  { name: "greedy" },
  { name: "forward" },
  { name: "beam", width: 3, direction: "backward" },
  { name: "beam", width: 3, direction: "forward" },
  { name: "floating" },
  { name: "exhaustive" },
  { name: "look-again" },
  { name: "greedy", swaps: {} },
  { name: "forward", swaps: { improvement: "first" } },
  { name: "floating", swaps: { pairs: true } },
  { name: "look-again", swaps: { pairs: true, improvement: "first" } },
];
const named = strategies.map((strategy) => [JSON.stringify(strategy), strategy] as const);

/** What does not depend on where evaluations came from. */
function told(events: readonly SearchEvent<Evaluation>[]): unknown[] {
  return events.map((event) => (event.kind === "evaluation done" ? { ...event, replayed: undefined } : event));
}

describe.each(named)("%s", (_, strategy) => {
  test("gives a pattern of the wanted size whose steps lead to it, and leaves layers without an indexer alone", async () => {
    await fc.assert(
      fc.asyncProperty(problems(), async (problem) => {
        const { result, calls } = await run(strategy, problem);
        const { start, retain, loss } = problem;
        expect(fullLayers(result.pattern)).toHaveLength(retain);
        for (const { pattern, base } of calls) {
          for (const one of [pattern, base]) {
            expect(one[0]).toBe("F");
            for (const layer of fullLayers(one)) expect(start[layer]).toBe("F");
          }
        }
        expect(result.baseline.loss).toBe(loss(start));
        expect(result.final.loss).toBe(loss(result.pattern));
        expect(result.steps.at(-1)?.pattern ?? result.pattern).toBe(result.pattern);
        for (const [index, step] of result.steps.entries()) {
          const before = result.steps[index - 1];
          expect(step.evaluation.loss).toBe(loss(step.pattern));
          const flipped = [step.flippedLayer, ...(step.otherLayers ?? [])];
          if (before !== undefined) expect(differences(before.pattern, step.pattern)).toEqual(flipped);
          expect(step.candidates).toContainEqual(
            expect.objectContaining({ layer: step.flippedLayer, loss: step.evaluation.loss }),
          );
        }
      }),
    );
  });

  test("evaluates no pattern twice, counts to its end, and departs from bases that it has run", async () => {
    await fc.assert(
      fc.asyncProperty(problems(), async (problem) => {
        const { events, calls, result } = await run(strategy, problem);
        expect(new Set(calls.map(({ pattern }) => pattern)).size).toBe(calls.length);
        expect(result.evaluations).toBe(calls.length);
        const seen = new Set<string>();
        for (const { pattern, base } of calls) {
          seen.add(pattern);
          expect(seen.has(base)).toBe(true);
        }
        const plan = events[0];
        if (plan?.kind !== "plan") throw new Error("no plan");
        const tracker = new ProgressTracker(0);
        let counted = 0;
        for (const [index, event] of events.entries()) {
          const progress = tracker.advance(event, index);
          expect(progress?.evaluations.done).toBeLessThanOrEqual(progress?.evaluations.total ?? 0);
          if (event.kind === "evaluation done") expect(event.done).toBe(++counted);
          if (event.kind !== "plan" && event.kind !== "done") expect(event.step).toBeLessThanOrEqual(plan.steps);
          if (event.kind === "done") expect(progress?.evaluations).toMatchObject({ done: counted, total: counted });
        }
      }),
    );
  });

  test("replays what is known, without a question, to the same events", async () => {
    await fc.assert(
      fc.asyncProperty(problems(), fc.nat(), async (problem, cut) => {
        const whole = await run(strategy, problem);
        const known = whole.calls.slice(0, cut % (whole.calls.length + 1));
        const memo = new Map(known.map(({ pattern }) => [pattern as string, { loss: problem.loss(pattern) }]));
        const resumed = await run(strategy, problem, { memo });
        expect(told(resumed.events)).toEqual(told(whole.events));
        expect([...known, ...resumed.calls]).toEqual(whole.calls);
      }),
      { numRuns: 30 },
    );
  });

  test("uses what greedy has measured", async () => {
    await fc.assert(
      fc.asyncProperty(problems(), async (problem) => {
        const greedy = await run({ name: "greedy" }, problem);
        const memo = new Map(greedy.calls.map(({ pattern }) => [pattern as string, { loss: problem.loss(pattern) }]));
        const { calls, result } = await run(strategy, problem, { memo });
        expect(calls.some(({ pattern }) => memo.has(pattern))).toBe(false);
        expect(result).toEqual((await run(strategy, problem)).result);
      }),
      { numRuns: 30 },
    );
  });

  const rough: Problem = {
    start: fullPattern(6),
    retain: 3,
    loss: (pattern) => 2 + Math.sin(1 + pattern.lastIndexOf("F") + 3 * pattern.indexOf("S")),
  };

  test("does not go on with a loss that is not a number", async () => {
    let asked = 0;
    const loss = (): number => (++asked === 4 ? Number.NaN : 2);
    await expect(run(strategy, { ...rough, loss })).rejects.toThrow(RuntimeFailure);
    expect(asked).toBe(4);
  });

  test("stops between two evaluations when asked", async () => {
    const stop = new AbortController();
    let asked = 0;
    const loss = (): number => {
      if (++asked === 5) stop.abort(new Error("asked to stop"));
      return 2;
    };
    await expect(run(strategy, { ...rough, loss }, { signal: stop.signal })).rejects.toThrow("asked to stop");
    expect(asked).toBe(5);
  });

  test("measures the baseline alone where nothing is to be shared", async () => {
    const { result, calls } = await run(strategy, { start: parsePattern("FFSF"), retain: 3, loss: () => 2 });
    expect(result).toEqual({ pattern: "FFSF", baseline: { loss: 2 }, final: { loss: 2 }, steps: [], evaluations: 1 });
    expect(calls).toHaveLength(1);
  });

  test("refuses a target above the model's own Full layers", async () => {
    await expect(run(strategy, { start: parsePattern("FSSF"), retain: 3, loss: () => 2 })).rejects.toThrow(UsageError);
  });
});

describe("beam", () => {
  test.each([
    ["backward", "greedy"],
    ["forward", "forward"],
  ] as const)("of width 1, %s, is %s", async (direction, name) => {
    await fc.assert(
      fc.asyncProperty(problems({ maxLayers: 10 }), async (problem) => {
        const beam = await run({ name: "beam", width: 1, direction }, problem);
        const other = await run({ name }, problem);
        expect(beam.events.slice(1)).toEqual(other.events.slice(1));
        expect(beam.calls).toEqual(other.calls);
      }),
    );
  });

  test.each(["backward", "forward"] as const)("that is wide, %s, finds the optimum", async (direction) => {
    await fc.assert(
      fc.asyncProperty(problems({ maxLayers: 7 }), async (problem) => {
        const { result } = await run({ name: "beam", width: 64, direction }, problem);
        expect(result.final.loss).toBeLessThanOrEqual(Math.min(...everyLoss(problem)) + TIE_NATS);
      }),
    );
  });

  test("follows distinct patterns only", async () => {
    await fc.assert(
      fc.asyncProperty(problems(), async (problem) => {
        const { events } = await run({ name: "beam", width: 4, direction: "backward" }, problem);
        const parents = new Map<number, Set<string>>();
        for (const event of events) {
          if (event.kind !== "evaluation started" || event.step === 0) continue;
          parents.set(event.step, (parents.get(event.step) ?? new Set()).add(event.from));
        }
        for (const set of parents.values()) expect(set.size).toBeLessThanOrEqual(4);
      }),
    );
  });
});

describe("forward", () => {
  test("adds one layer a step", async () => {
    await fc.assert(
      fc.asyncProperty(problems(), async (problem) => {
        const { result } = await run({ name: "forward" }, problem);
        if (fullLayers(problem.start).length === problem.retain) return;
        expect(result.steps.map(({ pattern }) => fullLayers(pattern).length)).toEqual(
          Array.from({ length: problem.retain - 1 }, (_, index) => index + 2),
        );
      }),
    );
  });
});

describe("exhaustive", () => {
  test("finds the optimum in as many evaluations as there are patterns", async () => {
    await fc.assert(
      fc.asyncProperty(problems(), async (problem) => {
        const { result } = await run({ name: "exhaustive" }, problem);
        const losses = everyLoss(problem);
        expect(result.final.loss).toBeLessThanOrEqual(Math.min(...losses) + TIE_NATS);
        if (problem.retain < fullLayers(problem.start).length) expect(result.evaluations).toBe(1 + losses.length);
      }),
    );
  });

  test("runs every shared beginning of patterns once", async () => {
    const { calls } = await run({ name: "exhaustive" }, { start: fullPattern(6), retain: 3, loss: () => 2 });
    const beginnings = new Set(
      calls.slice(1).flatMap(({ pattern }) => Array.from(pattern, (_, end) => pattern.slice(0, end + 1))),
    );
    // The baseline runs every layer, the first one for all of them.
    expect(layersRun(calls)).toBe(6 + beginnings.size - 1);
  });

  test("says how many evaluations are too many", async () => {
    const problem = { start: fullPattern(47), retain: 12, loss: () => 2 };
    await expect(run({ name: "exhaustive" }, problem)).rejects.toThrow(/takes 13,340,783,197 evaluations, the limit/);
    const small = { start: fullPattern(6), retain: 3, loss: () => 2 };
    await expect(run({ name: "exhaustive", limit: 10 }, small)).rejects.toThrow(
      "takes 11 evaluations, the limit is 10",
    );
    expect((await run({ name: "exhaustive", limit: 11 }, small)).result.evaluations).toBe(11);
  });
});

describe("floating", () => {
  test("is never worse than greedy", async () => {
    await fc.assert(
      fc.asyncProperty(problems({ maxLayers: 10 }), async (problem) => {
        const floating = await run({ name: "floating" }, problem);
        const greedy = await run({ name: "greedy" }, problem);
        expect(floating.result.final.loss).toBeLessThanOrEqual(greedy.result.final.loss);
      }),
      { numRuns: 300 },
    );
  });

  test("gives a layer its indexer back where that beats the pattern known of that size", async () => {
    // Greedy shares 1, then 2, then 3. From there the way back up finds FFSSF, from which FFSSS is in reach.
    const known = new Map(
      Object.entries({ FFFFF: 1, FSFFF: 1.1, FSSFF: 1.2, FSSSF: 1.5, FFSSF: 1.15, FFSSS: 1.3, FSSSS: 3 }),
    );
    const problem = { start: fullPattern(5), retain: 2, loss: (pattern: string) => known.get(pattern) ?? 2 };
    expect((await run({ name: "greedy" }, problem)).result.pattern).toBe("FSSSF");
    const { result } = await run({ name: "floating" }, problem);
    expect(result.steps.map(({ pattern }) => pattern)).toEqual(["FSFFF", "FSSFF", "FSSSF", "FFSSF", "FFSSS"]);
  });
});

describe("swaps", () => {
  test("never worsen a result, and leave none that one more swap would improve", async () => {
    await fc.assert(
      fc.asyncProperty(problems(), fc.constantFrom("first", "best" as const), async (problem, improvement) => {
        for (const name of ["greedy", "forward"] as const) {
          const plain = await run({ name }, problem);
          const { result } = await run({ name, swaps: { improvement: improvement as "first" | "best" } }, problem);
          expect(result.final.loss).toBeLessThanOrEqual(plain.result.final.loss);
          for (const out of fullLayers(result.pattern).slice(1)) {
            for (const back of fullLayers(problem.start).filter((layer) => result.pattern[layer] === "S")) {
              const letters = [...result.pattern].with(out, "S").with(back, "F").join("");
              expect(problem.loss(parsePattern(letters))).toBeGreaterThanOrEqual(result.final.loss - TIE_NATS);
            }
          }
        }
      }),
    );
  });

  test("in pairs find what single ones do not", async () => {
    const losses = new Map(Object.entries({ FFFSS: 1.5, FSSFF: 1 }));
    const loss = (pattern: string): number => losses.get(pattern) ?? 2 + pattern.lastIndexOf("S") / 100;
    const problem = { start: fullPattern(5), retain: 3, loss };
    losses.set("FFFSF", 1.8).set("FFFFS", 1.7);
    expect((await run({ name: "greedy", swaps: {} }, problem)).result.pattern).toBe("FFFSS");
    expect((await run({ name: "greedy", swaps: { pairs: true } }, problem)).result.pattern).toBe("FSSFF");
  });
});

describe("look-again", () => {
  test("is never worse than greedy, runs at most twice its layers, and says what it gained", async () => {
    await fc.assert(
      fc.asyncProperty(problems({ maxLayers: 12 }), async (problem) => {
        const { result, calls } = await run({ name: "look-again" }, problem);
        const greedy = await run({ name: "greedy" }, problem);
        expect(result.final.loss).toBeLessThanOrEqual(greedy.result.final.loss);
        expect(layersRun(calls)).toBeLessThanOrEqual(2 * layersRun(greedy.calls));
        const look = result.secondLook;
        if (problem.retain === fullLayers(problem.start).length) return;
        expect(look).toMatchObject({
          firstPattern: greedy.result.pattern,
          firstLoss: greedy.result.final.loss,
          gain: greedy.result.final.loss - result.final.loss,
          evaluations: calls.length - greedy.calls.length,
        });
        expect(look?.gain === 0 || (look?.gain ?? 0) > TIE_NATS).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  test("has room for the beam where few layers stay Full, and for swaps alone where many do", async () => {
    const loss = (pattern: string): number => 2 + pattern.lastIndexOf("S") / 8;
    const look = async (retain: number): Promise<boolean | undefined> =>
      (await run({ name: "look-again" }, { start: fullPattern(16), retain, loss })).result.secondLook?.forward;
    expect(await look(4)).toBe(true);
    expect(await look(8)).toBe(false);
  });
});
