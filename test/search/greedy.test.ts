import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { TIE_NATS } from "../../src/base/near-tie.ts";
import { fullLayers, fullPattern, type Pattern, parsePattern, sourceLayer } from "../../src/pattern/pattern.ts";
import { rehearse } from "../../src/search/search.ts";
import { PatternSpace } from "../../src/search/space.ts";
import { greedy } from "../../src/search/strategies/greedy.ts";
import { run } from "./synthetic.ts";

/** A loss like a model's: each Shared layer costs its own weight times the distance to the layer that it reads. */
function synthetic(weights: readonly number[]): (pattern: Pattern) => number {
  return (pattern) =>
    2 + weights.reduce((sum, weight, layer) => sum + weight * (layer - sourceLayer(pattern, layer)), 0);
}

const method = { strategy: greedy };

describe("greedy", () => {
  test("finds the pattern that is found by hand", async () => {
    // Layer 2 is free, layer 3 nearly, layer 1 costly; after 2 is shared, sharing 3 reads from 1, at distance 2.
    const { last, result } = await run(method, {
      start: fullPattern(4),
      targets: [2],
      loss: synthetic([0, 1, 0, 0.25]),
    });
    const candidate = (layer: number, loss: number) => ({
      flipped: [layer],
      loss,
      changeError: null,
      sequences: 1,
      dropped: false,
    });
    expect(result.evaluations).toBe(6);
    expect(result.layers).toBe(4 + (3 + 2 + 1) + (3 + 1));
    expect(last).toMatchObject({
      pattern: "FFSS",
      evaluation: { loss: 2.5, change: 0.5 },
      steps: [
        {
          pattern: "FFSF",
          flipped: [2],
          candidates: [candidate(1, 3), candidate(2, 2), candidate(3, 2.25)],
          lead: { over: 3, mean: 0.25, withinNoise: null },
        },
        { pattern: "FFSS", flipped: [3], candidates: [candidate(1, 3), candidate(3, 2.5)] },
      ],
    });
  });

  test("takes nested steps down to the target, each the best of all that are free", async () => {
    const problem = fc.record({
      // Without any that costs something there would be nothing to choose by, which a search refuses.
      weights: fc
        .array(
          fc.integer({ min: 0, max: 50 }).map((n) => n / 64),
          { minLength: 2, maxLength: 12 },
        )
        .filter(([, ...others]) => others.some((weight) => weight > 0)),
      kept: fc.integer({ min: 1, max: 12 }),
    });
    await fc.assert(
      fc.asyncProperty(problem, async ({ weights, kept }) => {
        const start = fullPattern(weights.length);
        const retain = Math.min(kept, weights.length);
        const { last, calls } = await run(method, { start, targets: [retain], loss: synthetic(weights) });
        const space = new PatternSpace(start);
        const foreseen = await rehearse(method, { space, targets: [retain], sequences: [0] });
        expect(foreseen).toMatchObject({ evaluations: calls.length, exact: true });
        let before = start;
        for (const step of last.steps) {
          expect(fullLayers(step.pattern)).toEqual(fullLayers(before).filter((layer) => layer !== step.flipped[0]));
          expect(step.candidates.flatMap(({ flipped }) => flipped)).toEqual(fullLayers(before).slice(1));
          const lowest = Math.min(...step.candidates.map(({ loss }) => loss));
          expect(step.evaluation.loss).toBeLessThanOrEqual(lowest + TIE_NATS);
          before = step.pattern;
        }
      }),
    );
  });

  test("holds the search to 1/2 in the search to 1/4", async () => {
    const problem = { start: fullPattern(8), loss: synthetic([0, 3, 1, 4, 1, 5, 9, 2]) };
    const half = await run(method, { ...problem, targets: [4] });
    const both = await run(method, { ...problem, targets: [4, 2] });
    expect(both.result.patterns[0]).toEqual(half.last);
    expect(both.last.steps.slice(0, 4)).toEqual(half.last.steps);
  });

  test("breaks ties by the lowest layer, not by the last bits of a loss", async () => {
    const losses = new Map([
      ["FSFF", 2 + 9e-6],
      ["FFSF", 2 + 3e-6],
      ["FFFS", 2],
    ]);
    const problem = { start: fullPattern(4), targets: [3], loss: (pattern: Pattern) => losses.get(pattern) ?? 1 };
    expect((await run(method, problem)).last.pattern).toBe("FSFF");
    losses.set("FSFF", 2 + 2e-5);
    expect((await run(method, problem)).last.pattern).toBe("FFSF");
  });

  test("leaves natively Shared layers alone", async () => {
    const start = parsePattern("FSFFSF");
    const { calls } = await run(method, { start, targets: [2], loss: synthetic([0, 9, 1, 1, 9, 2]) });
    expect(calls[0]?.pattern).toBe("FSFFSF");
    expect(calls.every(({ pattern }) => pattern[1] === "S" && pattern[4] === "S")).toBe(true);
    expect(calls).toHaveLength(1 + 3 + 2);
  });

  test("says which leads are within noise", async () => {
    // Layer 1 is ahead of layer 2 on two sequences and behind on one; layer 3 is far behind on all.
    const by: Record<string, number[]> = { FSFF: [2, 2, 2.3], FFSF: [2.1, 2.1, 2.2], FFFS: [3, 3, 3] };
    const loss = (pattern: Pattern, sequence: number): number => by[pattern]?.[sequence] ?? 1;
    const problem = { start: fullPattern(4), targets: [3], sequences: 3, loss };
    const [step] = (await run(method, problem)).last.steps;
    expect(step).toMatchObject({ pattern: "FSFF", lead: { over: 2, withinNoise: true, sequences: 3 } });
    expect(step?.lead?.mean).toBeCloseTo(0.1 / 3, 9);
    // Paired: differences 0.1, 0.1, -0.1 have a standard deviation of 0.1155, over sqrt(3).
    expect(step?.lead?.standardError).toBeCloseTo(0.1154700538 / Math.sqrt(3), 8);
  });
});

test.each([
  [47, 24, 805],
  [47, 12, 1015],
  [78, 22, 2772],
])(
  "a rehearsal at %i layers to %i foresees the published number of evaluations",
  async (layers, retain, candidates) => {
    const space = new PatternSpace(fullPattern(layers));
    const foreseen = await rehearse(method, { space, targets: [retain], sequences: [0] });
    expect(foreseen).toMatchObject({ steps: layers - retain, evaluations: 1 + candidates, exact: true });
  },
);
