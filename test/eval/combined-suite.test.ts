import { describe, expect, test } from "vitest";
import { InputError, UsageError } from "../../src/base/errors.ts";
import type { EvalItem } from "../../src/eval/item.ts";
import { openSuite, suiteTasks } from "../../src/eval/suites.ts";
import { tokenizerHash, wordCounter } from "./counter.ts";

const open = (lengths: number[], tasks?: string[]) =>
  openSuite("all-offline", {
    counter: wordCounter(),
    tokenizerHash,
    samples: 1,
    lengths,
    ...(tasks === undefined ? {} : { tasks }),
  });

describe("all suites that need no file", () => {
  test("are one suite with a section for each", async () => {
    const suite = await open([2048], ["niah_single_1", "vt", "graphwalks_parents"]);
    expect(suite.sections).toEqual([
      { name: "ruler-core", version: 2, tasks: ["niah_single_1", "vt"] },
      { name: "graphwalks", version: 1, tasks: ["graphwalks_parents"] },
    ]);
    const items: EvalItem[] = [];
    for await (const item of suite.items()) items.push(item);
    expect(items.map(({ task, groups }) => [task, groups?.suite])).toEqual([
      ["niah_single_1", "ruler-core"],
      ["vt", "ruler-core"],
      ["graphwalks_parents", "graphwalks"],
    ]);
    expect(suite.total).toBe(3);
  });

  test("one that does not fit is named and does not stop the others", async () => {
    const suite = await open([320], ["niah_single_1", "graphwalks_bfs"]);
    expect(suite.tasks.map(({ name }) => name)).toEqual(["niah_single_1"]);
    expect(suite.skipped).toEqual([
      { task: "graphwalks_bfs", reason: expect.stringMatching(/does not fit into 320 tokens/) },
    ]);
    await expect(open([320], ["graphwalks_bfs"])).rejects.toThrow(InputError);
  });

  test("know their tasks together, and no others", async () => {
    expect((await suiteTasks("all-offline", {})).map(({ name }) => name)).toEqual(
      expect.arrayContaining(["vt", "fwe", "graphwalks_bfs"]),
    );
    await expect(open([2048], ["qasper"])).rejects.toThrow(UsageError);
  });
});
