/** Which frame of graphs a command runs on a device: decided in one place, by device and dtype. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
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

const source = join(import.meta.dirname, "..", "..", "src");

/** Starts the processes of what commands open, before they do; it has both kinds. */
const early = "cli/arguments/early.ts";

/** Everything that a module of src imports at run time, itself included, by path in src. */
function reachedFrom(path: string, reached = new Set<string>()): Set<string> {
  if (path === early || reached.has(path)) return reached;
  reached.add(path);
  const text = readFileSync(join(source, path), "utf8");
  const imports = /^(?:import|export)\b(?! type\b)[^;"]*?"(\.[^"]+)"|\b(?:import|URL)\(\s*"(\.[^"]+)"/gm;
  for (const [, fixed, late] of text.matchAll(imports)) {
    const found = relative(source, resolve(source, dirname(path), fixed ?? late ?? "")).replace(/\.js$/, ".ts");
    if (/\.tsx?$/.test(found) && existsSync(join(source, found))) reachedFrom(found, reached);
  }
  return reached;
}

/** Modules that open the graphs of a frame, and those that ask which frame it is to be. */
const losses = "runtime/loss/open-losses.ts";
const decoder = "runtime/generate/decoder.ts";
const stages = "runtime/stages/stage-model.ts";
const sequences = "runtime/loss/sequence-loss.ts";
const graphs = [losses, decoder, stages, sequences];

/** The graphs that each command can get to. Losses of stages and of sequences are both behind the one choice. */
const commands: Record<string, string[]> = {
  "loss.ts": [losses, stages, sequences],
  "search/search.ts": [losses, stages, sequences],
  "analyze/analyze.ts": [losses, stages, sequences],
  "run.ts": [decoder],
  "eval/eval.ts": [decoder],
  "bench.ts": [decoder],
  // One copy of the weights answers requests under every pattern: stages, on a CPU.
  "serve.ts": [stages],
};

test.each(Object.entries(commands))("%s gets to its frames and no others", (command, wanted) => {
  const reached = reachedFrom(join("cli", command));
  expect(graphs.filter((path) => reached.has(path)).sort()).toEqual([...wanted].sort());
});

test.each([
  [sequences, /\bBatchedLosses\.open\(/, losses],
  ["runtime/loss/staged-loss.ts", /\bStagedLosses\.open\(/, losses],
  ["graph/frames/generation-graph.ts", /\bbuildGenerationGraph\(/, decoder],
  ["graph/frames/full-model.ts", /\bbuildFullModel\(/, decoder],
])("only the place that asks for the frame opens %s", (owner, opens, opener) => {
  const all = [...new Set(Object.keys(commands).flatMap((command) => [...reachedFrom(join("cli", command))]))];
  const users = all.filter((path) => path !== owner && opens.test(readFileSync(join(source, path), "utf8")));
  expect(users).toEqual([opener]);
  expect(readFileSync(join(source, opener), "utf8")).toMatch(/\b(lossFrame|cacheForm)\(/);
});
