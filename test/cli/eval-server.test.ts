/** `eval --server` against the real server behind the engines' routes, as a user runs it. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readEvalResult } from "../../src/formats/eval-result.ts";
import { readSamples, type Sample } from "../../src/formats/sample-journal.ts";
import { changeRanks, TamperedServer } from "../live/tampered-server.ts";
import { DemoServer, full } from "../serve/demo-server.ts";
import { demoModel, indexcache, interrupt, tinyModel } from "./indexcache.ts";

let folder: string;
let vllm: DemoServer;
let sglang: DemoServer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "indexcache-eval-server-"));
  vllm = await DemoServer.start({ dialects: ["vllm"] });
  sglang = await DemoServer.start({ dialects: ["sglang"] });
  // As the published records: four choices, scored by their labels' probabilities as well.
  const records = Array.from({ length: 2 }, (_, index) => ({
    _id: `r${index}`,
    domain: "Single-Document QA",
    sub_domain: "test",
    difficulty: "easy",
    length: "short",
    question: "Which word comes first?",
    choice_A: "harbor",
    choice_B: "window",
    choice_C: "garden",
    choice_D: "copper",
    answer: "ABCD"[index],
    context: `${["harbor", "window"][index]} `.repeat(120),
  }));
  await writeFile(join(folder, "choices.json"), JSON.stringify(records));
});
afterAll(async () => {
  await vllm.stop();
  await sglang.stop();
  await rm(folder, { recursive: true });
});

const at = (server: { url: string }): string[] => ["--server", server.url, "-m", demoModel];
const ruler = ["-p", "uniform:4", "--tasks", "niah_single_1,vt", "--lengths", "320", "--samples", "2"];
/** One short task, for what happens around the answers. */
const needles = (samples: number): string[] => [
  ...["-p", "uniform:4", "--tasks", "niah_single_1", "--lengths", "256", "--samples", String(samples)],
];
const choices = ["-p", "uniform:4", "--suite", "longbench-v2", "--data", "choices.json", "--max-length", "600"];
const samplesOf = async (name: string): Promise<Sample[]> =>
  (await readSamples(join(folder, `${name}.json.samples.jsonl`)))?.entries ?? [];
const letters = async (): Promise<string> =>
  (await vllm.post("/collective_rpc", { method: "indexcache_describe" })).body.results[0].letters;

async function run(args: string[], name: string): Promise<Sample[]> {
  const { status, stderr } = await indexcache(folder, [
    "eval",
    ...args,
    "--max-new-tokens",
    "12",
    "-o",
    `${name}.json`,
  ]);
  expect(status, stderr).toBe(0);
  return await samplesOf(name);
}

test.each([
  ["RULER", ruler],
  ["LongBench v2", choices],
])(
  "%s on a server has the outputs, scores, losses and verdicts of the checkpoint, by both dialects",
  async (suite, args) => {
    const name = suite.replaceAll(" ", "");
    const own = await run([demoModel, ...args], `${name}-own`);
    expect(own.length).toBeGreaterThan(3);
    for (const [engine, server] of [
      ["vllm", vllm],
      ["sglang", sglang],
    ] as const) {
      const there = await run([...at(server), ...args], `${name}-${engine}`);
      expect(there).toHaveLength(own.length);
      for (const sample of own) {
        const other = there.find(
          ({ task, id, arm }) => task === sample.task && id === sample.id && arm.name === sample.arm.name,
        );
        expect(other).toMatchObject({
          output: sample.output,
          output_tokens: sample.output_tokens,
          finish: sample.finish,
          score: sample.score,
          prompt_sha256: sample.prompt_sha256,
        });
        expect(other?.gold_loss?.nats).toBeCloseTo(sample.gold_loss?.nats as number, 4);
        for (const [option, logprob] of (sample.choice_log_probabilities ?? []).entries()) {
          expect(other?.choice_log_probabilities?.[option]).toBeCloseTo(logprob, 4);
        }
      }
      const [mine, theirs] = [
        await readEvalResult(join(folder, `${name}-own.json`)),
        await readEvalResult(join(folder, `${name}-${engine}.json`)),
      ];
      const verdicts = ({ rows }: typeof mine) => rows.map((row) => row.comparisons.map(({ verdict }) => verdict));
      expect(verdicts(theirs)).toEqual(verdicts(mine));
      expect(theirs.settings).toMatchObject({ device: "server", engine, served_model: "demo", servers: 1 });
      expect(theirs.tool.runtime).toMatch(/^indexcache /);
      expect(theirs.prompts_sha256).toBe(mine.prompts_sha256);
    }
    expect(await letters()).toBe(full);
  },
  240_000,
);

