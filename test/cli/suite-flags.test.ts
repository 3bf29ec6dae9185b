import { Command } from "commander";
import { describe, expect, test } from "vitest";
import { UsageError } from "../../src/base/errors.ts";
import { suiteFlags, suiteSettings, suiteSources, suiteValues } from "../../src/cli/eval/suite-flags.ts";
import { suiteNames } from "../../src/eval/suites.ts";

const parsed = (...args: string[]): Record<string, unknown> => {
  const command = new Command().exitOverride().configureOutput({ writeErr: () => {} });
  for (const option of suiteFlags) command.addOption(option);
  return command.parse(args, { from: "user" }).opts();
};

describe("options of suites", () => {
  test("a suite takes its own, and their defaults", () => {
    const flags = parsed("--lengths", "4096,8k", "--data", "x.jsonl");
    expect(suiteValues("ruler-core", flags, [])).toEqual({ lengths: [4096, 8192], data: "x.jsonl", steps: "fine" });
    expect(suiteValues("longbench", flags, [])).toEqual({ data: "x.jsonl", codeRatio: "difflib" });
  });

  test("one of another suite is refused and not ignored", () => {
    const given = [{ attribute: "essays", written: "--essays" }];
    const refused = (): unknown => suiteValues("longbench", parsed("--essays", "e.json"), given);
    expect(refused).toThrow(UsageError);
    expect(refused).toThrow("--essays is no option of suite longbench");
    expect(() => suiteValues("ruler", parsed("--essays", "e.json"), given)).not.toThrow();
  });

  test("settings have every option that decides prompts or scores, sources only what was given", () => {
    expect(suiteSettings("longbench-v2", {})).toEqual({
      max_length: "default",
      cot: false,
      empty_outputs: "default",
    });
    expect(suiteSettings("longbench-v2", { maxLength: 400, cot: true, emptyOutputs: "drop" })).toEqual({
      max_length: 400,
      cot: true,
      empty_outputs: "drop",
    });
    expect(suiteSources("ruler", { lengths: [512, 1024], samples: 3 })).toEqual({ lengths: "512,1024", samples: 3 });
  });

  test.each(["4096,", "x", "0", "1.5k"])("lengths %j are refused", (text) => {
    expect(() => parsed("--lengths", text)).toThrow();
  });

  test("every suite has a name of its own", () => {
    expect(new Set(suiteNames).size).toBe(suiteNames.length);
  });
});
