import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { hashFile } from "../../src/base/user-files.ts";
import { reduceConfig } from "../../src/checkpoint/config/reduced-config.ts";
import { randomWeightBytes, writeRandomCheckpoint } from "../../src/checkpoint/derived/random-checkpoint.ts";
import { elementsOf } from "../../src/checkpoint/weights.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { parsePattern } from "../../src/pattern/pattern.ts";
import { openDecoder } from "../../src/runtime/generate/decoder.ts";
import { fixturePath } from "../oracle.ts";

let folders: string[];
beforeAll(() => {
  folders = [0, 1, 2].map(() => mkdtempSync(join(tmpdir(), "indexcache-random-")));
});
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

const published = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../../tools/bench/configs/${name}/config.json`, import.meta.url), "utf8"));

test("a reduced config keeps attention and indexer, and says what it made smaller", () => {
  const { config, reduced } = reduceConfig(published("DeepSeek-V3.2"), "config.json", "v32", {
    layers: 4,
    experts: 4,
    mlpWidth: 64,
    vocabulary: 100,
  });
  expect(config).toMatchObject({
    numHiddenLayers: 4,
    numAttentionHeads: 128,
    indexNHeads: 64,
    indexTopk: 2048,
    // The last layers route; four experts are too few for eight groups.
    sparseLayers: [true, true, true, true],
    nRoutedExperts: 4,
    nGroup: 1,
    numExpertsPerTok: 4,
    intermediateSize: 64,
    vocabSize: 100,
  });
  expect(reduced.map(({ field }) => field)).toEqual([
    "num_hidden_layers",
    "n_routed_experts",
    "num_experts_per_tok",
    "n_group",
    "topk_group",
    "intermediate_size",
    "moe_intermediate_size",
    "vocab_size",
  ]);
  expect(reduceConfig(published("GLM-5"), "config.json", "glm", { layers: 76 }).config.sparseLayers.indexOf(true)).toBe(
    1,
  );
  expect(() => reduceConfig(published("GLM-5"), "config.json", "glm", { layers: 79 })).toThrow(
    '--layers is 79; "config.json" has 78 (num_hidden_layers)',
  );
});

test("random weights open as a model and run; the same seed gives the same bytes", async () => {
  const small = JSON.parse(readFileSync(`${fixturePath("glm-groups")}/config.json`, "utf8"));
  const reduced = reduceConfig(small, "config.json", "small", { layers: 3 });
  const [first, second, other] = folders as [string, string, string];
  await writeRandomCheckpoint(first, reduced, 1);
  await writeRandomCheckpoint(second, reduced, 1);
  await writeRandomCheckpoint(other, reduced, 2);
  const hashes = await Promise.all(folders.map((folder) => hashFile(join(folder, "model.safetensors"))));
  expect(hashes[0]).toBe(hashes[1]);
  expect(hashes[0]).not.toBe(hashes[2]);

  const model = await openModel(first);
  expect(model.config.indexerLayers).toBe("FFF");
  const weights = await model.weights();
  expect(4 * elementsOf(weights, parsePattern("FFF"))).toBe(randomWeightBytes(reduced));
  const perIndexer = (elementsOf(weights, parsePattern("FFF")) - elementsOf(weights, parsePattern("FSS"))) / 2;
  const { indexNHeads: heads, indexHeadDim: dim, qLoraRank, hiddenSize } = model.config;
  expect(perIndexer).toBe(heads * dim * qLoraRank + dim * hiddenSize + 2 * dim + heads * hiddenSize);
  const decoder = await openDecoder(model, parsePattern("FSS"), { device: "cpu", threads: 1 });
  const logits = await decoder.prefill(Array.from({ length: 30 }, (_, i) => i));
  expect(logits.every(Number.isFinite)).toBe(true);
  // Neither vanishing nor exploding: a fair share of denormals or infinities would change the timing.
  const scale = Math.sqrt(logits.reduce((sum, value) => sum + value * value, 0) / logits.length);
  expect(scale).toBeGreaterThan(0.01);
  expect(scale).toBeLessThan(100);
  await decoder.release();
});
