/** DeepSeek-V3.2's layout (other rotation in the indexer, no `indexer_types`) trained from end to end. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { indexcache } from "../cli/indexcache.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { writeV32Demo } from "./v32-demo.ts";

const folder = temporaryFolder("file");
beforeAll(async () => {
  await writeV32Demo(join(folder, "v32"));
});

const set = ["--sequence-length", "256", "--threads", "1", "--json"];

test("the layouts are one function, and training halves at least what a pattern loses on held-out text", async () => {
  const loss = async (model: string[]) => {
    const done = await indexcache(folder, ["loss", ...model, ...set, "--sequences", "2"]);
    return JSON.parse(done.stdout).loss as number;
  };
  const text = join(import.meta.dirname, "..", "..", "calibration", "demo.jsonl");
  expect(await loss(["v32", "-c", text])).toBeCloseTo(await loss(["-c", text]), 5);
  const words = ["distill", "v32", "-c", text, ...set, "--sequences", "36", "-p", "uniform:4", "--batch", "4"];
  const done = await indexcache(folder, [...words, "--steps", "40", "-o", "trained"]);
  expect(done.status, done.stderr).toBe(0);
  const { before, after, held_out_sequences: heldOut } = JSON.parse(done.stdout);
  expect(heldOut).toBe(4);
  expect(before.mean).toBeGreaterThan(0.02);
  expect(after.mean).toBeLessThan(before.mean / 2);
  // transformers' DeepseekV32 knows no pattern: the card says how vLLM and SGLang are told.
  expect(await readFile(join(folder, "trained", "README.md"), "utf8")).toMatch(/index_topk_pattern|indexer_types/);
});
