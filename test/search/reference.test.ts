import { describe, expect, test } from "vitest";
import { openModel } from "../../src/graph/model-folder.ts";
import { openLossEvaluator } from "../../src/runtime/loss.ts";
import type { Measurement } from "../../src/runtime/measurement.ts";
import type { SearchResult } from "../../src/search/events.ts";
import { searchGreedily } from "../../src/search/greedy.ts";
import { fixturePath, readOracle, untiedFixtures } from "../oracle.ts";

describe("the greedy search takes the steps of the reference search over transformers", () => {
  test.each(untiedFixtures)("%s", async (name) => {
    const reference = readOracle(name).greedy_search;
    if (reference === undefined) throw new Error(`${name} has no reference search`);
    const model = await openModel(fixturePath(name));
    const windows = readOracle(name).sequences.map((ids) => Int32Array.from(ids));
    const evaluator = await openLossEvaluator(model, windows, { device: "cpu", threads: 1 });
    let result: SearchResult<Measurement> | undefined;
    const search = searchGreedily<Measurement>({
      start: model.config.indexerLayers,
      retain: 1,
      evaluate: (pattern, options) => evaluator.evaluate(pattern, options),
    });
    for await (const event of search) if (event.kind === "done") result = event.result;
    await evaluator.release();
    expect(result?.baseline.loss).toBeCloseTo(reference.start_loss, 4);
    expect(result?.steps.map(({ pattern }) => pattern)).toEqual(reference.steps.map(({ pattern }) => pattern));
    for (const [index, step] of (result?.steps ?? []).entries()) {
      const expected = reference.steps[index]?.candidates ?? [];
      expect(step.candidates).toEqual(
        expected.map(({ layer, loss }) => ({ layer, loss: expect.closeTo(loss, 4) as number })),
      );
    }
  });
});
