/** Losses through the engines' routes are those of our own runtime, over the tokens that patterns can change. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadCalibrationSet } from "../../src/calibration/calibration-set.ts";
import { Tokenizer } from "../../src/checkpoint/tokenizer/tokenizer.ts";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import { LiveModel } from "../../src/live/live-model.ts";
import { preflight } from "../../src/live/preflight.ts";
import { ServerLosses } from "../../src/live/server-losses.ts";
import { parsePattern } from "../../src/pattern/pattern.ts";
import { openLossEvaluator } from "../../src/runtime/loss/loss-evaluator.ts";
import type { Measurement } from "../../src/runtime/measurement.ts";
import { demoModel } from "../cli/indexcache.ts";
import { DemoServer, full, quarter } from "../serve/demo-server.ts";
import { TamperedServer } from "./tampered-server.ts";

const topk = 128;
const length = 384;
let model: ModelFolder;
let windows: Int32Array[];
const servers: DemoServer[] = [];

beforeAll(async () => {
  model = await openModel(demoModel);
  const tokenizer = await Tokenizer.load(demoModel);
  const encode = async (text: string): Promise<number[]> => tokenizer.encode(text);
  const set = await loadCalibrationSet("calibration/demo.jsonl", model.config, encode, {
    sequenceLength: length,
    sequences: 3,
  });
  windows = set.windows;
  // SGLang lists token 0 in place of the vocabulary's last one.
  (windows[0] as Int32Array)[topk + 5] = model.config.vocabSize - 1;
  servers.push(await DemoServer.start({ dialects: ["vllm"] }), await DemoServer.start({ dialects: ["sglang"] }));
});
afterAll(async () => {
  for (const server of servers) await server.stop();
});

const open = (...urls: string[]) => LiveModel.open(urls, { note: () => {}, pauses: [10, 20], timeout: 30_000 });
const settings = { objective: "nll" as const, indexTopk: topk, concurrency: 2, note: () => {} };

/** What our own runtime says of the tokens from position `topk` on. */
async function ownLosses(pattern: typeof full): Promise<number[]> {
  const losses = async (some: Int32Array[]): Promise<Measurement> => {
    const evaluator = await openLossEvaluator(model, some, { device: "cpu", workers: 1, threads: 1 });
    try {
      return await evaluator.evaluate(pattern);
    } finally {
      await evaluator.release();
    }
  };
  const whole = await losses(windows);
  const head = await losses(windows.map((window) => window.slice(0, topk)));
  return whole.sequences.map(({ loss, tokens }, at) => {
    const before = head.sequences[at] as { loss: number; tokens: number };
    return (loss * tokens - before.loss * before.tokens) / (tokens - before.tokens);
  });
}

describe.each([0, 1])("dialect %s of vLLM and SGLang", (which) => {
  test("losses over scored positions are our own to 1e-5, and the pattern is given back", async () => {
    const server = servers[which] as DemoServer;
    const served = await open(server.url);
    expect(served.description.engine).toBe(which === 0 ? "vllm" : "sglang");
    await served.prepare();
    const losses = new ServerLosses(served, windows, settings);
    for (const pattern of [full, quarter, parsePattern("FFSFFSFFSFFS")]) {
      const measured = await losses.evaluate(pattern);
      const own = await ownLosses(pattern);
      expect(measured.tokens).toBe(3 * (length - topk));
      for (const [at, { loss }] of measured.sequences.entries()) expect(loss).toBeCloseTo(own[at] as number, 5);
    }
    expect((await served.replicas[0]?.adapter.state())?.letters).toBe("FFSFFSFFSFFS");
    await losses.release();
    const again = await open(server.url);
    expect(again.description.state.letters).toBe(full);
    await again.release();
  });

  test("the preflight finds that patterns act, without noise on one machine in float32", async () => {
    const served = await open((servers[which] as DemoServer).url);
    await served.prepare();
    const found = await preflight(served, new ServerLosses(served, windows, settings), [0, 1, 2], topk);
    expect(found.noise).toBe(0);
    expect(found.sparsest).toBe("FSSSSSSSSSSS");
    expect(found.change).toBeGreaterThan(0.1);
    await served.release();
  });
});

