import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UsageError } from "../../src/base/errors.ts";
import { fullLayers, fullPattern, parsePattern } from "../../src/pattern/pattern.ts";
import { type Constraints, PatternSpace } from "../../src/search/space.ts";
import { everyLoss, problems } from "./synthetic.ts";

const pins = (...layers: number[]) => new Map(layers.map((layer) => [layer, "--pin-full"]));

describe("PatternSpace", () => {
  test("counts what it lists, and knows the fewest Full layers", async () => {
    await fc.assert(
      fc.property(problems({ maxLayers: 9, constrained: true }), (problem) => {
        const space = new PatternSpace(problem.start, problem.constraints);
        for (let retain = 1; retain <= space.size; retain++) {
          const listed = [...space.patterns(retain)];
          expect(listed).toHaveLength(everyLoss(problem, retain).length);
          expect(new Set(listed).size).toBe(listed.length);
          expect(listed.length > 0).toBe(retain >= space.fewest);
          expect(space.count(retain)).toBeGreaterThanOrEqual(listed.length);
        }
      }),
    );
  });

  test("flips lead only to where the target can be reached from", async () => {
    await fc.assert(
      fc.property(problems({ maxLayers: 8, constrained: true }), fc.nat(), (problem, choice) => {
        const space = new PatternSpace(problem.start, problem.constraints);
        const retain = Math.max(problem.retain, space.fewest);
        let down = problem.start;
        while (fullLayers(down).length > retain) {
          const flips = space.flips(down, "backward", retain);
          expect(flips.length).toBeGreaterThan(0);
          down = flips[choice % flips.length] ?? down;
        }
        expect(space.allows(down)).toBe(true);
        let up = space.sparsest;
        while (fullLayers(up).length < retain) {
          const flips = space.flips(up, "forward", retain);
          expect(flips.length).toBeGreaterThan(0);
          up = flips[choice % flips.length] ?? up;
        }
        if (fullLayers(up).length === retain) expect(space.allows(up)).toBe(true);
      }),
    );
  });

  test.each<[string, Constraints, number, RegExp]>([
    ["FFFFFFFF", { pinned: pins(3, 5) }, 2, /2 Full layers, at least 3 are needed: --pin-full keeps 3, 5 Full/],
    ["FFFFFFFF", { maxSharedRun: 1 }, 3, /at least 4 are needed: --max-shared-run is 1 \(layer 0 is always Full\)/],
    [
      "FFFFFFFF",
      { pinned: pins(1), maxSharedRun: 2 },
      3,
      /at least 4 are needed: --pin-full keeps 1 Full, --max-shared-run is 2/,
    ],
    ["FFSF", {}, 4, /the model itself has only 3/],
  ])("%s with %j refuses %i Full layers", (start, constraints, retain, words) => {
    const space = new PatternSpace(parsePattern(start), constraints);
    expect(() => space.requireReachable(retain)).toThrow(UsageError);
    expect(() => space.requireReachable(retain)).toThrow(words);
  });

  test.each<[string, Constraints, RegExp]>([
    ["FFSF", { pinned: pins(2) }, /--pin-full asks for layer 2 to be Full, the model itself shares it/],
    ["FFFF", { pinned: pins(4) }, /--pin-full names layer 4, the model has 4 layers/],
    ["FSSSF", { maxSharedRun: 2 }, /--max-shared-run 2 cannot be met: the model itself shares 3 layers in a row/],
  ])("%s refuses %j", (start, constraints, words) => {
    expect(() => new PatternSpace(parsePattern(start), constraints)).toThrow(words);
  });

  test("pipeline stages leave patterns that begin each stage Full", () => {
    const space = new PatternSpace(fullPattern(12), { pinned: pins(4, 8) });
    expect(space.sparsest).toBe("FSSSFSSSFSSS");
    expect(space.flips(space.start, "backward", 3).map((pattern) => pattern.indexOf("S"))).toEqual([
      1, 2, 3, 5, 6, 7, 9, 10, 11,
    ]);
    expect([...space.patterns(3)]).toEqual(["FSSSFSSSFSSS"]);
  });
});
