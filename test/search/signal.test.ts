import { expect, test } from "vitest";
import { GateFailure } from "../../src/base/errors.ts";
import { fullPattern, type Pattern } from "../../src/pattern/pattern.ts";
import { exhaustive } from "../../src/search/strategies/exhaustive.ts";
import { greedy } from "../../src/search/strategies/greedy.ts";
import { refine } from "../../src/search/strategies/refine.ts";
import type { SearchMethod } from "../../src/search/strategy.ts";
import { beam, forward } from "./comparators.ts";
import { run } from "./synthetic.ts";

const methods: SearchMethod[] = [
  { strategy: refine },
  { strategy: greedy },
  { strategy: forward },
  { strategy: beam(2, "backward") },
  { strategy: exhaustive },
];

/** Sequences no longer than index_topk: every pattern loses the same, but for what rounding does. */
const flat = (pattern: Pattern, sequence: number): number => 2 + sequence + (pattern.endsWith("S") ? 4e-6 : 0);

test.each(methods)("$strategy.name: losses that all agree within a tie are no result", async (method) => {
  const problem = { start: fullPattern(8), targets: [2], loss: flat, sequences: 3 };
  const failure = await run(method, problem).catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(GateFailure);
  expect(failure).toMatchObject({
    exitCode: 1,
    message: expect.stringMatching(
      /^The losses of all \d+ patterns that were measured agree within 0.00001 nats on these 3 sequences/,
    ),
    hint: expect.stringContaining("--sequence-length"),
  });
});

test("a search without signal ends after its first step", async () => {
  const problem = { start: fullPattern(40), targets: [2], loss: flat, sequences: 1 };
  await expect(run({ strategy: greedy }, problem)).rejects.toThrow("all 41 patterns");
});

test("a first step of ties goes on where the sparsest pattern loses something", async () => {
  const loss = (pattern: Pattern): number => (pattern === "FSSSSS" ? 3 : 2);
  const { result } = await run({ strategy: greedy }, { start: fullPattern(6), targets: [2], loss });
  expect(result.patterns).toMatchObject([{ evaluation: { loss: 2 } }]);
});
