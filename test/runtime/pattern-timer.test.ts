import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { clocks } from "../../src/base/clock.ts";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import { type Pattern, parsePattern } from "../../src/pattern/pattern.ts";
import { CachedDecoder } from "../../src/runtime/generate/cached-decoder.ts";
import { openDecoder } from "../../src/runtime/generate/decoder.ts";
import { PatternTimer } from "../../src/runtime/generate/pattern-timer.ts";
import { fixturePath, readOracle } from "../oracle.ts";

const cpu = { device: "cpu", threads: 1 } as const;
const pattern = parsePattern("FSSSS");

describe("glm-groups", () => {
  let model: ModelFolder;
  beforeAll(async () => {
    model = await openModel(fixturePath("glm-groups"));
  });

  const difference = (one: Float32Array, other: Float32Array) =>
    Math.max(...one.map((value, index) => Math.abs(value - (other[index] as number))));

  test("without indexers, rows that see no more than index_topk keys are what every pattern makes of them", async () => {
    const ids = readOracle("glm-groups").sequences[0]?.slice(0, model.config.indexTopk) ?? [];
    const decoder = await openDecoder(model, pattern, cpu);
    const bare = await openDecoder(model, "SSSSS" as Pattern, cpu);
    for (const [start, end] of [
      [0, 3],
      [3, 4],
      [4, ids.length],
    ] as const) {
      const part = ids.slice(start, end);
      // The same keys in another order.
      expect(difference(await bare.prefill(part), await decoder.prefill(part))).toBeLessThan(1e-5);
    }
    expect(bare.cacheBytes).toEqual({ ...decoder.cacheBytes, indexerKey: 0 });
    for (const open of [decoder, bare]) await open.release();
  });

  test("without indexers, long prompts are read in caches that grow as in caches of fixed size", async () => {
    const ids = readOracle("glm-groups").sequences[0]?.slice(0, 60) ?? [];
    const growing = await openDecoder(model, "SSSSS" as Pattern, cpu);
    const fixed = await openDecoder(model, "SSSSS" as Pattern, { ...cpu, provider: "cuda" });
    expect(difference(await growing.prefill(ids), await fixed.prefill(ids))).toBeLessThan(1e-4);
    expect(difference(await growing.decode(3), await fixed.decode(3))).toBeLessThan(1e-4);
    for (const open of [growing, fixed]) await open.release();
  });

  test("says that weights are converted in every run, where the host has no memory to do it before", async () => {
    const settings = { ...cpu, capacity: 64, clock: clocks.wall, provider: "cuda", hostBytes: 0 } as const;
    const timer = await PatternTimer.open(model, [pattern], settings);
    expect(timer.plan).toEqual([expect.stringContaining("every run converts the weights")]);
    await timer.release();
  });

  test("a GPU's generation graphs are timed, and only as often as they ran", async () => {
    const settings = { ...cpu, capacity: 64, clock: clocks.wall, provider: "cuda" } as const;
    const timer = await PatternTimer.open(model, [model.config.indexerLayers, pattern], settings);
    const { prefill, decode, chunks } = await timer.measure({ context: 40, repeats: 2, decodeTokens: 3 });
    // A run ends at index_topk; the other one brings the rows after it.
    expect(chunks).toEqual({ timed: 2, all: 2 });
    for (const { patterns, withoutIndexers, alone, other } of [prefill, decode]) {
      for (const seconds of [...patterns, withoutIndexers, other]) {
        expect(seconds).toHaveLength(2);
        expect(Math.min(...seconds)).toBeGreaterThan(0);
      }
      expect(alone).toHaveLength(2);
    }
    expect(timer.plan).toEqual([]);
    const sampled = await timer.measure({ context: 60, repeats: 1, decodeTokens: 1, sampledChunks: 1 });
    expect(sampled.chunks).toEqual({ timed: 1, all: 2 });
    await timer.release();
  });

  test("every way of reading keys has run before anything is timed", async () => {
    const starts: number[] = [];
    const { prefill } = CachedDecoder.prototype;
    const spy = vi.spyOn(CachedDecoder.prototype, "prefill").mockImplementation(function (this: CachedDecoder, ids) {
      starts.push(this.position);
      return prefill.call(this, ids);
    });
    const settings = { ...cpu, capacity: 64, clock: clocks.wall, provider: "cuda" } as const;
    const timer = await PatternTimer.open(model, [pattern], settings);
    await timer.measure({ context: 40, repeats: 1, decodeTokens: 1 });
    await timer.release();
    spy.mockRestore();
    // Five graphs: rows up to index_topk, which select every key, then those after it.
    const ways = [0, model.config.indexTopk].flatMap((start) => Array<number>(5).fill(start));
    expect(starts).toEqual([...ways, ...ways]);
  });

  test("patterns that have no room for a graph each are timed in one, each as often", async () => {
    const settings = { ...cpu, capacity: 64, clock: countingClock(), provider: "cuda", oneGraph: true } as const;
    const timer = await PatternTimer.open(model, [model.config.indexerLayers, pattern], settings);
    expect(timer.plan.join()).toMatch(/all run in one/);
    const heard: [number, number][] = [];
    const onChunk = (timed: number, all: number) => heard.push([timed, all]);
    const { prefill, decode, chunks } = await timer.measure({ context: 40, repeats: 2, decodeTokens: 3, onChunk });
    expect(chunks).toEqual({ timed: 2, all: 2 });
    expect(prefill).toEqual({
      patterns: [
        [2, 2],
        [2, 2],
      ],
      withoutIndexers: [2, 2],
      alone: [0, 0],
      other: [2, 2],
    });
    expect(decode.patterns.flat()).toEqual(Array(4).fill(expect.closeTo(1 / 3, 10)));
    expect(heard.at(-1)).toEqual([4, 4]);
    await timer.release();
  });

  test("a graph of all patterns runs without indexers as one that has none", async () => {
    const ids = readOracle("glm-groups").sequences[0]?.slice(0, 60) ?? [];
    const bare = "SSSSS" as Pattern;
    const settings = { ...cpu, provider: "cuda" } as const;
    const alone = await openDecoder(model, bare, settings);
    const shared = await openDecoder(model, pattern, { ...settings, others: [bare] });
    const full = await shared.prefill(ids);
    shared.rewind(0);
    shared.follow(bare);
    const without = await shared.prefill(ids);
    expect(without).toEqual(await alone.prefill(ids));
    expect(await shared.decode(3)).toEqual(await alone.decode(3));
    expect(difference(without, full)).toBeGreaterThan(1e-3);
    for (const open of [alone, shared]) await open.release();
  });

  test("a graph rewound to an earlier row goes on from there as it did before", async () => {
    const ids = readOracle("glm-groups").sequences[0] ?? [];
    const graph = await openDecoder(model, pattern, { ...cpu, capacity: 8 });
    await graph.prefill(ids.slice(0, 20));
    const once = await graph.prefill(ids.slice(20, 24));
    graph.rewind(20);
    expect(graph.position).toBe(20);
    expect(await graph.prefill(ids.slice(20, 24))).toEqual(once);
    await graph.release();
  });
});

