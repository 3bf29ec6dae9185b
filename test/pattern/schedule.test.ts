import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InputError, UsageError } from "../../src/base/errors.ts";
import { fullLayers, fullPattern, parsePattern } from "../../src/pattern/pattern.ts";
import { frequencyPattern, looksLikePattern, resolvePattern, uniformPattern } from "../../src/pattern/schedule.ts";

describe("named schedules", () => {
  test("uniform:4 is the paper's FSSSFSSS", () => {
    expect(uniformPattern(10, 4)).toBe("FSSSFSSSFS");
  });

  test("freq:4 is the engines' FFSSSFSSS, and FFFSSSFSSS with offset 3", () => {
    expect(frequencyPattern(10, 4)).toBe("FFSSSFSSSF");
    expect(frequencyPattern(10, 4, 3)).toBe("FFFSSSFSSS");
    expect(frequencyPattern(10, 4, 1)).toBe("FSSSFSSSFS");
  });

  test("freq:4 keeps 21 of GLM-5's 78 layers and 16 of DeepSeek-V3.2's 61", () => {
    expect(fullLayers(frequencyPattern(78, 4))).toHaveLength(21);
    expect(fullLayers(frequencyPattern(61, 4))).toHaveLength(16);
  });

  test("an offset of 0 is refused, it would make layer 0 Shared", () => {
    expect(() => frequencyPattern(8, 4, 0)).toThrow(UsageError);
    expect(frequencyPattern(8, 1, 0)).toBe("FFFFFFFF");
  });

  test("every schedule starts with F, has the model's length and keeps one layer in N", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 100 }),
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 5 }),
        (layers, every, offset) => {
          const uniform = uniformPattern(layers, every);
          const frequency = frequencyPattern(layers, every, offset);
          expect(uniform).toHaveLength(layers);
          expect(frequency).toHaveLength(layers);
          expect(parsePattern(uniform)).toBe(uniform);
          expect(parsePattern(frequency)).toBe(frequency);
          expect(fullLayers(uniform)).toHaveLength(Math.ceil(layers / every));
          // offset 1 is the paper's rule; each step of the offset moves the rest one layer deeper.
          expect(frequency).toBe(`${"F".repeat(offset - 1)}${uniformPattern(layers, every)}`.slice(0, layers));
        },
      ),
    );
  });
});

describe("resolvePattern()", () => {
  test.each(["uniform:13", "freq:99"])("refuses %s of 12 layers, which would be the first ones alone", (text) => {
    expect(() => resolvePattern(text, { layers: 12 }, "--pattern")).toThrow(`--pattern "${text}" asks for every`);
  });

  test("takes an F/S string as it is", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom("F", "S"), { maxLength: 60 }), (rest) => {
        const text = `F${rest.join("")}`;
        expect(resolvePattern(text, { layers: text.length })).toBe(text);
      }),
    );
  });

  test.each([
    ["FSS", "--pattern has 3 letters, the model has 4 layers"],
    ["fsss", '--pattern has "f" at layer 0'],
    ["FSsS", '--pattern has "s" at layer 2'],
    ["SFFF", "--pattern starts with S"],
    ["", "--pattern is empty"],
    ["uniform:0", 'is "uniform:0"'],
    ["uniform:", 'is "uniform:"'],
    ["freq:2.5", 'is "freq:2.5"'],
    ["freq:-1", 'is "freq:-1"'],
    ["half", '--pattern has "h" at layer 0'],
  ])("refuses %j", (text, message) => {
    expect(() => resolvePattern(text, { layers: 4 }, "--pattern")).toThrow(InputError);
    expect(() => resolvePattern(text, { layers: 4 }, "--pattern")).toThrow(message);
  });

  test("full is every indexer that the model has", () => {
    expect(resolvePattern("full", { layers: 4 })).toBe("FFFF");
    expect(resolvePattern("full", { layers: 4, indexers: parsePattern("FFSF") })).toBe("FFSF");
  });

  test("refuses F on a layer that has no indexer, naming it", () => {
    const indexers = parsePattern("FSFS");
    expect(() => resolvePattern("FFFS", { layers: 4, indexers }, "--pattern")).toThrow(/F at layer 1, which is /);
    expect(resolvePattern("FSSS", { layers: 4, indexers })).toBe("FSSS");
    expect(resolvePattern("uniform:2", { layers: 4, indexers })).toBe("FSFS");
    expect(() => resolvePattern("freq:2", { layers: 4, indexers })).toThrow("layer 1");
  });

  test("the offset reaches freq and leaves the rest alone", () => {
    expect(resolvePattern("freq:2", { layers: 6, offset: 3 })).toBe("FFFSFS");
    expect(resolvePattern("uniform:2", { layers: 6, offset: 3 })).toBe("FSFSFS");
  });
});

test("looksLikePattern() tells a pattern from a path", () => {
  for (const text of ["FSS", "SF", "full", "uniform:x", "freq:4", fullPattern(3)])
    expect(looksLikePattern(text)).toBe(true);
  for (const text of ["p.json", "./FSS", "FSSx", "f", "quarter"]) expect(looksLikePattern(text)).toBe(false);
});
