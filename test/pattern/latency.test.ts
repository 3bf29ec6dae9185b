import fc from "fast-check";
import { expect, test } from "vitest";
import { fullLayersForSpeedup, predictLatency, predictSpeedup } from "../../src/pattern/latency.ts";
import { fullPattern, parsePattern } from "../../src/pattern/pattern.ts";
import { evenPattern, uniformPattern } from "../../src/pattern/schedule.ts";

const costs = { otherSeconds: 1, fullLayerSeconds: 5, sharedLayerSeconds: 2 };

test("a pattern takes what its layers take", () => {
  expect(predictLatency(parsePattern("FSSF"), costs)).toBe(1 + 2 * 5 + 2 * 2);
  expect(predictSpeedup(parsePattern("FSSF"), costs)).toBe(21 / 15);
  expect(predictSpeedup(fullPattern(4), costs)).toBe(1);
});

test("as many Full layers as a speed-up allows, and no more", () => {
  // Whole numbers and quarters: what is equal is equal to the last bit.
  const seconds = fc.integer({ min: 1, max: 50 });
  const quarters = fc.integer({ min: 4, max: 20 });
  fc.assert(
    fc.property(
      seconds,
      seconds,
      seconds,
      fc.integer({ min: 1, max: 40 }),
      quarters,
      (other, shared, indexer, layers, q) => {
        const of = { otherSeconds: other, sharedLayerSeconds: shared, fullLayerSeconds: shared + indexer };
        const speedup = q / 4;
        const sizes = Array.from({ length: layers }, (_, index) => index + 1);
        const fast = sizes.filter((full) => predictSpeedup(evenPattern(full, fullPattern(layers)), of) >= speedup);
        expect(fullLayersForSpeedup(speedup, layers, of)).toBe(fast.at(-1));
      },
    ),
  );
});

test("an even pattern is uniform:N where that has as many Full layers", () => {
  expect(evenPattern(12, fullPattern(47))).toBe(uniformPattern(47, 4));
  expect(evenPattern(3, fullPattern(12))).toBe("FSSSFSSSFSSS");
  expect(evenPattern(5, fullPattern(12))).toBe("FSFSFSSFSFSS");
  expect(evenPattern(3, parsePattern("FFSSFF"))).toBe("FFSSFS");
  // Only layers that own an indexer can be Full.
  expect(evenPattern(2, parsePattern("FFSSSF"))).toBe("FSSSSF");
});
