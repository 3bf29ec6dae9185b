/** Weights that there is no room to convert on the host are converted in every run, and losses stay as they are. */
import { expect, test } from "vitest";
import type { DsaConfig } from "../../src/checkpoint/config/model-config.ts";
import { OnnxType } from "../../src/checkpoint/dtype.ts";
import { kernelsOf } from "../../src/graph/layer/kernels.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { sequenceShape } from "../../src/runtime/loss/sequence-batch.ts";
import { BatchedLosses } from "../../src/runtime/loss/sequence-loss.ts";
import { deviceNeed } from "../../src/runtime/loss/sequence-memory.ts";
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

test("what experts keep and take is in the plan of a GPU's memory", () => {
  // A.X-K2-Light on an H200: ONNX Runtime's allocator asked for so many bytes for each node of the kernel (docs/gpu.md).
  const config = {
    ...{ hiddenSize: 2048, numAttentionHeads: 32, qkNopeHeadDim: 64, qkRopeHeadDim: 32, vHeadDim: 64, kvLoraRank: 128 },
    ...{ indexTopk: 2048, indexNHeads: 16, indexHeadDim: 128, vocabSize: 163_840, intermediateSize: 5120 },
    ...{ moeIntermediateSize: 512, nRoutedExperts: 128, numExpertsPerTok: 8, numHiddenLayers: 48 },
    ...{ indexerLayers: "F".repeat(48), sparseLayers: [false, ...new Array<boolean>(47).fill(true)] },
  } as DsaConfig;
  const conversion = { inRuns: true, device: 37.84 * 2 ** 30, run: 0 };
  for (const [length, ofNode] of [
    [3072, 780_891_264],
    [8192, 1_024_427_136],
  ] as const) {
    const needOf = (storedExperts: boolean) => {
      const kernels = kernelsOf("cuda", OnnxType.float16, { storedExperts });
      const shape = sequenceShape(config, [new Int32Array(length)], 8 * 2 ** 30, kernels);
      return deviceNeed(config, shape, { dtype: "float16", boundaries: false, kernels, conversion });
    };
    expect(Math.abs(needOf(false).experts / (47 * ofNode) - 1)).toBeLessThan(0.03);
    expect(needOf(true).experts).toBe(0);
    expect(needOf(true).step).toBeGreaterThan(needOf(false).step);
  }
});
