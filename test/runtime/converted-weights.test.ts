/** Weights that there is no room to convert on the host are converted in every run, and losses stay as they are. */
import { expect, test } from "vitest";
import type { DsaConfig } from "../../src/checkpoint/config/model-config.ts";
import { OnnxType } from "../../src/checkpoint/dtype.ts";
import { kernelsOf, type StoredExperts } from "../../src/graph/layer/kernels.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { sequenceShape } from "../../src/runtime/loss/sequence-batch.ts";
import { BatchedLosses } from "../../src/runtime/loss/sequence-loss.ts";
import { deviceNeed, totalNeed } from "../../src/runtime/loss/sequence-memory.ts";
import { openSequenceSession } from "../../src/runtime/loss/sequence-session.ts";
import { fixturePath } from "../oracle.ts";

test.each(["glm-groups", "v32-fp8", "axk2-light"])("%s", async (name) => {
  const model = await openModel(fixturePath(name));
  const windows = [Int32Array.from({ length: 80 }, (_, position) => 3 + ((position * (position + 31)) % 80))];
  const lossOf = async (hostBytes: number, passes?: number) => {
    const losses = await BatchedLosses.open(model, windows, {
      ...{ device: "cpu", dtype: "float32", threads: 1, stateBytes: 0, chunkBytes: 2 ** 25, hostBytes, passes },
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
  expect((await lossOf(0, 1)).loss).toBeCloseTo(converted.loss as number, 5);
});

test("experts are products where few sequences run, or where their kernel has no room", async () => {
  const model = await openModel(fixturePath("axk2-light"));
  const settings = { device: "cpu", dtype: "float32", threads: 1, stateBytes: 0, chunkBytes: 2 ** 25 } as const;
  const formOf = async (hostBytes: number, passes?: number) => {
    const opened = await openSequenceSession(model, [new Int32Array(80)], { ...settings, hostBytes, passes });
    await opened.session.release();
    return opened.settings.storedExperts;
  };
  expect(await formOf(2 ** 30, 1)).toBeUndefined();
  expect(await formOf(0)).toBe("stored");
  expect(await formOf(0, 63)).toBe("products");
  expect(await formOf(0, 64)).toBe("stored");
});

test("the kernel of experts keeps what a run gave it, in every node", () => {
  // A.X-K2-Light at 8,192 and 5,120 tokens on an H200 (docs/gpu.md): 92 and 72.4 GiB held, 38 of them weights.
  const config = {
    ...{ hiddenSize: 2048, numAttentionHeads: 32, qkNopeHeadDim: 64, qkRopeHeadDim: 32, vHeadDim: 64, kvLoraRank: 128 },
    ...{ indexTopk: 2048, indexNHeads: 16, indexHeadDim: 128, vocabSize: 163_840, intermediateSize: 5120 },
    ...{ moeIntermediateSize: 512, nRoutedExperts: 128, numExpertsPerTok: 8, numHiddenLayers: 48 },
    ...{ indexerLayers: "F".repeat(48), sparseLayers: [false, ...new Array<boolean>(47).fill(true)] },
  } as DsaConfig;
  const conversion = { inRuns: true, device: 37.84 * 2 ** 30, run: 4 * 2 ** 30 };
  for (const [length, held] of [
    [8192, 91.8],
    [5120, 72.4],
  ] as const) {
    const need = (storedExperts: StoredExperts) => {
      const kernels = kernelsOf("cuda", OnnxType.float16, { storedExperts });
      const shape = sequenceShape(config, [new Int32Array(length)], 8 * 2 ** 30, kernels);
      return (
        totalNeed(deviceNeed(config, shape, { dtype: "float16", boundaries: false, kernels, conversion })) / 2 ** 30
      );
    };
    expect(Math.abs(need("stored") / held - 1)).toBeLessThan(0.1);
    expect(need("products")).toBeLessThan(56);
  }
});
