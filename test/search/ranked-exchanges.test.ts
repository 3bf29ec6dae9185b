import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { fullLayers, fullPattern, type Pattern, parsePattern } from "../../src/pattern/pattern.ts";
import { rehearse } from "../../src/search/search.ts";
import { differences, PatternSpace } from "../../src/search/space.ts";
import { rankedExchanges } from "../../src/search/strategies/ranked-exchanges.ts";
import { refine } from "../../src/search/strategies/refine.ts";
import { indices, problems } from "./synthetic.ts";

test("lists every allowed exchange once, by rank, and by the lowest changed layers where ranks are equal", () => {
  fc.assert(
    fc.property(
      problems({ maxLayers: 9, constrained: true }),
      fc.array(fc.integer({ min: -3, max: 3 }), { minLength: 9, maxLength: 9 }),
      fc.constantFrom(1, 2),
      (problem, prices, size) => {
        const space = new PatternSpace(problem.start, problem.constraints);
        const [from] = space.patterns(problem.retain);
        if (from === undefined) throw new Error("a problem without a pattern");
        const price = (layer: number): number => prices[layer] ?? 0;
        const listed = [...rankedExchanges(space, from, size, price)];
        const changed = (pattern: Pattern): number[] => differences(from, pattern);
        const rank = (pattern: Pattern): number =>
          changed(pattern).reduce((sum, layer) => sum + (from[layer] === "F" ? 1 : -1) * price(layer), 0);
        const expected = [...space.patterns(problem.retain)]
          .filter((pattern) => changed(pattern).length === 2 * size)
          .toSorted((left, right) => rank(left) - rank(right) || byLayers(changed(left), changed(right)));
        expect(listed.map(({ pattern }) => pattern)).toEqual(expected);
        for (const one of listed) expect(one.rank).toBe(rank(one.pattern));
      },
    ),
  );
});

function byLayers(left: readonly number[], right: readonly number[]): number {
  const at = left.findIndex((layer, index) => layer !== right[index]);
  return at < 0 ? 0 : (left[at] ?? 0) - (right[at] ?? 0);
}

test("makes no more patterns than are asked for", () => {
  const space = new PatternSpace(fullPattern(78));
  const made = vi.spyOn(space, "allows");
  const from = parsePattern("FSSS".repeat(20).slice(0, 78));
  const exchanges = rankedExchanges(space, from, 2, (layer) => Math.sin(layer));
  const [first, second] = [exchanges.next().value, exchanges.next().value];
  expect(first?.rank).toBeLessThanOrEqual(second?.rank ?? 0);
  // Of 282,663, by binomials of 19 Full layers and 58 Shared ones.
  expect(made).toHaveBeenCalledTimes(2);
});

test("a rehearsal at 61 layers makes few patterns beside those that it measures", async () => {
  const space = new PatternSpace(fullPattern(61));
  const made = vi.spyOn(space, "allows");
  const { evaluations } = await rehearse({ strategy: refine }, { space, targets: [15], sequences: indices(16) });
  expect(fullLayers(space.start)).toHaveLength(61);
  // Sorted lists of all exchanges made a hundred thousand after each success.
  expect(made.mock.calls.length).toBeLessThan(3 * evaluations);
});