describe("the timer", () => {
  let timer: PatternTimer;
  beforeAll(async () => {
    const model = await openModel(fixturePath("glm-groups"));
    const settings = { ...cpu, capacity: 700, clock: countingClock() };
    timer = await PatternTimer.open(model, [parsePattern("FFFFF"), pattern], settings);
  });
  afterAll(() => timer.release());

  test("times every chunk in every graph, once a repeat", async () => {
    const timed = await timer.measure({ context: 600, repeats: 2, decodeTokens: 3 });
    // Borders at index_topk, then chunks of at most 256 rows.
    expect(timed.chunks).toEqual({ timed: 4, all: 4 });
    // Every timed piece is one tick of the clock: 4 chunks a repeat; 1 of 3 tokens together, which is a third a token.
    expect(timed.prefill.patterns).toEqual([
      [4, 4],
      [4, 4],
    ]);
    expect(timed.prefill.withoutIndexers).toEqual([4, 4]);
    expect(timed.prefill.other).toEqual([4, 4]);
    // One layer takes one tick with its indexer and without.
    expect(timed.prefill.alone).toEqual([0, 0]);
    expect(timed.decode.patterns.flat()).toEqual(Array(4).fill(expect.closeTo(1 / 3, 10)));
    expect(timed.decode.other).toEqual(Array(2).fill(expect.closeTo(1 / 3, 10)));
  });

  test("lets some chunks stand for all rows", async () => {
    const timed = await timer.measure({ context: 600, repeats: 1, decodeTokens: 1, sampledChunks: 2 });
    expect(timed.chunks).toEqual({ timed: 2, all: 4 });
    // Rows of the stretches over rows of their middle chunks, at one tick each: what is left out is made up for.
    const [[sum]] = timed.prefill.patterns as [[number]];
    expect(sum).toBeGreaterThan(2);
  });
});

/** A clock on which nothing takes time but reading it: every timed piece is one second. */
function countingClock(): () => number {
  let now = 0;
  return () => now++;
}
