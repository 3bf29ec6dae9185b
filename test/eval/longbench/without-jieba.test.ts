import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { openSuite } from "../../../src/eval/suites.ts";
import { tokenizerHash, wordCounter } from "../counter.ts";
import { writeLongbenchZip } from "./synthetic-files.ts";

vi.mock("@node-rs/jieba", () => {
  throw new Error("Cannot find package '@node-rs/jieba'");
});

test("without jieba the tasks that need it are skipped by name, the other Chinese ones are not", async () => {
  const folder = mkdtempSync(join(tmpdir(), "indexcache-jieba-"));
  const data = join(folder, "data.zip");
  await writeLongbenchZip(data, 1, 1);
  const suite = await openSuite("longbench", { counter: wordCounter(), tokenizerHash, data });
  expect(suite.skipped).toEqual(
    ["multifieldqa_zh", "dureader", "vcsum"].map((task) => ({
      task,
      reason: "needs the package @node-rs/jieba: npm install @node-rs/jieba",
    })),
  );
  const seen: string[] = [];
  for await (const { task } of suite.items()) seen.push(task);
  expect(seen.length).toBe(18);
  expect(seen).toContain("lsht");
  rmSync(folder, { recursive: true });
});
