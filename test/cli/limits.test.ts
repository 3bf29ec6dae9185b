/** Counts that no machine has room for, and what a search says of where it stands. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { temporaryFolder } from "../temporary-folder.ts";
import { indexcache, tinyModel, writeIds } from "./indexcache.ts";

const folder = temporaryFolder("file");
beforeAll(async () => {
  await writeIds(join(folder, "ids.jsonl"), 2, 48);
});

const set = [tinyModel, "-c", "ids.jsonl", "--sequence-length", "48", "--workers", "1"];

test.each([
  ["loss", "--workers"],
  ["pattern", "--layers"],
  ["bench", "--repeats"],
])("%s refuses %s 1000000000 in a sentence", async (command, option) => {
  const outcome = await indexcache(folder, [command, option, "1000000000"]);
  expect(outcome).toMatchObject({
    status: 2,
    stdout: "",
    stderr: expect.stringMatching(/^error: .*It must be at most/),
  });
});

test("--threads beyond the cores are cut to them, with a word", async () => {
  const outcome = await indexcache(folder, ["loss", ...set, "--threads", "999"]);
  expect(outcome).toMatchObject({ status: 0, stderr: expect.stringMatching(/^warning: --threads is 999, and /m) });
});

test("a search tells its plan and the next command; --status takes its -o file; contradictions are refused", async () => {
  const searched = await indexcache(folder, ["search", ...set, "--retain", "2", "--sequences", "1", "-o", "my p.json"]);
  expect(searched).toMatchObject({ status: 0, stdout: expect.stringContaining("unknown") });
  expect(searched.stderr).toContain("plan: refine to 2 Full, about ");
  expect(searched.stderr).toContain(
    "there are only 4 patterns of that size: all of them are measured, and the result is the optimum",
  );
  expect(searched.stderr).toMatch(/eval .* --pattern 'my p.json' -o 'my p-eval.json'\n$/);
  const status = await indexcache(folder, ["search", "--status", "my p.json"]);
  expect(status).toMatchObject({
    status: 0,
    stdout: expect.stringMatching(/^Position {2}\d+ patterns; the search has/m),
  });
  const journal = await readFile(join(folder, "my p.json.journal.jsonl"), "utf8");
  const old = journal.replaceAll(/,"checksum":"[0-9a-f]{8}"/g, "");
  await writeFile(join(folder, "other.jsonl"), old.replace(/"loss":4/, '"loss":5'));
  const merged = await indexcache(folder, [
    "search",
    "merge",
    "my p.json.journal.jsonl",
    "other.jsonl",
    "-o",
    "all.jsonl",
  ]);
  expect(merged).toMatchObject({
    status: 2,
    stderr: expect.stringContaining("Journals contradict each other on sequence 0"),
  });
  await writeFile(join(folder, "changed.jsonl"), journal.replace(/"loss":4/, '"loss":5'));
  const changed = await indexcache(folder, ["search", ...set, "--retain", "2", "--reuse", "changed.jsonl"]);
  expect(changed).toMatchObject({
    status: 2,
    stderr: expect.stringMatching(/changed\.jsonl", line 2 is not as it was/),
  });
});

test("an argument of a hundred thousand characters is not repeated whole", async () => {
  const outcome = await indexcache(folder, ["loss", "--threads", "x".repeat(100_000)]);
  expect(outcome).toMatchObject({
    status: 2,
    stderr: expect.stringMatching(/^error: option '--threads <n>' argument/),
  });
  expect(outcome.stderr.length).toBeLessThan(5000);
});
