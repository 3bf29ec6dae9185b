/** Which states stay where there is no room for all: what the next evaluations will find again. */
import { expect, test } from "vitest";
import { parsePattern } from "../../src/pattern/pattern.ts";
import { KeptStates } from "../../src/runtime/loss/kept-states.ts";

const of = (pattern: string) => ({ pattern: parsePattern(pattern), part: { byteLength: 1 } });

test("candidates of the base and of the one before it stay before older ones, whatever these would spare", () => {
  const states = new KeptStates<ReturnType<typeof of>>(4, ({ part }) => [part]);
  const step = (base: string, candidates: string[], keep: string[] = []) => {
    if (states.get(parsePattern(base)) === undefined) states.add(of(base));
    for (const candidate of candidates) {
      const wanted = {
        base: parsePattern(base),
        keep: keep.map((pattern) => parsePattern(pattern)),
        newest: parsePattern(candidate),
      };
      if (states.retain(wanted, 1)) states.add(of(candidate));
    }
  };
  const kept = (...patterns: string[]) => patterns.filter((pattern) => states.get(parsePattern(pattern)) !== undefined);
  step("FFFFF", ["FSFFF", "FFSFF", "FFFFS"]);
  expect(kept("FFFFF", "FSFFF", "FFSFF", "FFFFS")).toEqual(["FFFFF", "FSFFF", "FFSFF", "FFFFS"]);
  // The next base was a candidate; there is room for two of the others.
  step("FFFFS", ["FSFFS"], ["FFFFS"]);
  expect(kept("FFFFF", "FSFFF", "FFSFF", "FFFFS", "FSFFS")).toEqual(["FSFFF", "FFSFF", "FFFFS", "FSFFS"]);
  // What departed from the first base gives way, although its flip is as low as that of the second's candidate.
  step("FFFSS", ["FFSSS", "FSFSS"], ["FFFFS"]);
  const left = kept("FSFFF", "FFSFF", "FFFFS", "FSFFS", "FFFSS", "FFSSS", "FSFSS");
  expect(left).toEqual(["FFFFS", "FSFFS", "FFFSS", "FSFSS"]);
});
