/** The simulation of tools/statistics, reduced: what docs/eval.md promises of intervals, verdicts and items needed. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";

interface Measured {
  closed: { name: string; items: number; coverage: number; falseNonInferior: number; falseInferior: number }[];
  open: { name: string; items: number; settled: number }[];
}

const simulate = (...args: string[]): Measured => {
  const tool = join(import.meta.dirname, "../../../tools/statistics/simulate.js");
  return JSON.parse(execFileSync(process.execPath, [tool, "--json", ...args], { encoding: "utf8" }));
};

test("95% intervals hold the truth, and a loss as large as the margin passes in 6% of the cases at most", () => {
  const { closed } = simulate("--runs", "200", "--open-runs", "0", "--largest", "210");
  expect(closed.length).toBeGreaterThan(12);
  for (const world of closed) {
    // Conservative where large losses are rare; never the other way. 200 runs leave an error of 1.5%; they are always the same.
    expect(world.coverage, JSON.stringify(world)).toBeGreaterThan(0.93);
    expect(world.falseNonInferior, JSON.stringify(world)).toBeLessThanOrEqual(0.06);
    expect(world.falseInferior, JSON.stringify(world)).toBeLessThanOrEqual(0.06);
  }
}, 240_000);

test("the items that an open verdict asks for settle it in about 80% of the cases", () => {
  const { open } = simulate("--runs", "1", "--open-runs", "60", "--largest", "210");
  expect(open.length).toBeGreaterThan(1);
  for (const world of open) {
    expect(world.settled, JSON.stringify(world)).toBeGreaterThan(0.65);
    expect(world.settled, JSON.stringify(world)).toBeLessThan(0.95);
  }
}, 240_000);
