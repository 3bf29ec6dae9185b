/** The engines' routes behind `--dev`: what `search --server` and the kit do there, against losses of `indexcache loss`. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Pattern, parsePattern } from "../../src/pattern/pattern.ts";
import { openLossEvaluator } from "../../src/runtime/loss/loss-evaluator.ts";
import type { PatternEvaluator } from "../../src/runtime/measurement.ts";
import { DemoServer, full, meanLoss, quarter } from "./demo-server.ts";

const patterns = [full, quarter, parsePattern("FFSFSSFSSSSF")];
/** The window whole, as `search` cuts it: the model's 1,024 positions. */
const length = 1024;

let server: DemoServer;
let ids: number[];
let evaluator: PatternEvaluator;
beforeAll(async () => {
  server = await DemoServer.start();
  const text = readFileSync(join(import.meta.dirname, "..", "..", "calibration", "demo-prompt.txt"), "utf8");
  ids = server.tokenizer.encode(text.repeat(6)).slice(0, length);
  evaluator = await openLossEvaluator(server.model, [Int32Array.from(ids)], { device: "cpu", workers: 1, threads: 1 });
});
afterAll(async () => {
  await evaluator?.release();
  await server?.stop();
});
afterEach(async () => {
  await rpc("indexcache_set", full);
});

const rpc = async (method: string, ...args: string[]) =>
  (await server.post("/collective_rpc", { method, args })).body.results?.[0];

const lossOf = async (pattern: Pattern): Promise<number> => (await evaluator.evaluate(pattern)).loss;

/** The float32 matrix of a base64 .npy. */
function matrix(base64: string): { shape: string; values: Float32Array } {
  const bytes = Buffer.from(base64, "base64");
  expect(bytes.subarray(0, 8).toString("latin1")).toBe("\x93NUMPY\x01\x00");
  const header = bytes.subarray(10, 10 + bytes.readUInt16LE(8)).toString("latin1");
  const start = 10 + header.length;
  expect(start % 64).toBe(0);
  const shape = /'descr': '<f4', 'fortran_order': False, 'shape': \((.*?)\)/.exec(header)?.[1] ?? "";
  return {
    shape,
    values: new Float32Array(bytes.buffer.slice(bytes.byteOffset + start, bytes.byteOffset + bytes.length)),
  };
}

describe("vLLM's dialect", () => {
  test.each(patterns)("scores under %s what `loss` computes", async (pattern) => {
    expect(await rpc("indexcache_set", pattern)).toMatchObject({ letters: pattern });
    const { body } = await server.post("/inference/v1/generate", {
      token_ids: ids,
      sampling_params: { max_tokens: 1, temperature: 0, prompt_logprob_token_ids: ids.slice(1).map((id) => [id]) },
    });
    const { shape, values } = matrix(body.prompt_token_id_logprobs);
    expect(shape).toBe(`${length - 1}, 1`);
    expect(Math.abs(meanLoss([...values]) - (await lossOf(pattern)))).toBeLessThan(1e-6);
    expect(body.choices[0].token_ids).toHaveLength(1);
  });

  test.each(patterns)("scores through /v1/completions under %s as well", async (pattern) => {
    await rpc("indexcache_set", pattern);
    const { body } = await server.post("/v1/completions", {
      prompt: ids,
      max_tokens: 1,
      temperature: 0,
      prompt_logprobs: 0,
    });
    const [first, ...rows] = body.choices[0].prompt_logprobs;
    expect(first).toBeNull();
    const logprobs = rows.map(
      (row: Record<string, { logprob: number }>, index: number) => row[ids[index + 1] as number]?.logprob,
    );
    expect(Math.abs(meanLoss(logprobs) - (await lossOf(pattern)))).toBeLessThan(1e-6);
  });

  test("scores from a position on, several candidates a row, -1 as nothing", async () => {
    const start = 127;
    const rows = ids.slice(start + 1).map((id, index) => (index === 0 ? [id] : [id, 5, -1]));
    const ask = (sampling: object) =>
      server.post("/inference/v1/generate", { token_ids: ids, sampling_params: sampling });
    const whole = matrix(
      (await ask({ max_tokens: 1, prompt_logprob_token_ids: ids.slice(1).map((id) => [id]) })).body
        .prompt_token_id_logprobs,
    );
    const { body } = await ask({ max_tokens: 1, prompt_logprob_token_ids: rows, prompt_logprob_start: start });
    const { shape, values } = matrix(body.prompt_token_id_logprobs);
    expect(shape).toBe(`${length - 1 - start}, 3`);
    expect([...values].filter((_, index) => index % 3 === 0)).toEqual([...whole.values.slice(start)]);
    expect([...values.slice(1, 3), values[5]]).toEqual([-Infinity, -Infinity, -Infinity]);
    expect(values[4]).toBeLessThan(0);
  });

  test("describes, switches, and counts the indexers that ran", async () => {
    const before = await rpc("indexcache_describe");
    expect(before).toMatchObject({
      letters: full,
      rank: 0,
      index_topk: 128,
      first_layer: 0,
      last_layer: 11,
      enforce_eager: true,
    });
    await rpc("indexcache_set", quarter);
    await rpc("indexcache_count", "1");
    await server.post("/v1/completions", { prompt: ids.slice(0, 300), max_tokens: 1 });
    const { calls, boot_id } = await rpc("indexcache_count", "1");
    expect(calls.map((count: number) => (count > 0 ? "F" : "S")).join("")).toBe(quarter);
    expect(boot_id).toBe(before.boot_id);
    expect((await rpc("indexcache_count")).calls.every((count: number) => count === 0)).toBe(true);
  });

  test.each([
    ["SFFFFFFFFFFF", "layer 0 must be Full"],
    ["FFF", "3 letters"],
    ["FFFFFFFFFFFX", "only F (Full) and S (Shared)"],
    ["-FFFFFFFFFFF", "only F (Full) and S (Shared)"],
  ])("answers a switch to %s with an error, and stays as it was", async (letters, words) => {
    const result = await rpc("indexcache_set", letters);
    expect(result.error).toContain(words);
    expect(await rpc("indexcache_describe")).toMatchObject({ letters: full });
  });

  test("knows no other methods", async () => {
    expect(await server.post("/collective_rpc", { method: "exec", args: ["rm"] })).toMatchObject({
      status: 400,
      body: { error: { message: 'The worker has no method "exec"' } },
    });
  });

  test("refuses candidate lists that do not fit the prompt", async () => {
    const { status, body } = await server.post("/inference/v1/generate", {
      token_ids: [1, 2, 3],
      sampling_params: { max_tokens: 1, prompt_logprob_token_ids: [[2]] },
    });
    expect(status).toBe(400);
    expect(body.error.message).toContain("has 1 lists");
  });
});

