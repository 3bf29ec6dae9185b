/** `search`, `loss`, `server` and `kit` against the real server behind the engines' routes, as a user runs them. */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TamperedServer } from "../live/tampered-server.ts";
import { DemoServer, full } from "../serve/demo-server.ts";
import { demoModel, indexcache, interrupt, tinyModel } from "./indexcache.ts";

const calibration = join(import.meta.dirname, "..", "..", "calibration", "demo.jsonl");
/** Tokens of a sequence: some more than the 128 keys that the demo model selects. */
const length = 160;
const text = ["-c", calibration, "--sequences", "2", "--sequence-length", String(length)];
const greedy = ["--strategy", "greedy", "--retain", "10", ...text];

let folder: string;
let vllm: DemoServer;
let sglang: DemoServer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "indexcache-server-"));
  vllm = await DemoServer.start({ dialects: ["vllm"] });
  sglang = await DemoServer.start({ dialects: ["sglang"] });
});
afterAll(async () => {
  await vllm.stop();
  await sglang.stop();
  await rm(folder, { recursive: true });
});

const at = (server: DemoServer): string[] => ["--server", server.url, "-m", demoModel];
const read = async (name: string) => JSON.parse(await readFile(join(folder, name), "utf8"));
const letters = async (server: DemoServer): Promise<string> => {
  const { stdout } = await indexcache(folder, ["server", server.url, "--json", "--sequence-length", "160"]);
  return JSON.parse(stdout).letters;
};

describe("a search on a server", () => {
  test("finds what a search on this machine finds, by both dialects", async () => {
    await indexcache(folder, ["search", demoModel, ...greedy, "-o", "own.json"]);
    const own = await read("own.json");
    for (const [name, server] of [
      ["vllm", vllm],
      ["sglang", sglang],
    ] as const) {
      const { status, stderr, stdout } = await indexcache(folder, [
        "search",
        ...at(server),
        ...greedy,
        "-o",
        `${name}.json`,
      ]);
      expect(status, stderr).toBe(0);
      expect(stderr).toContain("patterns reach the model");
      expect(stderr.trimEnd().split("\n").at(-1)).toMatch(/^next, whether answers stay as good: node \S+ eval /);
      expect(stderr).toContain(
        ` eval --server ${server.url} -m ${demoModel} --pattern ${name}.json -o ${name}-eval.json\n`,
      );
      expect(stdout).toContain("no step: every choice is ahead by more than the noise");
      const found = await read(`${name}.json`);
      expect(found.index_topk_pattern).toBe(own.index_topk_pattern);
      expect(found.server).toMatchObject({ engine: name, served_model: "demo", scored_from: 128, noise: 0 });
      for (const [step, { loss }] of found.trajectory.entries()) {
        // The same sum over the tokens that a pattern can change.
        const change = (own.trajectory[step].loss - own.baseline_loss) * ((length - 1) / (length - 128));
        expect(loss - found.baseline_loss).toBeCloseTo(change, 5);
      }
      expect(await letters(server)).toBe(full);
    }
  }, 240_000);

  test("is killed, leaves a pattern behind that the next one names, and goes on to the same result", async () => {
    const command = ["search", ...at(vllm), ...greedy, "-o", "killed.json"];
    expect((await interrupt(folder, command, "step 1 of 2", "SIGKILL")).status).toBe("SIGKILL");
    const { stdout: left } = await indexcache(folder, ["server", vllm.url, "--restore"]);
    expect(left).toMatch(/FFFFFFFFFFFF runs (again, as at the start; before it was|, as at the start)/);
    await vllm.post("/collective_rpc", { method: "indexcache_set", args: ["FSFFFFFFFFFF"] });
    const { status, stderr } = await indexcache(folder, [...command, "--resume"]);
    expect(status, stderr).toBe(0);
    expect(stderr).toContain(
      "it runs FSFFFFFFFFFF, which an earlier run has left behind: it was started with FFFFFFFFFFFF",
    );
    expect((await read("killed.json")).index_topk_pattern).toBe((await read("vllm.json")).index_topk_pattern);
    expect(await letters(vllm)).toBe(full);
  }, 240_000);

  test("gives the pattern back when it is interrupted", async () => {
    const command = ["search", ...at(vllm), ...greedy, "-o", "stopped.json"];
    const { status, stderr } = await interrupt(folder, command, "step 1 of 2", "SIGINT");
    expect(status).toBe(130);
    expect(stderr).toContain("--resume");
    expect(await letters(vllm)).toBe(full);
  }, 120_000);

  test.each([
    [["--device", "cpu"], "--device does not go with --server"],
    [["--dtype", "float16"], "--dtype does not go with --server"],
  ])("refuses %j", async (options, message) => {
    const { status, stderr } = await indexcache(folder, ["search", ...at(vllm), ...greedy, ...options]);
    expect(status).toBe(2);
    expect(stderr).toContain(message);
  });

  test("needs a folder, and the right one", async () => {
    const without = await indexcache(folder, ["search", "--server", vllm.url, ...text]);
    expect(without).toMatchObject({ status: 2, stderr: expect.stringContaining("-m is missing") });
    const other = await indexcache(folder, ["loss", "--server", vllm.url, "-m", tinyModel, ...text]);
    expect(other).toMatchObject({ status: 2, stderr: expect.stringContaining("num_hidden_layers 12 there, 5 in -m") });
    const alone = await indexcache(folder, ["loss", "--concurrency", "2"]);
    expect(alone).toMatchObject({ status: 2, stderr: expect.stringContaining("--concurrency needs --server") });
  });
});

