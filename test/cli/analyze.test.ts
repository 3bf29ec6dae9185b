/** `analyze` as users run it, on a small model. */
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { type AnalysisFile, readAnalysisFile } from "../../src/formats/analysis-file.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { indexcache, interrupt, otherModel, tinyModel, writeIds } from "./indexcache.ts";

const folder = temporaryFolder("file");
beforeAll(async () => {
  await writeIds(join(folder, "ids.jsonl"), 4, 48);
  const search = ["search", tinyModel, ...set, "--retain", "2", "-q", "-o", "searched.json"];
  expect((await indexcache(folder, search)).status).toBe(0);
});

const set = ["-c", "ids.jsonl", "--sequence-length", "48", "--workers", "1"];

/** Without what depends on the clock. */
const timeless = ({ seconds: _, ...file }: AnalysisFile): Omit<AnalysisFile, "seconds"> => file;

describe("analyze", () => {
  test("writes what it prints, with every loss that search would measure, and goes on from its journal", async () => {
    const words = ["analyze", tinyModel, ...set, "--searched", "searched.json", "--retain", "2,3", "--pairs"];
    const outcome = await indexcache(folder, [...words, "-o", "a.json"]);
    expect(outcome.status).toBe(0);
    const file = await readAnalysisFile(join(folder, "a.json"));
    expect(file).toMatchObject({ model: { name: "glm-groups" }, sources: [0, 1, 2, 3, 4], queries: 4 * 42 });
    expect(file.patterns.map(({ origin, full_layers }) => `${origin} ${full_layers}`)).toEqual([
      "model 5",
      ...["uniform", "overlap", "recall", "similarity", "searched"].map((origin) => `${origin} 2`),
      ...["uniform", "overlap", "recall", "similarity", "searched"].map((origin) => `${origin} 3`),
    ]);
    // Of all patterns with as many Full layers the optimum of a statistic has the greatest mean of it.
    for (const name of ["overlap", "recall", "similarity"] as const) {
      for (const full of [2, 3]) {
        const peers = file.patterns.filter(({ full_layers }) => full_layers === full);
        const means = peers.map(({ mean_of_shared_layers }) => mean_of_shared_layers?.[name] ?? 0);
        const own = peers.find(({ origin }) => origin === name)?.mean_of_shared_layers?.[name];
        expect(Math.max(...means)).toBeCloseTo(own ?? 0, 10);
      }
    }
    const searched = JSON.parse(await readFile(join(folder, "searched.json"), "utf8"));
    expect(file.patterns.find(({ origin, full_layers }) => origin === "searched" && full_layers === 2)).toMatchObject({
      index_topk_pattern: searched.index_topk_pattern,
      loss: searched.loss,
    });
    expect(file.sensitivity.flips).toHaveLength(4);
    expect(file.pairs).toHaveLength(6);
    expect(outcome.stdout).toContain("Overlap: keys that both layers select, of 100\n");
    expect(outcome.stdout).toMatch(/^searched +2 /m);
    expect(outcome.stderr).toContain("compared layers on sequence 4 of 4");

    const journal = await readFile(join(folder, "a.json.journal.jsonl"), "utf8");
    await writeFile(join(folder, "a.json.journal.jsonl"), journal.split("\n").slice(0, 6).join("\n"));
    const resumed = await indexcache(folder, [...words, "-o", "a.json", "--resume"]);
    expect(resumed).toMatchObject({ status: 0, stderr: expect.stringContaining("resuming: 4 patterns already in") });
    expect(timeless(await readAnalysisFile(join(folder, "a.json")))).toEqual(timeless(file));
  });

  test("prints its file with --json and writes nothing without -o", async () => {
    const before = await readdir(folder);
    const outcome = await indexcache(folder, ["analyze", tinyModel, ...set, "-p", "FSFFS", "--json", "-q"]);
    expect(outcome).toMatchObject({ status: 0, stderr: "" });
    expect(JSON.parse(outcome.stdout)).toMatchObject({
      index_topk_pattern: "FSFFS",
      sensitivity: { base: "FSFFS", flips: [{ layer: 2 }, { layer: 3 }] },
      sources: [0, 1, 2, 3, 4],
    });
    expect(await readdir(folder)).toEqual(before);
  });

  test("Ctrl-C says how to go on", async () => {
    const words = ["analyze", tinyModel, ...set, "--pairs", "-o", "cut.json"];
    const outcome = await interrupt(folder, words, "loss ", "SIGINT");
    expect(outcome).toMatchObject({ status: 130, stdout: "" });
    expect(outcome.stderr).toMatch(
      /every measured loss is in "cut.json.journal.jsonl"\nhint: continue with: .* --resume\n/,
    );
    expect(await readdir(folder)).not.toContain("cut.json");
    await rm(join(folder, "cut.json.journal.jsonl"));
  });

  test.each([
    [["--retain", "9"], '--retain is "9", more than the model\'s 5 layers'],
    [["--retain", "1/2,x"], '--retain is "x"'],
    [["--searched", "none.json"], 'Cannot read pattern file "none.json"'],
    [["--sequence-length", "7"], "--sequence-length is 7, not longer than index_topk (7)"],
    [["--resume"], "--resume needs -o FILE"],
    [["-o", "nowhere/a.json"], 'Cannot write "nowhere/a.json"'],
  ])("refuses %j in one sentence", async (words, message) => {
    const outcome = await indexcache(folder, ["analyze", tinyModel, ...set, ...words]);
    expect(outcome).toMatchObject({ status: 2, stdout: "" });
    expect(outcome.stderr).toContain(`error: ${message}`);
    expect(outcome.stderr).not.toContain("    at ");
  });

  test("refuses a pattern that was searched on another model", async () => {
    const outcome = await indexcache(folder, ["analyze", otherModel, ...set, "--searched", "searched.json"]);
    expect(outcome).toMatchObject({ status: 2, stderr: expect.stringContaining('is of model "glm-groups"') });
  });
});
