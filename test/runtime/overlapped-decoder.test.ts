/** Ranges of layers in two threads against one graph: the same bits, and failures that somebody hears of. */
import { writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, test } from "vitest";
// The built program has the program of a thread beside it.
import { openModel } from "../../dist/graph/model-folder.js";
import { type Pattern, parsePattern } from "../../dist/pattern/pattern.js";
import { openDecoder, openOverlappedDecoder, overlaps } from "../../dist/runtime/generate/decoder.js";
import { rangesInTurn } from "../../dist/runtime/generate/layer-ranges.js";
import { LayerThread } from "../../dist/runtime/generate/layer-thread.js";
import type { Decoder } from "../../dist/runtime/measurement.js";
import { largestDifference } from "../oracle.ts";

const demo = await openModel(join(import.meta.dirname, "..", "..", "models", "demo"));
const ids = Array.from({ length: 700 }, (_, i) => (i * 7919 + 13) % demo.config.vocabSize);

async function logitsOf(decoder: Decoder, tokens: readonly number[]): Promise<Float32Array[]> {
  const all = [await decoder.prefill(tokens)];
  for (const id of [5, 6]) all.push(await decoder.decode(id));
  return all.map((logits) => Float32Array.from(logits));
}

// Boundaries at a Full layer, and at Shared ones that go on with a selection from below.
test.each(["FFFFFFFFFFFF", "FSSSSSSSSSSS", "FFSSFSSSSFSS"].map((text) => parsePattern(text)))(
  "%s: a prompt in chunks and tokens after it",
  async (pattern: Pattern) => {
    const settings = { device: "cpu", threads: 2, capacity: 800 } as const;
    const one = await openDecoder(demo, pattern, { ...settings, threads: 1 });
    const two = await openOverlappedDecoder(demo, pattern, settings);
    const expected = await logitsOf(one, ids);
    expect(await logitsOf(two, ids)).toEqual(expected);
    expect(two.indexerExecutions).toEqual(one.indexerExecutions);
    expect(two.cacheBytes).toEqual(one.cacheBytes);
    // Again, in the place of what is there, and on from the middle.
    two.rewind(0);
    await two.prefill(ids.slice(0, 300));
    expect(await two.prefill(ids.slice(300))).toHaveLength(demo.config.vocabSize);
    two.rewind(0);
    expect(await logitsOf(two, ids)).toEqual(expected);
    await Promise.all([one.release(), two.release()]);
  },
);

test("a graph for few tokens has the bits of one for many, and goes on beyond them", async () => {
  const prompt = Array.from({ length: 1100 }, (_, i) => (i * 7919 + 13) % demo.config.vocabSize);
  const [few, many] = await Promise.all(
    [600, 1200].map((capacity) =>
      openDecoder(demo, parsePattern("F".repeat(12)), { device: "cpu", threads: 1, capacity }),
    ),
  );
  expect(await few?.prefill(prompt.slice(0, 590))).toEqual(await many?.prefill(prompt.slice(0, 590)));
  // Selections are the same there, in another order.
  const [beyond, expected] = [await few?.prefill(prompt.slice(590)), await many?.prefill(prompt.slice(590))];
  expect(largestDifference(beyond as Float32Array, expected as Float32Array)).toBeLessThan(1e-4);
  await Promise.all([few?.release(), many?.release()]);
});

// Two of a thread and two of the other, as many layers as there are ranges, fewer.
test.each([
  ["FFFFFFFFFFFF", [2, 4, 4, 2]],
  ["FSSSFSSSFSSS", [2, 4, 4, 2]],
  ["FFSS", [1, 1, 1, 1]],
  ["FSSFS", [1, 2, 1, 1]],
  ["FFF", [2, 1]],
  ["FS", [1, 1]],
])("%s: ranges by turns, with as much to do in both threads", (text, sizes) => {
  const ranges = rangesInTurn(parsePattern(text));
  expect(ranges.map(({ from, to }) => to - from)).toEqual(sizes);
  expect(ranges.map(({ from }) => from)).toEqual([0, ...ranges.slice(0, -1).map(({ to }) => to)]);
});

test("the same prompt again after a signal", async () => {
  const pattern = parsePattern("FSSSSSFSSSSS");
  const decoder = await openOverlappedDecoder(demo, pattern, { threads: 2 });
  const expected = await logitsOf(decoder, ids);
  decoder.rewind(0);
  const controller = new AbortController();
  const prefill = decoder.prefill(ids, controller.signal);
  await nextTurn();
  await nextTurn();
  controller.abort();
  await expect(prefill).rejects.toThrow("Interrupted");
  // What the other thread still had to do is done before what is asked now.
  expect(await logitsOf(decoder, ids)).toEqual(expected);
  await decoder.release();
});

test("a signal ends a prefill between chunks", async () => {
  const decoder = await openOverlappedDecoder(demo, parsePattern("F".repeat(12)), { threads: 2 });
  const controller = new AbortController();
  const prefill = decoder.prefill(ids, controller.signal);
  controller.abort();
  await expect(prefill).rejects.toThrow("Interrupted");
  await decoder.release();
});

test("a graph that cannot be loaded, and a thread that ends", async () => {
  const layers = {
    graph: Uint8Array.of(1),
    name: "broken",
    threads: 1,
    folder: ".",
    passes: [],
    caches: [],
    capacity: 1,
  };
  const thread = new LayerThread([layers]);
  await expect(thread.opened).rejects.toThrow('ONNX Runtime cannot load "broken"');
  await expect(thread.ask({ range: 0, start: 0, inputs: {} })).rejects.toThrow('ONNX Runtime cannot load "broken"');
  await thread.end();

  const folder = await mkdtemp(join(tmpdir(), "indexcache-test-"));
  const program = join(folder, "program.mjs");
  writeFileSync(program, "process.exit(7);");
  const ended = new LayerThread([layers], program);
  await expect(ended.opened).rejects.toThrow('The thread of "broken" ended (7)');
  await expect(ended.ask({ range: 0, start: 0, inputs: {} })).rejects.toThrow("ended (7)");
  await rm(folder, { recursive: true });
});

test("what is run in two threads", () => {
  const { config } = demo;
  const cpu = { device: "cpu", threads: 2 } as const;
  const long = { prompt: 512, newTokens: 144 };
  expect(overlaps(cpu, config, long)).toBe(true);
  expect(overlaps(cpu, config, { ...long, prompt: 511 })).toBe(false);
  expect(overlaps(cpu, config, { ...long, newTokens: 145 })).toBe(false);
  expect(overlaps({ ...cpu, threads: 1 }, config, long)).toBe(false);
  expect(overlaps({ ...cpu, device: "cuda" }, config, long)).toBe(false);
  expect(overlaps(cpu, { ...config, numHiddenLayers: 1 }, long)).toBe(false);
});
