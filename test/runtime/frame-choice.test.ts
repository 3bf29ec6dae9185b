/** Which frame of graphs a command runs on a device: decided in one place, by device and dtype. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { UsageError } from "../../src/base/errors.ts";
import { decodingFrame, lossFrame, requireDecodingDtype } from "../../src/runtime/device/frame-choice.ts";

describe("frames by device and dtype", () => {
  test.each([
    ["cpu", "float32", "stages", "joined"],
    ["cpu", "float16", "sequences", undefined],
    ["webgpu", "float32", "sequences", "joined"],
    ["webgpu", "float16", "sequences", undefined],
    ["cuda", "float32", "sequences", "generation"],
    ["cuda", "float16", "sequences", "generation"],
    ["cuda:3", "float16", "sequences", "generation"],
  ] as const)("%s in %s: losses by %s, tokens by %s", (device, dtype, losses, tokens) => {
    expect(lossFrame(device, dtype)).toBe(losses);
    if (tokens === undefined) expect(() => requireDecodingDtype(device, dtype)).toThrow(UsageError);
    else {
      requireDecodingDtype(device, dtype);
      expect(decodingFrame(device)).toBe(tokens);
    }
  });
});

/** What each command opens, and the function that asks for its frame. */
const openers = {
  "loss, search, analyze": ["loss/open-losses.ts", "lossFrame("],
  run: ["generate/decoder.ts", "decodingFrame("],
  eval: ["generate/prompt-prefills.ts", "decodingFrame("],
  bench: ["generate/timed-graphs.ts", "decodingFrame("],
} as const;

const runtime = join(import.meta.dirname, "..", "..", "src", "runtime");

test.each(Object.entries(openers))("%s ask there", async (_, [file, asked]) => {
  expect(await readFile(join(runtime, file), "utf8")).toContain(asked);
});

test("nobody else opens the graphs of a frame", async () => {
  const builders =
    /\b(composeModel|composeWithoutIndexers|DeviceDecoder\.open|BatchedLosses\.open|StagedLosses\.open)\(/;
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
