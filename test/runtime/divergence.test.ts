/** The KL objective: against transformers' logits, and never moved by what is kept, spilled, or computed elsewhere. */
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import { type Pattern, withShared } from "../../src/pattern/pattern.ts";
import type { LossSettings } from "../../src/runtime/loss/loss-evaluator.ts";
import { ReferenceDistributions } from "../../src/runtime/loss/reference-distributions.ts";
import type { Measurement, PatternEvaluator } from "../../src/runtime/measurement.ts";
import { fixturePath, largestDifference, oracleLogits, readOracle } from "../oracle.ts";

const built = pathToFileURL(join(import.meta.dirname, "..", "..", "dist", "runtime", "loss", "loss-evaluator.js")).href;
const name = "glm-groups";
const oracle = readOracle(name);
const windows = oracle.sequences.map((ids) => Int32Array.from(ids));
const width = oracle.vocabulary_size;
const few = 5;

let model: ModelFolder;
let full: Pattern;
let openLossEvaluator: typeof import("../../src/runtime/loss/loss-evaluator.ts").openLossEvaluator;

beforeAll(async () => {
  ({ openLossEvaluator } = await import(built));
  model = await openModel(fixturePath(name));
  full = model.config.indexerLayers;
});

function open(settings: Partial<LossSettings> & { workers?: number } = {}): Promise<PatternEvaluator> {
  return openLossEvaluator(model, windows, {
    device: "cpu",
    workers: 1,
    threads: 1,
    stateBytes: 2 ** 30,
    spillBytes: 0,
    objective: "kl",
    ...settings,
  });
}

const divergencesOf = ({ sequences }: Measurement): number[] => sequences.map(({ kl }) => kl ?? NaN);

/** Probabilities of every token but the last, from transformers' logits of a run. */
function probabilities(pattern: Pattern, sequence: number): number[][] {
  const run = oracle.runs.find((run) => run.pattern === pattern && run.sequence === sequence);
  if (run === undefined) throw new Error(`no run of ${pattern}`);
  const logits = oracleLogits(name, run);
  return Array.from({ length: run.logits.shape[0] - 1 }, (_, row) => {
    const scores = [...logits.subarray(row * width, (row + 1) * width)];
    const largest = Math.max(...scores);
    const powers = scores.map((score) => Math.exp(score - largest));
    const total = powers.reduce((sum, power) => sum + power, 0);
    return powers.map((power) => power / total);
  });
}

/** Mean KL over rows, of whole distributions or of their `top` likeliest tokens of the first and the mass of all others. */
function meanDivergence(from: number[][], to: number[][], top = width): number {
  const rows = from.map((p, row) => {
    const q = to[row] as number[];
    const kept = [...p.keys()].sort((left, right) => (p[right] as number) - (p[left] as number)).slice(0, top);
    const coarse = (all: number[]) => {
      const masses = kept.map((token) => all[token] as number);
      const rest = 1 - masses.reduce((sum, mass) => sum + mass, 0);
      return top < width ? [...masses, rest] : masses;
    };
    const target = coarse(q);
    return coarse(p).reduce((sum, mass, index) => sum + mass * Math.log(mass / (target[index] as number)), 0);
  });
  return rows.reduce((sum, row) => sum + row, 0) / rows.length;
}

describe.each([
  { dtype: "float32", digits: 5 },
  { dtype: "float16", digits: 2 },
] as const)("$dtype", ({ dtype, digits }) => {
  test.each([width, few])("with %i tokens kept is what transformers' logits say", async (top) => {
    const evaluator = await open({ top, dtype });
    for (const { pattern } of oracle.runs.filter(({ sequence }) => sequence === 0)) {
      const measurement = await evaluator.evaluate(pattern, { base: full });
      const wanted = windows.map((_, index) =>
        meanDivergence(probabilities(full, index), probabilities(pattern, index), top),
      );
      expect(largestDifference(divergencesOf(measurement), wanted)).toBeLessThan(10 ** -digits);
      if (pattern === full) expect(measurement).toMatchObject({ kl: 0, klStandardError: 0 });
      else expect(measurement.kl).toBeGreaterThan(10 ** -digits);
    }
    await evaluator.release();
  });
});

test("fewer tokens give less, and never less than nothing", async () => {
  const pattern = "FSFSF" as Pattern;
  const found: number[][] = [];
  for (const top of [1, few, 20, width]) {
    const evaluator = await open({ top });
    found.push(divergencesOf(await evaluator.evaluate(pattern)));
    await evaluator.release();
  }
  for (const [index, divergences] of found.entries()) {
    for (const [place, kl] of divergences.entries()) expect(kl).toBeGreaterThan(found[index - 1]?.[place] ?? 0);
  }
});

test("the loss beside it is that of the other objective, to the last bit", async () => {
  const [losses, divergences] = await Promise.all([open({ objective: "nll" }), open()]);
  for (const pattern of [full, withShared(full, 3), withShared(withShared(full, 3), 1)]) {
    const plain = await losses.evaluate(pattern, { base: full });
    const both = await divergences.evaluate(pattern, { base: full });
    expect(both.loss).toBe(plain.loss);
    expect(plain).not.toHaveProperty("kl");
  }
  await losses.release();
  await divergences.release();
});

test("is the same whatever is kept, in whatever order, by however many processes", async () => {
  const patterns = [withShared(full, 2), withShared(withShared(full, 2), 4), withShared(full, 1)];
  const evaluator = await open({ stateBytes: 0 });
  const wanted: number[][] = [];
  for (const pattern of patterns) wanted.push(divergencesOf(await evaluator.evaluate(pattern)));
  await evaluator.release();
  for (const settings of [
    { workers: 2 },
    { stateBytes: 300_000, spillBytes: 2 ** 30 },
    { workers: 2, stateBytes: 0 },
  ]) {
    const other = await open(settings);
    // A search that is resumed begins with any base.
    for (const [index, pattern] of patterns.entries()) {
      const base = patterns[0] as Pattern;
      const some = await other.evaluate(pattern, { base, sequences: [1] });
      expect(divergencesOf(some)).toEqual([wanted[index]?.[1]]);
      expect(divergencesOf(await other.evaluate(pattern, { base }))).toEqual(wanted[index]);
    }
    const afresh = await other.evaluate(patterns[1] as Pattern, { afresh: true });
    expect(divergencesOf(afresh)).toEqual(wanted[1]);
    await other.release();
  }
});

test("distributions come back from memory and from the temporary file alike", async () => {
  const kept = new ReferenceDistributions(40);
  const rows = [3, 4, 5, 6].map((length) => Float32Array.from({ length }, (_, i) => Math.fround(length + i / 3)));
  for (const [place, values] of rows.entries()) await kept.set(place, values);
  for (const [place, values] of rows.entries()) expect(await kept.get(place)).toEqual(values);
  kept.delete(0);
  kept.delete(2);
  expect([kept.has(0), kept.has(1), kept.has(2), await kept.get(2)]).toEqual([false, true, false, undefined]);
  await kept.release();
});
