import fc from "fast-check";
import { expect, test } from "vitest";
import { bestSharing, meanSharing } from "../../src/analyze/sharing-optimum.ts";
import { fullLayers, type Pattern, parsePattern } from "../../src/pattern/pattern.ts";

/** Every pattern of these layers in which only sources are Full. */
function allPatterns(layers: number, sources: readonly number[]): Pattern[] {
  const patterns: Pattern[] = [];
  for (let bits = 0; bits < 2 ** layers; bits++) {
    const letters = Array.from({ length: layers }, (_, layer) => ((bits >> layer) & 1 ? "F" : "S"));
    if (letters[0] === "F" && letters.every((letter, layer) => letter === "S" || sources.includes(layer))) {
      patterns.push(parsePattern(letters.join("")));
    }
  }
  return patterns;
}

const cases = fc
  .record({
    layers: fc.integer({ min: 1, max: 8 }),
    owners: fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }),
    values: fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: 64, maxLength: 64 }),
  })
  .map(({ layers, owners, values }) => {
    const sources = Array.from({ length: layers }, (_, layer) => layer).filter((layer) => layer === 0 || owners[layer]);
    const rows = Array.from({ length: layers }, (_, layer) =>
      sources.map((source, column) => (source <= layer ? (values[8 * layer + column] ?? 0) : null)),
    );
    return { layers, pairs: { sources, values: rows } };
  });

test("the dynamic program finds what trying every pattern finds", () => {
  fc.assert(
    fc.property(cases, ({ layers, pairs }) => {
      for (let full = 1; full <= pairs.sources.length; full++) {
        const found = bestSharing(pairs, full);
        expect(fullLayers(found)).toHaveLength(full);
        const others = allPatterns(layers, pairs.sources).filter((pattern) => fullLayers(pattern).length === full);
        const best = Math.max(...others.map((pattern) => meanSharing(pairs, pattern) ?? 0));
        expect(meanSharing(pairs, found) ?? 0).toBeCloseTo(best, 10);
      }
    }),
    { numRuns: 100 },
  );
});

test("more Full layers than there are indexers are a defect", () => {
  expect(() => bestSharing({ sources: [0], values: [[1], [0.5]] }, 2)).toThrow(RangeError);
});
