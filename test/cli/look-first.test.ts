/** What does not fit the model is refused before its weights are read: those of a large one take a minute. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { copyFixture, pokeTensor } from "../checkpoint/safetensors-file.ts";
import { indexcache } from "./indexcache.ts";

let folder: string;
beforeAll(async () => {
  folder = await copyFixture("glm-groups");
  const nan = new Uint8Array(Float32Array.of(Number.NaN).buffer);
  await pokeTensor(join(folder, "model.safetensors"), "model.norm.weight", 0, nan);
});
afterAll(() => rm(folder, { recursive: true }));

const short = /-p is "FSS"|has 3 letters|"FSS"/;

test.each([
  [["run", ".", "--tokens-file", "config.json"], /Tokens file "config.json"/],
  [["run", ".", "-p", "FSS", "--tokens-file", "config.json"], /Tokens file "config.json"/],
  [["run", ".", "-p", "FSS", "--prompt", "x"], short],
  [["loss", ".", "-p", "FSS"], short],
  [["analyze", ".", "-p", "FSS"], short],
  [["bench", ".", "-p", "FSS"], short],
] as const)("%j", async (words, expected) => {
  const { status, stderr } = await indexcache(folder, words);
  expect(stderr).toMatch(expected);
  expect(stderr).not.toMatch(/is not finite/);
  expect(status).toBe(2);
});
