import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { hashFile } from "../../src/base/user-files.ts";
import { loadCalibrationSet } from "../../src/calibration/calibration-set.ts";
import { Tokenizer } from "../../src/checkpoint/tokenizer/tokenizer.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { fullLayers, fullPattern, parsePattern } from "../../src/pattern/pattern.ts";
import { greedy } from "../../src/search/strategies/greedy.ts";
import { fixturePath } from "../oracle.ts";
import { landscapeNames, parseLandscape, patternIndex, readLandscape } from "./landscape.ts";
import { run } from "./synthetic.ts";

const shipped = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const oracle = z
  .object({
    losses: z.array(z.object({ pattern: z.string(), mean_nll_ties_to_lowest_index: z.array(z.number()) })),
    greedy_search: z.object({
      steps: z.array(
        z.object({
          flipped: z.number(),
          pattern: z.string(),
          candidates: z.array(z.object({ layer: z.number(), loss: z.number() })),
        }),
      ),
    }),
  })
  .parse(JSON.parse(readFileSync(`${fixturePath("demo")}/oracle.json`, "utf8")));

describe("the landscape of the demo model", () => {
  const landscape = readLandscape("demo");

  test("is of the shipped weights and windows", async () => {
    expect(landscape.weights).toBe(await hashFile(shipped("models/demo/model.safetensors")));
    const { config } = await openModel(shipped("models/demo"));
    const tokenizer = await Tokenizer.load(shipped("models/demo"));
    const encode = async (text: string) => tokenizer.encode(text);
    for (const [file, set] of [
      ["demo", landscape.calibration],
      ["held-out", landscape.heldOut],
    ] as const) {
      const { hash, windows } = await loadCalibrationSet(shipped(`calibration/${file}.jsonl`), config, encode);
      expect({ hash, sequences: windows.length }).toEqual({ hash: set?.hash, sequences: set?.sequences });
    }
  });

  test("has the losses that transformers has, window by window", () => {
    for (const { pattern, mean_nll_ties_to_lowest_index: expected } of oracle.losses) {
      const measured = landscape.calibration.perSequence(parsePattern(pattern));
      expect([...measured.subarray(0, expected.length)]).toEqual(
        expected.map((loss) => expect.closeTo(loss, 4) as number),
      );
    }
  });

  test("leads a greedy search the way that it took over transformers", async () => {
    const { steps } = oracle.greedy_search;
    const windows = [0, 1, 2, 3]; // those of the oracle
    const { last } = await run(
      { strategy: greedy },
      {
        start: fullPattern(landscape.layers),
        targets: [landscape.layers - steps.length],
        loss: (pattern) => landscape.loss(pattern, windows),
      },
    );
    expect(
      last.steps.map(({ pattern, candidates }) => ({
        pattern,
        candidates: candidates.map(({ flipped, loss }) => ({ layer: flipped[0], loss })),
      })),
    ).toEqual(
      steps.map(({ pattern, candidates }) => ({
        pattern,
        candidates: candidates.map(({ layer, loss }) => ({ layer, loss: expect.closeTo(loss, 4) as number })),
      })),
    );
  });
});

test.each(landscapeNames)("%s is a landscape", (name) => {
  const landscape = readLandscape(name);
  const patterns = landscape.patterns();
  expect(patterns.map(patternIndex)).toEqual([...patterns.keys()]);
  const losses = patterns.map((pattern) => landscape.loss(pattern));
  // Layer 0's selection serves no layer as well as its own does, in any model that has learned something.
  expect(losses[0]).toBeGreaterThan((losses.at(-1) ?? 0) + 1);
  for (const set of [landscape.calibration, landscape.heldOut]) {
    if (set === undefined) continue;
    expect(set.kl(fullPattern(landscape.layers))).toBe(0);
    expect(set.kl(parsePattern("F".padEnd(landscape.layers, "S")))).toBeGreaterThan(0.5);
  }
});

test("the optimum is the best pattern of its size", () => {
  const landscape = readLandscape("l8");
  const best = landscape.optimum(3);
  expect(fullLayers(best)).toHaveLength(3);
  const others = landscape.patterns(3);
  expect(others).toHaveLength(21);
  expect(Math.min(...others.map((pattern) => landscape.loss(pattern)))).toBe(landscape.loss(best));
});

describe("the reader is strict", () => {
  const header = {
    format: 1,
    layers: 2,
    indexTopk: 1,
    weights: "0".repeat(64),
    sets: [{ name: "calibration", hash: "0".repeat(64), sequences: 2, tokens: 3 }],
  };
  /** nll of FS, nll of FF, kl of FS, kl of FF; two sequences. */
  const values = [2, 4, 1, 3, 0.5, 0.25, 0, 0];
  const file = (head: unknown = header, numbers = values) => {
    const floats = Buffer.alloc(4 * numbers.length);
    for (const [index, number] of numbers.entries()) floats.writeFloatLE(number, 4 * index);
    return Buffer.concat([Buffer.from(`${JSON.stringify(head)}\n`), floats]);
  };
  const replaced = (at: number, value: number) => values.with(at, value);

  test("and reads what is right", () => {
    const landscape = parseLandscape(file(), "it");
    const pattern = parsePattern("FS");
    expect([landscape.loss(pattern), landscape.loss(pattern, [1])]).toEqual([3, 4]);
    expect([...landscape.calibration.perSequence(pattern, "kl")]).toEqual([0.5, 0.25]);
    expect(landscape.optimum(2)).toBe("FF");
    expect(() => landscape.loss(parsePattern("FSF"))).toThrow("3 letters, the model has 2");
    expect(() => landscape.loss(pattern, [2])).toThrow("has 2 sequences, no 2");
    expect(() => landscape.loss(pattern, [])).toThrow("needs a sequence");
  });

  test.each([
    ["no header", Buffer.from("{}"), "no line of JSON"],
    ["another format", file({ ...header, format: 2 }), "format"],
    ["an unknown field", file({ ...header, extra: 1 }), "extra"],
    ["other sets", file({ ...header, sets: [{ ...header.sets[0], name: "test" }] }), "has the sets test"],
    ["a value too few", file(header, values.slice(1)), "bytes, its header asks for"],
    ["a value too many", file(header, [...values, 1]), "bytes, its header asks for"],
    [
      "a loss that is no number",
      file(header, replaced(1, Number.NaN)),
      "nll of FS on sequence 1 of calibration is NaN",
    ],
    ["a negative divergence", file(header, replaced(4, -1)), "kl of FS on sequence 0 of calibration is -1"],
    ["all F away from itself", file(header, replaced(7, 1)), "kl of FF on sequence 1 of calibration is 1"],
  ])("with %s", (_, bytes, words) => {
    expect(() => parseLandscape(bytes, "it")).toThrow(words);
  });
});
