/** Weights that there is no room to convert on the host are converted in every run, and losses stay as they are. */
import { expect, test } from "vitest";
import { openModel } from "../../src/graph/model-folder.ts";
import { BatchedLosses } from "../../src/runtime/loss/sequence-loss.ts";
import { fixturePath } from "../oracle.ts";

test.each(["glm-groups", "v32-fp8", "axk2-light"])("%s", async (name) => {
  const model = await openModel(fixturePath(name));
  const windows = [Int32Array.from({ length: 80 }, (_, position) => 3 + ((position * (position + 31)) % 80))];
  const lossOf = async (hostBytes: number) => {
    const losses = await BatchedLosses.open(model, windows, {
      ...{ device: "cpu", dtype: "float32", threads: 1, stateBytes: 0, chunkBytes: 2 ** 25, hostBytes },
    });
    const { sequences } = await losses.evaluate(model.config.indexerLayers, {});
    await losses.release();
    return { loss: sequences[0]?.loss, plan: losses.plan.join() };
  };
  const converted = await lossOf(2 ** 30);
  const kept = await lossOf(0);
  expect(converted.plan).not.toMatch(/in every run/);
  expect(kept.plan).toMatch(/are converted in every run/);
  expect(kept.loss).toBeCloseTo(converted.loss as number, 5);
});
