/** The demo model with indexers that `distill` trained computes what transformers computes with it (tools/oracle/distilled.py). */
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { openTensors } from "../../src/checkpoint/shards.ts";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import { openDecoder } from "../../src/runtime/generate/decoder.ts";
import { openLossEvaluator } from "../../src/runtime/loss/loss-evaluator.ts";
import { demoModel } from "../cli/indexcache.ts";
import { fixturePath, largestDifference } from "../oracle.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const cpu = { device: "cpu", threads: 1, workers: 1 } as const;
const fixture = fixturePath("demo-distilled");
const oracle = z
  .object({
    pattern: z.string(),
    rows: z.array(z.number()),
    sequences: z.array(z.object({ input_ids: z.array(z.number()), loss: z.number(), logits: z.string() })),
  })
  .parse(JSON.parse(await readFile(join(fixture, "transformers.json"), "utf8")));

const folder = temporaryFolder("file");
let model: ModelFolder;
beforeAll(async () => {
  await cp(demoModel, folder, { recursive: true });
  const path = join(folder, "model.safetensors");
  const bytes = await readFile(path);
  const trained = await readFile(join(fixture, "model.safetensors"));
  const places = (await openTensors(demoModel)).tensors;
  for (const { name, offset, length } of (await openTensors(fixture)).tensors.values()) {
    const place = places.get(name);
    if (place?.length !== length) throw new Error(`the demo model has no ${name} of this size`);
    trained.copy(bytes, place.offset, offset, offset + length);
  }
  await writeFile(path, bytes);
  const config = JSON.parse(await readFile(join(folder, "config.json"), "utf8"));
  const types = [...oracle.pattern].map((letter) => (letter === "F" ? "full" : "shared"));
  await writeFile(join(folder, "config.json"), JSON.stringify({ ...config, indexer_types: types }));
  model = await openModel(folder);
});

test("losses are within 1e-4", async () => {
  const pattern = model.config.indexerLayers;
  expect(pattern).toBe(oracle.pattern);
  const windows = oracle.sequences.map(({ input_ids: ids }) => Int32Array.from(ids));
  const evaluator = await openLossEvaluator(model, windows, cpu);
  const { sequences } = await evaluator.evaluate(pattern);
  await evaluator.release();
  const wanted = oracle.sequences.map(({ loss }) => loss);
  expect(
    largestDifference(
      sequences.map(({ loss }) => loss),
      wanted,
    ),
  ).toBeLessThan(1e-4);
});

test("logits are within 1e-4", async () => {
  for (const { input_ids: ids, logits } of oracle.sequences) {
    const bytes = Uint8Array.from(Buffer.from(logits, "base64"));
    const wanted = new Float32Array(bytes.buffer);
    const width = wanted.length / oracle.rows.length;
    const decoder = await openDecoder(model, model.config.indexerLayers, cpu);
    let begin = 0;
    for (const [index, row] of oracle.rows.entries()) {
      const found = await decoder.prefill(ids.slice(begin, row + 1));
      const apart = largestDifference(found, wanted.subarray(index * width, (index + 1) * width));
      expect(apart, `row ${row}`).toBeLessThan(1e-4);
      begin = row + 1;
    }
    await decoder.release();
  }
});
