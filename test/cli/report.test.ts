import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { writeEvidence } from "../report/document/evidence.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { indexcache } from "./indexcache.ts";

const folder = temporaryFolder("file");
beforeAll(async () => {
  await writeEvidence(folder);
});

test("report writes a page, Markdown and its charts, and lists them", async () => {
  const outcome = await indexcache(folder, ["report", "greedy.json", "bench.json", "-o", "out"]);
  const names = ["report.html", "report.md", "patterns.svg", "loss.svg", "prefill.svg", "decode.svg"];
  expect(outcome).toMatchObject({ status: 0, stdout: names.map((name) => `${join("out", name)}\n`).join("") });
  expect(outcome.stderr).toMatch(/^next, as an engine takes it: node \S+ pattern greedy\.json(@\d+)? --for vllm\n$/);
  expect((await readdir(join(folder, "out"))).sort()).toEqual([...names].sort());
  const page = await readFile(join(folder, "out", "report.html"), "utf8");
  expect(page).toMatch(/^<!doctype html>/);
  expect(page.match(/<svg /g)).toHaveLength(4);
  // Markdown refers to the files beside it.
  const markdown = await readFile(join(folder, "out", "report.md"), "utf8");
  const referred = [...markdown.matchAll(/!\[.*?\]\(([^)]+)\)/g)].map(([, name]) => name);
  expect(referred.sort()).toEqual(names.filter((name) => name.endsWith(".svg")).sort());
});

test.each([
  [["report", "none.json", "-o", "out"], 'Cannot read file "none.json": no such file'],
  [["report", "greedy.json.journal.jsonl", "-o", "out"], "is a journal"],
  [["report", "greedy.json", "-o", "bench.json"], 'Cannot write into "bench.json": there is a file of that name'],
  [["report", "greedy.json"], "-o, --output"],
])("%j exits with 2: %s", async (args, words) => {
  expect(await indexcache(folder, args)).toMatchObject({
    status: 2,
    stdout: "",
    stderr: expect.stringContaining(words),
  });
});

test("a file of another version says which field", async () => {
  const text = await readFile(join(folder, "bench.json"), "utf8");
  await writeFile(join(folder, "new.json"), text.replace('"schema_version":1', '"schema_version":2'));
  expect(await indexcache(folder, ["report", "new.json", "-o", "out"])).toMatchObject({
    status: 2,
    stderr: expect.stringContaining('Bench file "new.json": "schema_version"'),
  });
});
