import { describe, expect, test } from "vitest";
import { buildProgram } from "../../src/cli/program.ts";
import { applyEffort } from "../../src/cli/search/effort.ts";
import { methodOf, methodSettings, type StrategyFlags } from "../../src/cli/search/strategy-options.ts";

/** What `search` would do with these words. */
async function methodFor(...words: string[]) {
  const program = await buildProgram("search");
  const command = program.commands.find((one) => one.name() === "search");
  if (command === undefined) throw new Error("no search");
  command.action(() => {});
  await program.parseAsync(["search", ...words], { from: "user" });
  const said = applyEffort(command);
  const method = methodOf(command.opts<StrategyFlags>(), () => {});
  return { said, strategy: method.strategy.name, settings: methodSettings(method) };
}

describe("--effort", () => {
  test.each([
    [[], { said: undefined, strategy: "refine", settings: {} }],
    [
      ["--effort", "quick"],
      {
        said: "--strategy greedy --race",
        strategy: "greedy",
        settings: { race_alpha: 0.1, race_block: 2, race_seed: 0 },
      },
    ],
    [["--effort", "standard"], { said: "--strategy refine", strategy: "refine", settings: {} }],
    [["--effort", "thorough"], { said: "--strategy refine --budget 6", strategy: "refine", settings: { budget: 6 } }],
    // What is given wins.
    [
      ["--effort", "thorough", "--budget", "3"],
      { said: "--strategy refine", strategy: "refine", settings: { budget: 3 } },
    ],
    [["--effort", "thorough", "--strategy", "exhaustive"], { said: "", strategy: "exhaustive", settings: {} }],
    // At its initial value files do not name it: journals of earlier versions continue.
    [["--budget", "2"], { said: undefined, strategy: "refine", settings: {} }],
  ])("%j", async (words, expected) => {
    expect(await methodFor(...words)).toEqual(expected);
  });
});
