/** Batches of whole sequences: what is asked for decides what runs, so that a candidate that is dropped early saves work. */
import { expect, test } from "vitest";
import { openModel } from "../../src/graph/model-folder.ts";
import { type Pattern, withShared } from "../../src/pattern/pattern.ts";
import { BatchedLosses } from "../../src/runtime/loss/sequence-loss.ts";
import type { EvaluateOptions } from "../../src/runtime/measurement.ts";
import { raced } from "../../src/search/screening/raced.ts";
import { sequencesAtOnce } from "../../src/search/search.ts";
import { strategies } from "../../src/search/strategies/strategies.ts";
import { fixturePath } from "../oracle.ts";

test("runs the sequences that are asked for and no others, with the same losses", async () => {
  const model = await openModel(fixturePath("glm-groups"));
  const layers = model.config.numHiddenLayers;
  // So long that two of them fill a run.
  const windows = Array.from({ length: 4 }, (_, index) =>
    Int32Array.from({ length: 1030 }, (_, position) => 3 + ((index * 57 + position * (position + 31)) % 80)),
  );
  const open = (together?: number) =>
    BatchedLosses.open(model, windows, {
      device: "cpu",
      dtype: "float32",
      threads: 1,
      stateBytes: 2 ** 28,
      chunkBytes: 2 ** 25,
      ...(together === undefined ? {} : { together }),
    });
  const base = model.config.indexerLayers;
  const candidates = [1, 2].map((layer) => withShared(base, layer));
  const whole = await open();
  expect(whole.sideBySide).toBe(4);
  const wanted = new Map<Pattern, number[]>();
  for (const pattern of [base, ...candidates]) {
    wanted.set(
      pattern,
      (await whole.evaluate(pattern, {})).sequences.map(({ loss }) => loss),
    );
  }
  await whole.release();

  const losses = await open(2);
  expect(losses.sideBySide).toBe(2);
  const bodies = async (pattern: Pattern, options: EvaluateOptions): Promise<number> => {
    const { sequences, executions } = await losses.evaluate(pattern, options);
    const asked = options.sequences ?? [0, 1, 2, 3];
    for (const [place, index] of asked.entries()) {
      expect(sequences[place]?.loss).toBeCloseTo(wanted.get(pattern)?.[index] as number, 5);
    }
    return executions.body;
  };
  const [first, second] = candidates as [Pattern, Pattern];
  // The base of the block, then the layers from the first difference up.
  expect(await bodies(first, { base, sequences: [3, 0] })).toBe(2 * layers + 2 * (layers - 1));
  expect(await bodies(second, { base, sequences: [3, 0] })).toBe(2 * (layers - 2));
  // What ran together before does so again; only the base of the others is new. Who asks remembers losses: here nobody does.
  expect(await bodies(second, { base, sequences: [0, 1, 2, 3] })).toBe(2 * layers + 4 * (layers - 2));
  expect(await bodies(first, { base, sequences: [2, 1] })).toBe(2 * (layers - 1));
  await losses.release();
});

test("a search says how many sequences it asks for at once", () => {
  const named = (name: string) => strategies.find((strategy) => strategy.name === name) as (typeof strategies)[number];
  const greedy = named("greedy");
  expect(sequencesAtOnce({ strategy: greedy }, 24)).toBe(24);
  expect(sequencesAtOnce({ strategy: greedy, race: { alpha: 0.1, block: 2, seed: 0 } }, 24)).toBe(2);
  expect(sequencesAtOnce({ strategy: greedy, race: { alpha: 0.1, block: 2, seed: 0 } }, 1)).toBe(1);
  expect(sequencesAtOnce({ strategy: greedy, bounded: true }, 24)).toBe(2);
  expect(sequencesAtOnce({ strategy: named("refine") }, 24)).toBe(3);
  expect(raced({ alpha: 0.1, block: 2, seed: 0 }).callsEach(24)).toBe(12);
});
