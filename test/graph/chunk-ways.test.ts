/** Chunks of many rows take other ways than chunks of few: a bound below top-k, gathers in blocks. The results are the same. */
import { fileURLToPath } from "node:url";
import { Tensor } from "onnxruntime-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { OnnxType } from "../../src/checkpoint/dtype.ts";
import { encodeModel, GraphBuilder } from "../../src/graph/graph-builder.ts";
import { chunkWays } from "../../src/graph/layer/kernels.ts";
import { raiseOthers, topk } from "../../src/graph/layer/lightning-indexer.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { floats, OnnxSession } from "../../src/runtime/session/onnx-session.ts";
import type { Chunk } from "../../src/runtime/stages/chunks.ts";
import { type SelectedKeys, StageModel } from "../../src/runtime/stages/stage-model.ts";
import { largestDifference } from "../oracle.ts";

const cpu = { device: "cpu", threads: 1 } as const;

/** Pseudo-random numbers in [0, 1). */
function numbers(count: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (state * 1664525 + 1013904223) % 2 ** 32;
    return state / 2 ** 32;
  });
}

test("raised scores leave the k largest and the lowest of their ties, and few others that differ", async () => {
  const [rows, columns, groups, k] = [12, 96, 16, 8];
  const graph = new GraphBuilder();
  graph.input("scores", OnnxType.float, [rows, 1, columns]);
  const raised = raiseOthers(graph, "scores", groups, graph.int([k]));
  graph.output("raised", raised, OnnxType.float, [rows, 1, columns]);
  graph.output("indices", topk(graph, raised, graph.int([k]))[1], OnnxType.int64, [rows, 1, k]);
  const session = await OnnxSession.create(encodeModel(graph.model("raised")), "raised", { ...cpu, folder: "." });
  const scores = numbers(rows * columns, 7).map((x, i) => {
    const row = Math.floor(i / columns);
    if (row < 3) return x - 0.5;
    // Ties: a few values, most of them 0 as relu makes them, large and small ones, and keys of the future.
    if (row < 6) return Math.max(0, Math.round(6 * x) - 5);
    if (row < 9) return (Math.round(3 * x) - 2) * 1e4;
    return i % columns > 40 ? Number.NEGATIVE_INFINITY : Math.round(4 * x) * 1e-12;
  });
  const { raised: after, indices } = await session.run({ scores: new Tensor("float32", scores, [rows, 1, columns]) });
  const found = Array.from(indices?.data as BigInt64Array, Number);
  for (let row = 0; row < rows; row++) {
    const own = scores.subarray(row * columns, (row + 1) * columns);
    const order = [...own.keys()].sort((a, b) => (own[b] as number) - (own[a] as number) || a - b);
    const selected = found.slice(row * k, (row + 1) * k).sort((a, b) => a - b);
    expect(selected).toEqual(order.slice(0, k).sort((a, b) => a - b));
    const values = new Set(floats(after, "raised").subarray(row * columns, (row + 1) * columns));
    if (row < 3) expect(values.size).toBeLessThan(columns / 2);
  }
  await session.release();
});

let stages: StageModel;
beforeAll(async () => {
  const model = await openModel(fileURLToPath(new URL("../../models/demo", import.meta.url)));
  stages = await StageModel.open(model, cpu);
});
afterAll(() => stages.release());

test("rows select and read the same keys in chunks of 128, of 4, and of 10, 9 and 8", async () => {
  const { denseUpTo, boundFrom, boundRows, gatherBlocks, selectBlocks } = chunkWays(stages.config);
  const ids = Int32Array.from({ length: 1024 }, (_, i) => (i * 7919 + 13) % 2048);
  const { hidden, rows } = await stages.embed(ids);
  // The last rows: of two sizes, one on either side of what the ways are chosen by.
  expect(Math.max(denseUpTo, boundFrom)).toBeLessThanOrEqual(896);
  expect([4 < boundRows, 4 < 2 * gatherBlocks]).toEqual([true, true]);
  const before = [
    { start: 0, end: 128 },
    { start: 128, end: 512 },
    { start: 512, end: 896 },
  ];
  const run = async (last: Chunk[]) => {
    const cut = { ...rows, chunks: [...before, ...last] };
    const { selected } = await stages.selectKeys(0, hidden, cut);
    const next = await stages.runBody(0, hidden, cut, selected);
    return { keys: selected.slice(before.length).flatMap(sortedRows), hidden: next.hidden };
  };
  const whole = await run([{ start: 896, end: 1024 }]);
  const pieces = await run(cutInto(4, 896, 1024));
  expect(whole.keys).toHaveLength(128);
  expect(whole.keys).toEqual(pieces.keys);
  expect(largestDifference(whole.hidden, pieces.hidden)).toBeLessThan(1e-5);
  // Bounded scores of blocks of 3, 3, 3 and 1 rows, of rows that cannot be cut in four, and of blocks of two rows.
  expect([selectBlocks, boundRows]).toEqual([4, 8]);
  const others = await run([...cutInto(10, 896, 936), ...cutInto(9, 936, 1008), ...cutInto(8, 1008, 1024)]);
  expect(others.keys).toEqual(whole.keys);
  expect(largestDifference(others.hidden, whole.hidden)).toBeLessThan(1e-5);
  // A host may bring more rows than there are past ones, too few to be cut.
  for (const start of [0, 5]) {
    const at = { start, end: 1000 };
    const cut = { ...rows, chunks: [...(start > 0 ? [{ start: 0, end: start }] : []), at] };
    const { selected } = await stages.selectKeys(0, hidden, cut);
    expect(selected.flatMap(sortedRows).slice(896, 1000)).toEqual(whole.keys.slice(0, 104));
  }
});

function cutInto(rows: number, start: number, end: number): Chunk[] {
  return Array.from({ length: (end - start) / rows }, (_, i) => ({
    start: start + rows * i,
    end: start + rows * (i + 1),
  }));
}

function sortedRows({ indices, width }: SelectedKeys): number[][] {
  const count = indices.length / width;
  return Array.from({ length: count }, (_, row) =>
    [...indices.subarray(row * width, (row + 1) * width)].sort((a, b) => a - b),
  );
}
