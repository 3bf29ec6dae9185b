import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UsageError } from "../../src/base/errors.ts";
import {
  type PipelineEngine,
  partitionStarts,
  pipelineEngines,
  requiredFull,
  stageStarts,
} from "../../src/pattern/pipeline-stages.ts";

/** What the engines' own functions give for DeepSeek-V3.2's 61 and GLM-5's 78 layers. */
const golden: [PipelineEngine, number, number, number[]][] = [
  ["vllm", 61, 2, [0, 31]],
  ["vllm", 61, 4, [0, 15, 30, 46]],
  ["vllm", 61, 8, [0, 7, 14, 22, 30, 38, 46, 54]],
  ["vllm", 78, 2, [0, 39]],
  ["vllm", 78, 4, [0, 19, 39, 59]],
  ["vllm", 78, 8, [0, 9, 19, 29, 39, 49, 59, 69]],
  ["sglang", 61, 2, [0, 30]],
  ["sglang", 61, 4, [0, 15, 30, 45]],
  ["sglang", 61, 8, [0, 7, 14, 21, 29, 37, 45, 53]],
  ["sglang", 78, 2, [0, 39]],
  ["sglang", 78, 4, [0, 19, 38, 58]],
  ["sglang", 78, 8, [0, 9, 18, 28, 38, 48, 58, 68]],
  ["tensorrt-llm", 61, 4, [0, 16, 31, 46]],
  ["tensorrt-llm", 78, 4, [0, 20, 40, 59]],
];

describe("stageStarts()", () => {
  test.each(golden)("%s splits %i layers into %i stages at %j", (engine, layers, stages, starts) => {
    expect(stageStarts(engine, layers, stages)).toEqual(starts);
  });

  test("ATOM and vllm-ascend split as vLLM does", () => {
    for (const [, layers, stages] of golden) {
      const starts = stageStarts("vllm", layers, stages);
      expect(stageStarts("atom", layers, stages)).toEqual(starts);
      expect(stageStarts("vllm-ascend", layers, stages)).toEqual(starts);
    }
  });

  test("stages are never empty and differ by one layer at most", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...pipelineEngines),
        fc.integer({ min: 1, max: 120 }),
        fc.integer({ min: 1, max: 120 }),
        (engine, layers, wanted) => {
          const stages = Math.min(wanted, layers);
          const starts = stageStarts(engine, layers, stages);
          expect(starts).toHaveLength(stages);
          expect(starts[0]).toBe(0);
          const sizes = starts.map((start, stage) => (starts[stage + 1] ?? layers) - start);
          expect(Math.min(...sizes)).toBe(Math.floor(layers / stages));
          expect(Math.max(...sizes)).toBe(Math.ceil(layers / stages));
          expect(partitionStarts(sizes, layers)).toEqual(starts);
        },
      ),
    );
  });

  test.each([0, -1, 2.5, 62])("%d stages of 61 layers are refused", (stages) => {
    expect(() => stageStarts("vllm", 61, stages)).toThrow(UsageError);
    expect(() => stageStarts("vllm", 61, stages)).toThrow(`61 layers cannot be split into ${stages} pipeline stages`);
  });
});

describe("partitionStarts()", () => {
  test("takes sizes that a user has set", () => {
    expect(partitionStarts([16, 15, 15, 15], 61)).toEqual([0, 16, 31, 46]);
  });

  test.each([
    [[30, 30], "has 60 layers, the model has 61"],
    [[61, 0], "whole numbers from 1 up"],
    [[], "whole numbers from 1 up"],
  ])("refuses %j", (sizes, words) => {
    expect(() => partitionStarts(sizes, 61)).toThrow(words);
  });
});

test("only engines that do not send indices on need F at a stage's start", () => {
  const needs = pipelineEngines.filter((engine) => requiredFull(engine, [0, 15]).length === 2);
  expect(needs).toEqual(["vllm", "tensorrt-llm", "vllm-ascend"]);
  for (const engine of pipelineEngines) expect(requiredFull(engine, [0, 15])[0]).toBe(0);
});