test("divergences from the model's own pattern are those of our own runtime", async () => {
  const served = await open((servers[0] as DemoServer).url);
  await served.prepare();
  const losses = new ServerLosses(served, windows, { ...settings, objective: "kl" });
  const own = await openLossEvaluator(model, windows, {
    device: "cpu",
    workers: 1,
    threads: 1,
    objective: "kl",
    top: 16,
  });
  const [there, here] = [await losses.evaluate(quarter), await own.evaluate(quarter)];
  for (const [at, { kl }] of there.sequences.entries()) {
    // Ours is a mean over all predicted tokens; those before index_topk diverge by nothing.
    const whole = ((here.sequences[at]?.kl as number) * (length - 1)) / (length - topk);
    expect(kl).toBeGreaterThan(0.01);
    expect(kl).toBeCloseTo(whole, 4);
  }
  expect((await losses.evaluate(full)).kl).toBeLessThan(1e-6);
  await own.release();
  await served.release();
});

test("an engine that cannot score given tokens refuses the objective kl with the reason", async () => {
  const served = await open((servers[1] as DemoServer).url);
  expect(() => new ServerLosses(served, windows, { ...settings, objective: "kl" })).toThrow(
    /which indexcache .* does not offer/,
  );
  await served.release();
});

test("a release of vLLM without scores of given tokens is asked for prompt_logprobs, with the same losses", async () => {
  const old = await TamperedServer.start((servers[0] as DemoServer).url, ({ path, text }) => {
    // As 0.25.1: the route is there, the parameter is ignored.
    if (path !== "/inference/v1/generate") return undefined;
    return { text: JSON.stringify({ ...JSON.parse(text), prompt_token_id_logprobs: undefined }) };
  });
  const [one, two] = [await open(old.url), await open((servers[0] as DemoServer).url)];
  await one.prepare();
  await two.prepare();
  const through = await new ServerLosses(one, windows, settings).evaluate(quarter);
  const direct = await new ServerLosses(two, windows, settings).evaluate(quarter);
  expect(old.paths.filter((path) => path === "/v1/completions")).toHaveLength(3);
  for (const [at, { loss }] of through.sequences.entries()) {
    expect(loss).toBeCloseTo(direct.sequences[at]?.loss as number, 6);
  }
  await one.release();
  await two.release();
  await old.stop();
});

test("two servers share the sequences; one that dies hands its share over without a step in the differences", async () => {
  const other = await DemoServer.start({ dialects: ["vllm"] });
  // The second machine computes otherwise by a constant, as another card may.
  const shifted = await TamperedServer.start(other.url, ({ path, text }) => {
    if (path !== "/inference/v1/generate") return undefined;
    const answer = JSON.parse(text);
    const bytes = Buffer.from(answer.prompt_token_id_logprobs, "base64");
    const start = 10 + bytes.readUInt16LE(8);
    for (let at = start; at < bytes.length; at += 4) bytes.writeFloatLE(bytes.readFloatLE(at) - 0.25, at);
    return { text: JSON.stringify({ ...answer, prompt_token_id_logprobs: bytes.toString("base64") }) };
  });
  const notes: string[] = [];
  const served = await open((servers[0] as DemoServer).url, shifted.url);
  await served.prepare();
  const losses = new ServerLosses(served, windows, { ...settings, note: (words) => notes.push(words) });
  const [base, before] = [await losses.evaluate(full), await losses.evaluate(quarter)];
  await shifted.stop();
  const after = await losses.evaluate(quarter);
  expect(notes.join()).toContain("is lost");
  const change = (measured: Measurement, at: number): number =>
    (measured.sequences[at]?.loss as number) - (base.sequences[at]?.loss as number);
  for (const at of [0, 1, 2]) expect(change(after, at)).toBeCloseTo(change(before, at), 5);
  await served.release();
  await other.stop();
});
