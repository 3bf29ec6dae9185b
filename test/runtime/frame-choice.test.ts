/** Which frame of graphs a command runs on a device: decided in one place, by device and dtype. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { UsageError } from "../../src/base/errors.ts";
import { cacheForm, lossFrame } from "../../src/runtime/device/frame-choice.ts";

describe("frames by device and dtype", () => {
  test.each([
    ["cpu", "float32", "stages", "growing"],
    ["cpu", "float16", "sequences", undefined],
    ["webgpu", "float32", "sequences", "growing"],
    ["webgpu", "float16", "sequences", undefined],
    ["cuda", "float32", "sequences", "fed"],
    ["cuda", "float16", "sequences", "resident"],
    ["cuda:3", "float16", "sequences", "resident"],
  ] as const)("%s in %s: losses by %s, caches %s", (device, dtype, losses, tokens) => {
    expect(lossFrame(device, dtype)).toBe(losses);
    if (tokens === undefined) expect(() => cacheForm(device, dtype)).toThrow(UsageError);
    else expect(cacheForm(device, dtype)).toBe(tokens);
  });
});

/** What each command opens, and the function that asks for its frame. */
const openers = {
  "loss, search, analyze": ["loss/open-losses.ts", "lossFrame("],
  "run, eval, bench": ["generate/decoder.ts", "cacheForm("],
} as const;

const runtime = join(import.meta.dirname, "..", "..", "src", "runtime");

test.each(Object.entries(openers))("%s ask there", async (_, [file, asked]) => {
  expect(await readFile(join(runtime, file), "utf8")).toContain(asked);
});

test("nobody else opens the graphs of a frame", async () => {
  const builders = /\b(buildFullModel|buildGenerationGraph|BatchedLosses\.open|StagedLosses\.open)\(/;
  const files = (await readdir(runtime, { recursive: true })).filter((name) => name.endsWith(".ts"));
  const found: string[] = [];
  for (const file of files) {
    if (builders.test(await readFile(join(runtime, file), "utf8"))) found.push(file.replaceAll("\\", "/"));
  }
  expect(found.sort()).toEqual(
    Object.values(openers)
      .map(([file]) => file)
      .sort(),
  );
});
