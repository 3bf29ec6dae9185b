import { describe, expect, test } from "vitest";
import { pairSaved, poolSeeds } from "../../../src/eval/run/saved-samples.ts";
import { binaryTask, pair, sample } from "./samples.ts";

describe("saved samples", () => {
  test("are paired by item and scored anew", () => {
    const samples = [...pair({ id: "a", score: 0 }, { output: "wrong", score: 1 }), ...pair({ id: "b" })];
    const { arms, items, unpaired } = pairSaved("s.jsonl", samples, [binaryTask]);
    expect(arms.map(({ pattern }) => pattern)).toEqual(["FFFF", "FSFS"]);
    expect(items.map((one) => one.map(({ score }) => score))).toEqual([
      [1, 0],
      [1, 1],
    ]);
    expect(unpaired).toBe(0);
  });

  test("of an interrupted run leave out the item that an arm lacks", () => {
    const { items, unpaired } = pairSaved("s.jsonl", [...pair({ id: "a" }), sample({ id: "b" })], [binaryTask]);
    expect([items.length, unpaired]).toEqual([1, 1]);
  });

  test("can have another baseline", () => {
    const { arms } = pairSaved("s.jsonl", pair({}), [binaryTask], "FSFS");
    expect(arms.map(({ pattern }) => pattern)).toEqual(["FSFS", "FFFF"]);
    expect(() => pairSaved("s.jsonl", pair({}), [binaryTask], "FFSS")).toThrow(
      'Samples file "s.jsonl" has no arm "FFSS": it has FFFF (FFFF), FSFS (FSFS)',
    );
  });

  test("are refused where arms were given different prompts, or the task is unknown, or there are none", () => {
    expect(() => pairSaved("s.jsonl", pair({}, { prompt_sha256: "bb" }), [binaryTask])).toThrow("different prompts");
    expect(() => pairSaved("s.jsonl", pair({ task: "songs" }), [binaryTask])).toThrow('task "songs", which is unknown');
    expect(() => pairSaved("s.jsonl", [], [binaryTask])).toThrow("no samples");
  });

  test("keep an arm that runs the same pattern again apart", () => {
    const { arms } = pairSaved("s.jsonl", [sample(), sample({ repeat: 1 })], [binaryTask]);
    expect(arms.map(({ pattern, repeat }) => [pattern, repeat])).toEqual([
      ["FFFF", 0],
      ["FFFF", 1],
    ]);
  });

  test("of several seeds are one set, if no prompt is in two of them", () => {
    const run = (seed: string, hash: string, change = {}) => ({
      path: `${seed}.jsonl`,
      seed,
      entries: pair({ id: "0", prompt_sha256: hash, ...change }, { prompt_sha256: hash }),
    });
    const { items, arms } = pairSaved("s", poolSeeds([run("1", "aa"), run("2", "bb")]), [binaryTask]);
    expect(items.map(([one]) => one?.id)).toEqual(["0 of seed 1", "0 of seed 2"]);
    expect(arms).toHaveLength(2);
    // The same gold answer to the same question: not independent.
    expect(new Set(items.map(([one]) => one?.item.cluster)).size).toBe(1);
    const own = run("2", "bb");
    const others = own.entries.map((one) => ({ ...one, item: { ...one.item, references: ["other"] } }));
    const apart = poolSeeds([run("1", "aa"), { ...own, entries: others }]);
    expect(apart.map(({ item }) => item.cluster)).toEqual([undefined, undefined, undefined, undefined]);
    expect(() => poolSeeds([run("1", "aa"), run("2", "aa")])).toThrow(
      /"1.jsonl" and "2.jsonl" both have the prompt of item "0" of/,
    );
  });
});
