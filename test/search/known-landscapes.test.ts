/** Strategies on models whose every pattern is known: nine landscapes of trained models, two quantities each. */
import { describe, expect, test } from "vitest";
import { TIE_NATS } from "../../src/base/near-tie.ts";
import { efforts } from "../../src/cli/search/effort.ts";
import { fullLayers, fullPattern } from "../../src/pattern/pattern.ts";
import { oneByOne } from "../../src/search/events.ts";
import { search } from "../../src/search/search.ts";
import { PatternSpace } from "../../src/search/space.ts";
import { greedy } from "../../src/search/strategies/greedy.ts";
import { refine } from "../../src/search/strategies/refine.ts";
import type { SearchMethod } from "../../src/search/strategy.ts";
import { landscapeNames, type Quantity, readLandscape } from "./landscape.ts";
import { indices } from "./synthetic.ts";

async function searchOn(
  landscape: ReturnType<typeof readLandscape>,
  method: SearchMethod,
  targets: readonly number[],
  quantity: Quantity = "nll",
  set = landscape.calibration,
) {
  const { layers } = landscape;
  const work = search(method, {
    space: new PatternSpace(fullPattern(layers)),
    targets,
    sequences: indices(set.sequences),
    evaluate: oneByOne(async (pattern, sequences) => {
      const losses = set.perSequence(pattern, quantity);
      return sequences.map((index) => ({ loss: losses[index] ?? Number.NaN, tokens: set.tokens - 1 }));
    }),
  });
  for await (const event of work) if (event.kind === "done") return event.result;
  throw new Error("a search without a result");
}

describe.each(landscapeNames)("%s", (name) => {
  const landscape = readLandscape(name);
  const sizes = Array.from({ length: landscape.layers - 2 }, (_, index) => index + 2);
  const optimum = (size: number): number => landscape.loss(landscape.optimum(size));

  test("the default finds the optimum of every size, in at most twice greedy's layers", async () => {
    for (const size of sizes) {
      const plain = await searchOn(landscape, { strategy: greedy }, [size]);
      const { patterns, layers } = await searchOn(landscape, { strategy: refine }, [size]);
      expect(patterns[0]?.evaluation.loss).toBeLessThanOrEqual(optimum(size) + 1.5 * TIE_NATS);
      expect(layers).toBeLessThanOrEqual(2 * plain.layers);
    }
  });

  // The default's shares were chosen on the calibration text: this is other text.
  test.runIf(landscape.heldOut !== undefined)(
    "the default finds the optimum of every size on held-out text",
    async () => {
      const { heldOut } = landscape;
      if (heldOut === undefined) return;
      for (const size of sizes) {
        const best = landscape.optimum(size, (pattern) => heldOut.loss(pattern));
        const { patterns } = await searchOn(landscape, { strategy: refine }, [size], "nll", heldOut);
        expect(patterns[0]?.evaluation.loss).toBeLessThanOrEqual(heldOut.loss(best) + 1.5 * TIE_NATS);
      }
    },
  );

  test("the default is never worse than greedy when all sizes are asked for at once, and near the optimum", async () => {
    const { patterns } = await searchOn(landscape, { strategy: refine }, sizes);
    const plain = await searchOn(landscape, { strategy: greedy }, sizes);
    for (const [index, { pattern, evaluation }] of patterns.entries()) {
      expect(evaluation.loss).toBeLessThanOrEqual(plain.patterns[index]?.evaluation.loss ?? 0);
      // The same budget for many sizes: docs/log.md has the four of 86 that it misses.
      expect(evaluation.loss).toBeLessThanOrEqual(optimum(fullLayers(pattern).length) + 1.2e-3);
    }
  });

  test("with the budget of --effort thorough it finds the optimum of every size at once", async () => {
    const { budget } = efforts.thorough;
    const { patterns, layers } = await searchOn(landscape, { strategy: refine, settings: { budget } }, sizes);
    const plain = await searchOn(landscape, { strategy: greedy }, sizes);
    for (const { pattern, evaluation } of patterns) {
      expect(evaluation.loss).toBeLessThanOrEqual(optimum(fullLayers(pattern).length) + 1.5 * TIE_NATS);
    }
    expect(layers).toBeLessThanOrEqual(budget * plain.layers);
  });

  test("branch and bound on KL takes greedy's steps", async () => {
    const whole = await searchOn(landscape, { strategy: greedy }, [2], "kl");
    const bounded = await searchOn(landscape, { strategy: greedy, bounded: true }, [2], "kl");
    expect(bounded.patterns[0]?.steps.map(({ pattern }) => pattern)).toEqual(
      whole.patterns[0]?.steps.map(({ pattern }) => pattern),
    );
    expect(bounded.layers).toBeLessThan(0.7 * whole.layers);
  });

  test("a race to a quarter ends within 5e-4 nats of the exact search", async () => {
    const quarter = Math.round(landscape.layers / 4);
    const exact = await searchOn(landscape, { strategy: greedy }, [quarter]);
    const raced = await searchOn(landscape, { strategy: greedy, race: { alpha: 0.1, block: 2, seed: 0 } }, [quarter]);
    expect(raced.patterns[0]?.evaluation.loss).toBeLessThanOrEqual((exact.patterns[0]?.evaluation.loss ?? 0) + 5e-4);
    expect(raced.layers).toBeLessThan(0.7 * exact.layers);
  });
});
