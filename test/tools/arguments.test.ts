import { spawnSync } from "node:child_process";
import { describe, expect, test } from "vitest";

/** A script of tools/, run as a user does. */
function script(path: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [`tools/${path}`, ...args], { encoding: "utf8" });
  return { status, stdout, stderr };
}

describe("arguments of scripts", () => {
  test("--help lists them", () => {
    const { status, stdout, stderr } = script("bench/bench.js", "--help");
    expect(stdout.split("\n").slice(0, 2)).toEqual([
      "usage: node tools/bench/bench.js [search | rehearsal | server | transformers]",
      expect.stringMatching(/^ {2}--model <value> +default: .*models\/demo$/),
    ]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  });

  test.each([
    ["an unknown option", "bench/bench.js", ["--fast"], "Unknown option '--fast'"],
    ["an unknown word", "bench/bench.js", ["serch"], '"serch" means nothing here'],
    ["an option without its value", "gpu/parity.js", ["--model"], "Option '--model <value>' argument missing"],
    ["an option that is needed", "gpu/indexcache_loss.js", ["models/demo"], "--plan is needed"],
    ["a name that is needed", "gpu/indexcache_loss.js", ["--plan", "plan.json"], "MODEL is missing"],
    ["a name too many", "gpu/indexcache_loss.js", ["--plan", "plan.json", "a", "b"], '"b" means nothing here'],
  ])("%s is one sentence, and what there is", (_, path, args, sentence) => {
    const { status, stdout, stderr } = script(path, ...args);
    expect(stderr.split("\n")[0]).toBe(`error: ${sentence}`);
    expect(stderr).toContain(`usage: node tools/${path}`);
    expect(stderr).not.toContain("    at ");
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
  });
});
