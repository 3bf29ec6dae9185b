import { describe, expect, test } from "vitest";
import { KnownRuns, sketchOf } from "../../src/base/ngram-sketch.ts";
import { Random } from "../../src/base/random.ts";
import type { EvalItem } from "../../src/eval/item.ts";
import { findOverlap } from "../../src/eval/overlap.ts";

const random = new Random(1);
const text = (tokens: number): number[] => Array.from({ length: tokens }, () => random.integer(0, 50_000));

interface Asked {
  ids: number[];
  cluster?: string;
}

function overlapOf(windows: number[][], asked: Asked[]) {
  const items = asked.map(({ ids, cluster }, index) => ({ id: String(index), task: "t", ids, cluster }));
  const suite = {
    async *items() {
      yield* items as unknown as EvalItem[];
    },
  };
  return findOverlap(suite, (item) => (item as unknown as Asked).ids, sketchOf(windows));
}

describe("items that a calibration set has seen", () => {
  test("are found by a run of 25 tokens, and others are not", async () => {
    const windows = [text(400), text(400)];
    const seen = windows[1]?.slice(100, 125) ?? [];
    const around = (ids: number[]) => ({ ids: [...text(50), ...ids, ...text(50)] });
    const found = await overlapOf(windows, [around(seen), { ids: text(200) }]);
    expect(found).toEqual({ items: 2, overlapping: [{ task: "t", id: "0", runs: 13 }] });
    const shorter = await overlapOf(windows, [around(seen.slice(0, 24)), { ids: text(200) }]);
    expect(shorter).toEqual({ items: 2, overlapping: [] });
  });

  test("are not those that share a template with each other, unless they are about the same text", async () => {
    const template = text(60);
    const windows = [[...text(100), ...template, ...text(100)]];
    const both = [{ ids: [...template, ...text(40)] }, { ids: [...text(40), ...template] }];
    expect((await overlapOf(windows, both)).overlapping).toEqual([]);
    const article = both.map(({ ids }) => ({ ids, cluster: "one article" }));
    expect((await overlapOf(windows, article)).overlapping).toHaveLength(2);
  });

  test("nor those that share with it what several of its windows say", async () => {
    const template = text(60);
    const windows = [0, 1].map(() => [...text(50), ...template, ...text(50)]);
    expect((await overlapOf(windows, [{ ids: [...template, ...text(40)] }])).overlapping).toEqual([]);
  });

  test("are found by a sketch that keeps few of many runs, in bounded size", async () => {
    const windows = Array.from({ length: 60 }, () => text(2048));
    const sketch = sketchOf(windows);
    expect(sketch.hashes.length).toBeLessThanOrEqual(8192);
    expect(new KnownRuns(sketch).perFound).toBeGreaterThan(50);
    const { overlapping } = await overlapOf(windows, [{ ids: windows[7]?.slice(0, 1800) ?? [] }, { ids: text(1800) }]);
    expect(overlapping.map(({ id }) => id)).toEqual(["0"]);
    expect(overlapping[0]?.runs).toBeGreaterThan(600);
    expect(overlapping[0]?.runs).toBeLessThan(4000);
    expect(sketchOf(windows)).toEqual(sketch);
  });
});
