import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { RuntimeFailure, UsageError } from "../../src/base/errors.ts";
import {
  firstDifference,
  fullLayers,
  fullPattern,
  type Pattern,
  parsePattern,
  sourceLayer,
} from "../../src/pattern/pattern.ts";
import type { Evaluation, SearchEvent, SearchResult } from "../../src/search/events.ts";
import { countEvaluations, searchGreedily } from "../../src/search/greedy.ts";
import { TIE_NATS } from "../../src/search/trials.ts";

type Event = SearchEvent<Evaluation>;

/** A loss like a model's: each Shared layer costs its own weight times the distance to the layer that it reads. */
function synthetic(weights: readonly number[]): (pattern: Pattern) => number {
  return (pattern) => {
    let loss = 2;
    for (let layer = 1; layer < pattern.length; layer++)
      loss += (weights[layer] ?? 0) * (layer - sourceLayer(pattern, layer));
    return loss;
  };
}

const problem = fc
  .record({
    weights: fc.array(
      fc.integer({ min: 0, max: 50 }).map((n) => n / 64),
      { minLength: 2, maxLength: 12 },
    ),
    kept: fc.integer({ min: 1, max: 12 }),
  })
  .map(({ weights, kept }) => ({
    loss: synthetic(weights),
    layers: weights.length,
    retain: Math.min(kept, weights.length),
  }));

interface Run {
  events: Event[];
  /** Patterns that were really evaluated, in order. */
  evaluated: Pattern[];
  result: SearchResult<Evaluation> | undefined;
}

