import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { openModel } from "../../src/graph/model-folder.ts";
import type { Pattern } from "../../src/pattern/pattern.ts";
import { openLossEvaluator } from "../../src/runtime/loss/loss-evaluator.ts";
import { oneByOne, type SearchResult } from "../../src/search/events.ts";
import { search } from "../../src/search/search.ts";
import { PatternSpace } from "../../src/search/space.ts";
import { greedy } from "../../src/search/strategies/greedy.ts";
import { copyFixture } from "../checkpoint/safetensors-file.ts";
import { fixturePath, readOracle, untiedFixtures } from "../oracle.ts";

const folders: string[] = [];
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
});

/** The fixture itself, or a copy whose config calls those layers Full that the reference search started from. */
async function folderStartingFrom(name: string, start: Pattern): Promise<string> {
  if ((await openModel(fixturePath(name))).config.indexerLayers === start) return fixturePath(name);
  const folder = await copyFixture(name);
  folders.push(folder);
  const path = join(folder, "config.json");
  const config = JSON.parse(await readFile(path, "utf8")) as object;
  await writeFile(path, JSON.stringify({ ...config, index_topk_pattern: start }));
  return folder;
}

describe("the greedy search takes the steps of the reference search over transformers", () => {
  test.each(untiedFixtures)("%s", async (name) => {
    const reference = readOracle(name).greedy_search;
    if (reference === undefined) throw new Error(`${name} has no reference search`);
    const model = await openModel(await folderStartingFrom(name, reference.start));
    const windows = readOracle(name).sequences.map((ids) => Int32Array.from(ids));
    const evaluator = await openLossEvaluator(model, windows, { device: "cpu", threads: 1 });
    const start = model.config.indexerLayers;
    expect(start).toBe(reference.start);
    let result: SearchResult | undefined;
    const work = search(
      { strategy: greedy },
      {
        space: new PatternSpace(start),
        targets: [1],
        sequences: [...windows.keys()],
        evaluate: oneByOne(
          async (pattern, sequences, options) =>
            (await evaluator.evaluate(pattern, { ...options, sequences })).sequences,
        ),
      },
    );
    for await (const event of work) if (event.kind === "done") result = event.result;
    await evaluator.release();
    expect(result?.baseline.loss).toBeCloseTo(reference.start_loss, 4);
    const steps = result?.patterns[0]?.steps ?? [];
    expect(steps.map(({ pattern }) => pattern)).toEqual(reference.steps.map(({ pattern }) => pattern));
    for (const [index, step] of steps.entries()) {
      const expected = reference.steps[index]?.candidates ?? [];
      expect(step.candidates.map(({ flipped, loss }) => ({ layer: flipped[0], loss }))).toEqual(
        expected.map(({ layer, loss }) => ({ layer, loss: expect.closeTo(loss, 4) as number })),
      );
    }
  });
});