test("is interrupted in mid-batch, gives the pattern back, and goes on to the same result; no other engine's samples mix in", async () => {
  // Every answer takes its time, so that there is work left when the signal comes.
  const paced = await TamperedServer.start(vllm.url, ({ path }) => {
    if (path === "/v1/completions") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 250);
    return undefined;
  });
  // A batch of four items is told of when it is done: the signal comes while the second one is under way.
  const six = needles(6);
  const whole = await run([...at(vllm), ...six], "whole");
  const args = [...at(paced), ...six, "--max-new-tokens", "12", "-o", "cut.json", "--concurrency", "1"];
  const { status, stderr } = await interrupt(folder, ["eval", ...args], "1 of 6 items", "SIGINT");
  expect(status, stderr).toBe(130);
  expect(stderr).toContain("--resume");
  expect(await letters()).toBe(full);
  const before = (await samplesOf("cut")).length;
  expect(before).toBeGreaterThan(0);
  const other = await indexcache(folder, ["eval", ...at(sglang), ...args.slice(4), "--resume"]);
  expect(other).toMatchObject({ status: 2, stderr: expect.stringContaining("engine") });
  const resumed = await indexcache(folder, ["eval", ...args, "--resume"]);
  expect(resumed.status, resumed.stderr).toBe(0);
  expect(resumed.stderr).toContain(`resuming: ${before} samples`);
  const plain = (samples: Sample[]) =>
    samples.map(({ task, id, arm, output, score }) => JSON.stringify([task, id, arm.name, output, score])).sort();
  expect(plain(await samplesOf("cut"))).toEqual(plain(whole));
  await paced.stop();
}, 180_000);

describe("bad input is one sentence:", () => {
  const refused = async (args: string[]) => await indexcache(folder, ["eval", ...needles(2), ...args]);

  test.each([
    ["no folder", () => ["--server", vllm.url], "-m is missing"],
    ["a model of other depth", () => ["--server", vllm.url, "-m", tinyModel], "num_hidden_layers 12 there, 5 in -m"],
    ["an option of our own runtime", () => [...at(vllm), "--workers", "2"], "--workers does not go with --server"],
    ["a server option without one", () => ["--concurrency", "2"], "--concurrency needs --server"],
    ["another host", () => ["--server", "http://10.1.2.3:8000", "-m", demoModel], "--allow-remote"],
  ])("%s", async (_, args, message) => {
    const { status, stderr } = await refused(args());
    expect(status).toBe(2);
    expect(stderr).toContain(message);
  });

  test("a pattern that the server cannot run: a layer without an indexer there, before anything is asked", async () => {
    const shared = await TamperedServer.start(
      vllm.url,
      changeRanks("indexcache_describe", (ranks) =>
        ranks.map((rank) => ({ ...rank, letters: "F-FFFFFFFFFF", boot_letters: "F-FFFFFFFFFF" })),
      ),
    );
    const { status, stderr } = await refused(at(shared));
    expect(status).toBe(2);
    expect(stderr).toContain("makes layer 1 Full, which has no indexer on the server");
    expect(shared.paths.some((path) => path.includes("completions"))).toBe(false);
    await shared.stop();
  });

  test("patterns that do not reach the model", async () => {
    // As with graphs on: the switch is read back, and every indexer runs.
    const deaf = await TamperedServer.start(
      vllm.url,
      changeRanks("indexcache_count", (ranks) => ranks.map((rank) => ({ ...rank, calls: Array(12).fill(3) }))),
    );
    const { status, stderr } = await refused(at(deaf));
    expect(status).toBe(3);
    expect(stderr).toContain("Patterns do not reach the model");
    expect(await letters()).toBe(full);
    await deaf.stop();
  });

  test("a wrong key", async () => {
    const locked = await DemoServer.start({ dialects: ["vllm"], apiKey: "right" });
    const { status, stderr } = await refused([...at(locked), "--api-key", "wrong"]);
    expect(status).toBe(3);
    expect(stderr).toContain("the key is not accepted");
    expect(stderr).not.toContain("right");
    await locked.stop();
  });

  test("a server that is too slow: one sentence, and its pattern back", async () => {
    const slow = await TamperedServer.start(vllm.url, ({ path }, response) => {
      if (path === "/v1/completions") response.writeHead(200);
      return undefined;
    });
    // The good server has for one answer what a whole evaluation takes on this machine just now.
    const begun = performance.now();
    await run([...at(vllm), ...needles(2)], "pace");
    const seconds = String(Math.ceil((performance.now() - begun) / 1000));
    const pair = ["--server", `${slow.url},${vllm.url}`, "-m", demoModel, "--timeout", seconds];
    const { status, stderr } = await refused(pair);
    // The other server takes over: nothing is lost but time.
    expect(status, stderr).toBe(0);
    expect(stderr).toContain(`has not answered in ${seconds} s`);
    expect(stderr).toContain("the other servers take its items");
    expect(await letters()).toBe(full);
    await slow.stop();
  }, 240_000);
});
