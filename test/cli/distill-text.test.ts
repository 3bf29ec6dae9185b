/** Text of a distillation from several sources. */
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import type { CalibrationSet } from "../../src/calibration/calibration-set.ts";
import { mixSets } from "../../src/calibration/mix.ts";
import { splitText } from "../../src/cli/distill/distill-text.ts";
import { readDistilledManifest } from "../../src/formats/distilled-manifest.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { indexcache, tinyModel, writeIds } from "./indexcache.ts";

const folder = temporaryFolder("file");
beforeAll(async () => {
  await writeIds(join(folder, "ids.jsonl"), 12, 28);
  await writeIds(join(folder, "more.jsonl"), 5, 28, 50);
});

const set = (first: number, count: number): CalibrationSet => ({
  source: String(first),
  hash: "",
  windows: Array.from({ length: count }, (_, place) => Int32Array.of(first + place)),
  scoredFrom: [],
  sequenceLength: 1,
  tokens: count,
  available: count,
  documents: count,
  notes: [],
  warnings: [],
});

test("of each source its last sequences are held out, as many as its share", () => {
  const mix = mixSets([
    { name: "a", weight: 3, answers: false, set: set(0, 12) },
    { name: "b", weight: 1, answers: false, set: set(100, 4) },
  ]);
  const { training, heldOut } = splitText(mix, { steps: 6, batch: 2, seed: 0 }, "1/4");
  expect(heldOut.map(([id]) => id)).toEqual([9, 10, 11, 103]);
  expect(training).toHaveLength(12);
});

test("sources give their weights' shares, as many sequences as the smallest of them allows", async () => {
  const mix = ["-c", "ids.jsonl=0.5", "-c", "more.jsonl=0.5", "--sequence-length", "28", "--batch", "2"];
  const words = ["distill", tinyModel, "-p", "FSFSS", ...mix, "--steps", "4", "--threads", "1", "-o", "mixed"];
  const done = await indexcache(folder, words);
  expect([0, 1], done.stderr).toContain(done.status);
  expect(done.stderr).toContain("5 sequences of 28 tokens are from ids.jsonl");
  expect(done.stderr).toContain("training on 8 sequences, 2 held out");
  const manifest = await readDistilledManifest(join(folder, "mixed"));
  expect(manifest?.text).toMatchObject({ source: "ids.jsonl=0.5 + more.jsonl=0.5", sequences: 8 });
  const twice = await indexcache(folder, [
    "distill",
    tinyModel,
    "-p",
    "FSFSS",
    "-c",
    "ids.jsonl",
    "-c",
    "ids.jsonl",
    "-o",
    "twice",
  ]);
  expect(twice).toMatchObject({ status: 2, stderr: expect.stringContaining("names") });
});

test("generated tasks are text as well, each whole in a sequence of its own", async () => {
  const size = ["--sequences", "6", "--batch", "2", "--steps", "3", "--device", "cpu"];
  const words = ["distill", "--pattern", "uniform:4", "-c", "ruler:fwe", ...size, "--dry-run", "--json"];
  const plan = await indexcache(folder, words);
  expect(plan.status, plan.stderr).toBe(0);
  expect(JSON.parse(plan.stdout)).toMatchObject({ text: "given", tokens: 6 * 1024 });
  expect(plan.stderr).toContain("6 sequences of 1,024 tokens are from ruler:fwe");
  const none = await indexcache(folder, ["distill", "-p", "uniform:4", "-c", "ruler:nothing", ...size, "-o", "no"]);
  expect(none).toMatchObject({ status: 2, stderr: expect.stringContaining("nothing") });
});
