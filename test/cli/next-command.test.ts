/** The command that a result proposes as the next one: it runs as it is printed. */
import { readdir, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { deviceWords } from "../../src/cli/console/next-command.ts";
import { fixturePath } from "../oracle.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { demoModel, indexcache, tinyModel, writeIds } from "./indexcache.ts";

const folder = temporaryFolder("file");
beforeAll(async () => {
  await writeIds(join(folder, "ids.jsonl"), 8, 28);
});

/** The words after the program in the last line on stderr, which has to be a proposal. */
function proposed(stderr: string): string[] {
  const line = stderr.trimEnd().split("\n").at(-1) ?? "";
  const [, words] = /^next, [\w ]+: node \S+ (.*)$/.exec(line) ?? [];
  expect(words, stderr).toBeDefined();
  return (words ?? "").split(" ");
}

async function run(args: readonly string[]): Promise<{ stdout: string; stderr: string }> {
  const { status, stdout, stderr } = await indexcache(folder, args);
  expect(status, stderr).toBe(0);
  return { stdout, stderr };
}

const search = ["search", demoModel, "--sequences", "1", "--sequence-length", "160", "--strategy", "greedy"];
const few = ["--tasks", "niah_single_1", "--samples", "1", "--lengths", "256"];
const quick = ["--contexts", "64", "--repeats", "1", "--decode-tokens", "1"];

test("what is handed on of where to compute is what was given", () => {
  expect(deviceWords({})).toEqual([]);
  expect(deviceWords({ device: "auto", dtype: "float32" })).toEqual([]);
  expect(deviceWords({ device: "cuda:1", dtype: "float16" })).toEqual(["--device", "cuda:1", "--dtype", "float16"]);
  const several = { device: "auto", devices: ["cuda:0", "cuda:2"] } as const;
  expect(deviceWords(several)).toEqual(["--devices", "cuda:0,cuda:2"]);
  expect(deviceWords(several, { alone: true })).toEqual(["--device", "cuda:0"]);
  expect(deviceWords({ devices: "all" })).toEqual(["--devices", "all"]);
  expect(deviceWords({ devices: "all" }, { alone: true })).toEqual([]);
});

test("a model that no engine serves is served by this tool", async () => {
  await symlink(fixturePath("axk2-light"), join(folder, "axk2-light"));
  const asked = ["search", "axk2-light", "-c", "ids.jsonl", "--sequence-length", "28", "--workers", "1"];
  await run([...asked, "--strategy", "greedy", "--retain", "2", "-o", "x.json"]);
  const timed = await run(["bench", "axk2-light", ...quick, "--device", "cpu", "-p", "x.json"]);
  expect(proposed(timed.stderr)).toEqual(["serve", "axk2-light", "-p", "x.json", "--device", "cpu"]);
  const page = await run(["report", "x.json", "-o", "x"]);
  expect(proposed(page.stderr)).toEqual(["serve", "axk2-light", "-p", "x.json"]);
  await rm(join(folder, "axk2-light"));
  expect((await run(["report", "x.json", "-o", "x"])).stderr).not.toContain("next");
});

describe("one command after the other, as printed", () => {
  test("leads from a search to what an engine takes", async () => {
    const evaluation = proposed(
      (await run([...search, "--retain", "11,10", "--device", "cpu", "-o", "p.json"])).stderr,
    );
    expect(evaluation.join(" ")).toBe("eval --pattern p.json@11 --pattern p.json@10 --device cpu -o p-eval.json");
    const timing = proposed((await run([...evaluation, ...few])).stderr);
    expect(timing.join(" ")).toBe("bench -p p.json@11 -p p.json@10 --device cpu -o p-bench.json");
    const page = proposed((await run([...timing, ...quick])).stderr);
    expect(page.join(" ")).toBe("report p.json p-eval.json p-bench.json -o report");
    const engine = proposed((await run(page)).stderr);
    expect(await readdir(join(folder, "report"))).toContain("report.html");
    expect(engine.join(" ")).toBe("pattern p.json@10 --for vllm");
    expect((await run(engine)).stdout).toContain('"index_topk_pattern":');
    const saved = proposed((await run(["eval", "--from", "p-eval.json.samples.jsonl", "-o", "again.json"])).stderr);
    expect(saved).toEqual(["report", "again.json", "-o", "report"]);
  }, 480_000);

  test("leads from trained indexers to a search among them, or to an engine", async () => {
    const train = ["-c", "ids.jsonl", "--sequence-length", "28", "--batch", "2", "--steps", "2", "--threads", "1"];
    const any = await indexcache(folder, ["distill", tinyModel, "-p", "any", ...train, "-o", "any"]);
    const after = proposed(any.stderr);
    expect(after.join(" ")).toBe("search any -c ids.jsonl --sequence-length 28 --retain 1/2,1/4 -o any.json");
    await run(after);
    const trained = [...train, "--rate", "0.000001"];
    // The result's own pattern is what it was trained for, so that `eval RESULT -p PATTERN` compares it with itself.
    const compared = await indexcache(folder, ["distill", tinyModel, "-p", "FSFSS", ...trained, "-o", "both"]);
    const runs = compared.stderr
      .trimEnd()
      .split("\n")
      .at(-1)
      ?.replaceAll(/node \S+ /g, "");
    expect(runs).toBe(
      `next, whether answers stay as good: eval ${tinyModel} -o both-before.json && eval both -o both-after.json && ` +
        "eval --from both-before.json.samples.jsonl --from both-after.json.samples.jsonl",
    );
    const dropped = [...trained, "--drop-shared-indexers"];
    const own = await indexcache(folder, ["distill", tinyModel, "-p", "FSFSS", ...dropped, "-o", "own"]);
    expect((await run(proposed(own.stderr))).stdout).toContain("FSFSS");
  }, 120_000);
});

test("is flat for an agent, and nothing with --quiet", async () => {
  const args = ["bench", tinyModel, "-p", "FSFSF", ...quick];
  vi.stubEnv("AGENT", "1");
  const { stderr } = await indexcache(folder, args);
  vi.unstubAllEnvs();
  expect(stderr.trimEnd().split("\n").at(-1)).toMatch(/^next: node \S+ pattern FSFSF --for vllm$/);
  expect((await indexcache(folder, [...args, "-q"])).stderr).toBe("");
});