async function run(
  start: Pattern,
  retain: number,
  loss: (pattern: Pattern) => number,
  options: { memo?: Map<string, Evaluation>; stopAfter?: number; signal?: AbortSignal } = {},
): Promise<Run> {
  const evaluated: Pattern[] = [];
  const events: Event[] = [];
  const search = searchGreedily<Evaluation>({
    start,
    retain,
    evaluate: async (pattern, { base }) => {
      // What makes prefix reuse exact: a candidate departs from its base in one layer.
      expect([...pattern].filter((letter, layer) => letter !== base[layer]).length).toBe(pattern === start ? 0 : 1);
      evaluated.push(pattern);
      return { loss: loss(pattern) };
    },
    ...(options.memo === undefined ? {} : { memo: options.memo }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  for await (const event of search) {
    events.push(event);
    if (event.kind === "evaluation done" && evaluated.length === options.stopAfter) break;
  }
  const last = events.at(-1);
  return { events, evaluated, result: last?.kind === "done" ? last.result : undefined };
}

describe("searchGreedily()", () => {
  test("gives the pattern that a hand finds", async () => {
    // Layer 2 is free, layer 3 nearly, layer 1 dear; after 2 is shared, sharing 3 reads from 1, at distance 2.
    const { result } = await run(fullPattern(4), 2, synthetic([0, 1, 0, 0.25]));
    expect(result).toEqual({
      pattern: "FFSS",
      baseline: { loss: 2 },
      final: { loss: 2.5 },
      evaluations: 6,
      steps: [
        {
          pattern: "FFSF",
          flippedLayer: 2,
          evaluation: { loss: 2 },
          candidates: [
            { layer: 1, loss: 3 },
            { layer: 2, loss: 2 },
            { layer: 3, loss: 2.25 },
          ],
        },
        {
          pattern: "FFSS",
          flippedLayer: 3,
          evaluation: { loss: 2.5 },
          candidates: [
            { layer: 1, loss: 3 },
            { layer: 3, loss: 2.5 },
          ],
        },
      ],
    });
  });

  test("never evaluates a pattern twice, keeps layer 0 Full, and takes nested steps down to the target", async () => {
    await fc.assert(
      fc.asyncProperty(problem, async ({ loss, layers, retain }) => {
        const { evaluated, result, events } = await run(fullPattern(layers), retain, loss);
        expect(new Set(evaluated).size).toBe(evaluated.length);
        expect(evaluated).toHaveLength(countEvaluations(fullPattern(layers), retain));
        expect(evaluated.every((pattern) => pattern.startsWith("F"))).toBe(true);
        expect(fullLayers(result?.pattern ?? fullPattern(1))).toHaveLength(retain);
        let before = fullPattern(layers);
        for (const step of result?.steps ?? []) {
          expect(firstDifference(before, step.pattern)).toBe(step.flippedLayer);
          expect(fullLayers(step.pattern)).toEqual(fullLayers(before).filter((layer) => layer !== step.flippedLayer));
          expect(step.candidates.map(({ layer }) => layer)).toEqual(fullLayers(before).slice(1));
          const lowest = Math.min(...step.candidates.map((candidate) => candidate.loss));
          expect(step.evaluation.loss).toBeLessThanOrEqual(lowest + TIE_NATS);
          before = step.pattern;
        }
        const done = events.filter((event) => event.kind === "evaluation done").map((event) => event.done);
        expect(done).toEqual(Array.from(evaluated, (_, index) => index + 1));
      }),
    );
  });

  test("resumed after any evaluation, gives what an uninterrupted run gives, and evaluates nothing again", async () => {
    await fc.assert(
      fc.asyncProperty(problem, async ({ loss, layers, retain }) => {
        const start = fullPattern(layers);
        const whole = await run(start, retain, loss);
        for (let cut = 1; cut < whole.evaluated.length; cut++) {
          const first = await run(start, retain, loss, { stopAfter: cut });
          const memo = new Map(first.evaluated.map((pattern) => [pattern as string, { loss: loss(pattern) }]));
          const second = await run(start, retain, loss, { memo });
          expect(second.result).toEqual(whole.result);
          expect([...first.evaluated, ...second.evaluated]).toEqual(whole.evaluated);
        }
      }),
      { numRuns: 20 },
    );
  });

  test("a search to 1/2 is the beginning of the search to 1/4", async () => {
    const loss = synthetic([0, 3, 1, 4, 1, 5, 9, 2]);
    const half = await run(fullPattern(8), 4, loss);
    const quarter = await run(fullPattern(8), 2, loss);
    expect(quarter.result?.steps.slice(0, 4)).toEqual(half.result?.steps);
  });

  test("breaks ties by the lowest layer, not by the last bits of a loss", async () => {
    const losses = new Map([
      ["FSFF", 2 + 9e-6],
      ["FFSF", 2 + 3e-6],
      ["FFFS", 2],
    ]);
    const { result } = await run(fullPattern(4), 3, (pattern) => losses.get(pattern) ?? 1);
    expect(result?.pattern).toBe("FSFF");
    losses.set("FSFF", 2 + 2e-5);
    expect((await run(fullPattern(4), 3, (pattern) => losses.get(pattern) ?? 1)).result?.pattern).toBe("FFSF");
  });

  test("leaves natively Shared layers alone", async () => {
    const { result, evaluated } = await run(parsePattern("FSFFSF"), 2, synthetic([0, 9, 1, 1, 9, 2]));
    expect(evaluated[0]).toBe("FSFFSF");
    expect(evaluated.every((pattern) => pattern[1] === "S" && pattern[4] === "S")).toBe(true);
    expect(result?.evaluations).toBe(1 + 3 + 2);
  });

  test("measures the baseline alone where nothing is to be shared", async () => {
    const { result } = await run(fullPattern(3), 3, () => 2);
    expect(result).toEqual({ pattern: "FFF", baseline: { loss: 2 }, final: { loss: 2 }, steps: [], evaluations: 1 });
  });

  test("refuses a target above the model's own Full layers", async () => {
    await expect(run(parsePattern("FSSF"), 3, () => 2)).rejects.toThrow(UsageError);
  });

  test("does not go on with a loss that is not a number", async () => {
    const failure = run(fullPattern(3), 1, (pattern) => (pattern === "FSF" ? Number.NaN : 2));
    await expect(failure).rejects.toThrow(RuntimeFailure);
  });

  test("stops between two evaluations when asked", async () => {
    const stop = new AbortController();
    const evaluated: Pattern[] = [];
    const stopped = run(
      fullPattern(5),
      1,
      (pattern) => {
        evaluated.push(pattern);
        if (evaluated.length === 3) stop.abort(new Error("asked to stop"));
        return 2;
      },
      { signal: stop.signal },
    );
    await expect(stopped).rejects.toThrow("asked to stop");
    expect(evaluated).toHaveLength(3);
  });
});

test("countEvaluations() gives the published numbers", () => {
  expect(countEvaluations(fullPattern(47), 24) - 1).toBe(805);
  expect(countEvaluations(fullPattern(47), 12) - 1).toBe(1015);
  expect(countEvaluations(fullPattern(78), 22) - 1).toBe(2772);
});
