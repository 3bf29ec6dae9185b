/** What does not fit the model is refused before its weights are read: those of a large one take a minute. */
import { execFile } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { copyFixture, pokeTensor } from "../checkpoint/safetensors-file.ts";
import { indexcache, program } from "./indexcache.ts";

let folder: string;
beforeAll(async () => {
  folder = await copyFixture("glm-groups");
  const nan = new Uint8Array(Float32Array.of(Number.NaN).buffer);
  await pokeTensor(join(folder, "model.safetensors"), "model.norm.weight", 0, nan);
  const ids = Array.from({ length: 300 }, (_, index) => index % 80);
  await writeFile(join(folder, "long.json"), JSON.stringify(ids));
  await writeFile(join(folder, "foreign.json"), "[1, 500]");
  await writeFile(join(folder, "short.json"), "[1, 2]");
  const records = Array.from({ length: 4 }, () => JSON.stringify({ input_ids: ids.slice(0, 200) }));
  await writeFile(join(folder, "ids.jsonl"), records.join("\n"));
});
afterAll(() => rm(folder, { recursive: true }));

const letters = /--pattern has 3 letters, the model has 5 layers/;
const tooLong = /--sequence-length is 999, the model's window is 256 tokens/;
const text = ["-c", "ids.jsonl"];

test.each([
  [["run", ".", "--tokens-file", "config.json"], /Tokens file "config.json"/],
  [["run", ".", "-p", "FSS", "--tokens-file", "short.json"], letters],
  [["run", ".", "--tokens-file", "long.json"], /The prompt has 300 tokens, the model's window is 256/],
  [["run", ".", "--tokens-file", "foreign.json"], /Token id 500 at position 1 of the prompt is outside/],
  [["run", ".", "--prompt", "x"], /has no tokenizer.json/],
  [["loss", ".", "-p", "FSS"], letters],
  [["loss", ".", ...text, "--sequence-length", "999"], tooLong],
  [["loss", "."], /-c is missing/],
  [["search", ".", ...text, "--sequence-length", "999"], tooLong],
  [["search", ".", ...text, "--retain", "99"], /--retain is "99", more than the model's 5 layers/],
  [["analyze", ".", "-p", "FSS"], letters],
  [["analyze", ".", ...text, "--retain", "99"], /--retain is "99", more than the model's 5 layers/],
  [["analyze", ".", ...text, "--searched", "none.json"], /Cannot read pattern file "none.json"/],
  [["distill", ".", ...text, "-p", "FSS", "-o", "out"], letters],
  [["distill", ".", ...text, "-p", "uniform:2", "-o", "out", "--sequence-length", "999"], tooLong],
  [["eval", ".", "-p", "FSS"], letters],
  [["eval", ".", "-p", "uniform:2"], /has no tokenizer.json/],
  [["bench", ".", "-p", "FSS"], letters],
  [["serve", ".", "-p", "FSS"], letters],
] as const)("%j", async (words, expected) => {
  const { status, stderr } = await indexcache(folder, words);
  expect(stderr).toMatch(expected);
  expect(stderr).not.toMatch(/is not finite/);
  expect(status).toBe(2);
});

test.each([
  ["run", ".", "--tokens-file", "short.json"],
  ["loss", ".", ...text],
  ["search", ".", ...text, "--retain", "2"],
  ["analyze", ".", ...text],
  ["distill", ".", ...text, "-p", "uniform:2", "--batch", "1", "-o", "out"],
  ["bench", ".", "--contexts", "16"],
  ["serve", ".", "--port", "0"],
])("%s looks at every weight before it computes with any", async (...words) => {
  const { status, stderr } = await indexcache(folder, words);
  expect(stderr).toMatch(/"model.norm.weight": element \[0\] is not finite/);
  expect(status).toBe(2);
});

test.each([
  ["loss", "."],
  ["search", ".", ...text, "--retain", "99"],
  ["analyze", ".", ...text, "--retain", "99"],
  ["eval", ".", "-p", "FSS"],
])("%s, refused, ends with the processes that it has started for a GPU", async (...words) => {
  const argv = [program, ...words, "--device", "cuda"];
  const end = new Promise((resolve) => {
    execFile(process.execPath, argv, { cwd: folder, timeout: 30_000 }, (error) => resolve(error?.code));
  });
  expect(await end).toBe(2);
});
