/** What the time of `loss` is of, on a device whose first run takes long. */

import { expect, test } from "vitest";
import { measurePasses } from "../../src/cli/console/loss-passes.ts";
import { fullPattern } from "../../src/pattern/pattern.ts";
import { noExecutions } from "../../src/runtime/loss/loss-backend.ts";
import type { Measurement, PatternEvaluator } from "../../src/runtime/measurement.ts";

const pattern = fullPattern(4);

/** An evaluator of two sequences at once whose first run takes `cold` seconds and every other one 2. */
function evaluatorOf(cold: number): { evaluator: PatternEvaluator; runs: () => number } {
  let runs = 0;
  const evaluate: PatternEvaluator["evaluate"] = async (of, { sequences = [] } = {}): Promise<Measurement> => {
    const losses = sequences.map((index) => ({ loss: 2 + index / 8, tokens: 10 }));
    const seconds = runs++ === 0 ? cold : 2;
    return {
      pattern: of,
      loss: 2,
      standardError: 0,
      tokens: 20,
      sequences: losses,
      seconds,
      executions: noExecutions(),
    };
  };
  const evaluator = { plan: [], sideBySide: 2, evaluate } as unknown as PatternEvaluator;
  return { evaluator, runs: () => runs };
}

test.each([
  // One block, or two: only the first one is run again.
  { count: 2, cold: 40, seconds: 2, warmUp: 40, runs: 2 },
  { count: 4, cold: 40, seconds: 4, warmUp: 40, runs: 3 },
  // Short: all of it.
  { count: 4, cold: 5, seconds: 4, warmUp: 7, runs: 4 },
])("$count sequences, $cold s for the first run", async ({ count, cold, seconds, warmUp, runs }) => {
  const fake = evaluatorOf(cold);
  const terminal = { note: () => undefined };
  const settings = { count, warmsUp: true, signal: new AbortController().signal, terminal };
  const { measurement, warmUpSeconds } = await measurePasses(fake.evaluator, pattern, settings);
  expect(measurement.seconds).toBe(seconds);
  expect(measurement.sequences).toHaveLength(count);
  expect(warmUpSeconds).toBe(warmUp);
  expect(fake.runs()).toBe(runs);
});

test("a CPU needs no second run", async () => {
  const fake = evaluatorOf(40);
  const settings = {
    count: 2,
    warmsUp: false,
    signal: new AbortController().signal,
    terminal: { note: () => undefined },
  };
  const { measurement, warmUpSeconds } = await measurePasses(fake.evaluator, pattern, settings);
  expect([measurement.seconds, warmUpSeconds, fake.runs()]).toEqual([40, undefined, 1]);
});