describe("SGLang's dialect", () => {
  const wordOf = (pattern: Pattern): number =>
    [...pattern].reduce((word, letter, layer) => word + (letter === "S" ? 2 ** layer : 0), 0);
  const setWord = (word: number) => server.post("/set_internal_state", { server_args: { indexcache_shared_0: word } });

  test.each(patterns)("scores under %s what `loss` computes", async (pattern) => {
    expect((await setWord(wordOf(pattern))).body).toEqual([true]);
    const info = (await server.get("/server_info")).body.internal_states[0].indexcache;
    expect(info.letters).toBe(pattern);
    const { body } = await server.post("/generate", {
      input_ids: ids,
      sampling_params: { max_new_tokens: 1, temperature: 0 },
      return_logprob: true,
      logprob_start_len: 0,
    });
    const listed: [number | null, number, null][] = body.meta_info.input_token_logprobs;
    expect(listed.map(([, id]) => id)).toEqual(ids);
    expect(listed[0]).toEqual([null, ids[0], null]);
    expect(
      Math.abs(meanLoss(listed.slice(1).map(([logprob]) => logprob as number)) - (await lossOf(pattern))),
    ).toBeLessThan(1e-6);
    const { calls } = (await server.get("/get_server_info")).body.internal_states[0].indexcache;
    expect(calls.map((count: number) => (count > 0 ? "F" : "S")).join("")).toBe(pattern);
  });

  test("lists from a position on: its own token without a number, then the others, with the most likely ones", async () => {
    const prompt = ids.slice(0, 20);
    const ask = { sampling_params: { max_new_tokens: 2, temperature: 0 }, return_logprob: true, top_logprobs_num: 2 };
    const { body } = await server.post("/generate", {
      ...ask,
      input_ids: [prompt, prompt],
      logprob_start_len: [15, -1],
    });
    const [from, last] = body;
    expect(from.meta_info.input_token_logprobs.map(([, id]: [number, number]) => id)).toEqual(prompt.slice(15));
    expect(from.meta_info.input_token_logprobs[0][0]).toBeNull();
    expect(from.meta_info.input_top_logprobs).toHaveLength(5);
    expect(from.meta_info.input_top_logprobs[0]).toBeNull();
    expect(from.meta_info.input_top_logprobs[1]).toHaveLength(2);
    expect(last.meta_info.input_token_logprobs).toEqual([[null, prompt[19], null]]);
    expect(from.output_ids).toHaveLength(2);
    expect(from.meta_info.output_token_logprobs[0]).toEqual(from.meta_info.output_top_logprobs[0][0]);
  });

  test.each([
    [{ indexcache_shared_0: 1 }, "layer 0 must be Full"],
    [{ indexcache_shared_0: 4096 }, "bits for layers"],
    [{ indexcache_shared_0: 0.5 }, "whole number"],
    [{ indexcache_shared_0: 0, indexcache_shared_1: 0 }, "12 layers take the words"],
    [{ max_micro_batch_size: 8 }, "max_micro_batch_size is not supported"],
  ])("refuses %j and says why in its state", async (words, reason) => {
    expect((await server.post("/set_internal_state", { server_args: words })).body).toEqual([false]);
    const state = (await server.get("/server_info")).body.internal_states[0].indexcache;
    expect(state.error).toContain(reason);
    expect(state.letters).toBe(full);
  });

  test("flushes what is kept", async () => {
    await server.post("/generate", { input_ids: ids.slice(0, 400), sampling_params: { max_new_tokens: 1 } });
    expect(server.runner.prefixes.size).toBeGreaterThan(0);
    expect((await server.get("/flush_cache")).status).toBe(200);
    expect(server.runner.prefixes.size).toBe(0);
  });
});

test("without --dev none of these routes is there", async () => {
  const plain = await DemoServer.start({ dialects: [] });
  try {
    for (const path of [
      "/collective_rpc",
      "/inference/v1/generate",
      "/reset_prefix_cache",
      "/generate",
      "/set_internal_state",
      "/flush_cache",
    ]) {
      expect((await plain.post(path, {})).status).toBe(404);
    }
    expect((await plain.get("/server_info")).status).toBe(404);
  } finally {
    await plain.stop();
  }
});