test("loss --server says what it scored, and on what", async () => {
  const { status, stdout, stderr } = await indexcache(folder, [
    "loss",
    ...at(sglang),
    ...text,
    "-p",
    "uniform:4",
    "--json",
  ]);
  expect(status, stderr).toBe(0);
  const record = JSON.parse(stdout);
  expect(record).toMatchObject({ index_topk_pattern: "FSSSFSSSFSSS", tokens: 2 * (length - 128) });
  expect(record.server).toMatchObject({ engine: "sglang", scored_from: 128, served_model: "demo" });
});

test("server --verify: a pattern acts from index_topk on, and nowhere before", async () => {
  const { status, stdout } = await indexcache(folder, ["server", vllm.url, "--verify", "-p", "uniform:4", "--json"]);
  expect(status).toBe(0);
  const { ranges, begins } = JSON.parse(stdout);
  expect(begins).toBeGreaterThanOrEqual(128);
  expect(begins).toBeLessThan(140);
  expect(ranges.map(({ from, acts }: { from: number; acts: boolean }) => [from, acts])).toEqual([
    [1, false],
    [128, true],
    [256, true],
  ]);
  expect(ranges[0].moved).toBe(0);
  const same = await indexcache(folder, ["server", vllm.url, "--verify", "-p", "full"]);
  expect(same).toMatchObject({ status: 2, stderr: expect.stringContaining("is the server's own pattern") });
});

test("server --verify: exit code 1 where every pattern is answered alike, as captured graphs do", async () => {
  const answers = new Map<string, string>();
  const graphs = await TamperedServer.start(vllm.url, ({ path, sent, text: answer }) => {
    if (path !== "/inference/v1/generate") return undefined;
    const prompt = JSON.stringify(sent.token_ids);
    if (!answers.has(prompt)) answers.set(prompt, answer);
    return { text: answers.get(prompt) ?? answer };
  });
  try {
    const { status, stderr } = await indexcache(folder, ["server", graphs.url, "--verify", "-p", "uniform:4"]);
    expect({ status, stderr }).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("does not act on this server"),
    });
  } finally {
    await graphs.stop();
  }
});

test("kit writes the package and prints both commands", async () => {
  const { status, stdout } = await indexcache(folder, ["kit", "my kit", "-m", demoModel]);
  expect(status).toBe(0);
  expect((await readdir(join(folder, "my kit", "indexcache_live"))).sort()).toEqual([
    "__init__.py",
    "letters.py",
    "sglang.py",
    "vllm.py",
  ]);
  expect(await readFile(join(folder, "my kit", "indexcache_live-1.dist-info", "entry_points.txt"), "utf8")).toContain(
    "indexcache = indexcache_live.sglang:register",
  );
  expect(stdout).toContain(`VLLM_SERVER_DEV_MODE=1 PYTHONPATH='${join(folder, "my kit")}' \\`);
  expect(stdout).toContain("SGLANG_PLUGINS=indexcache");
});
