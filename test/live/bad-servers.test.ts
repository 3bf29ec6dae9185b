/** Servers that are not there, not what they should be, or fail in the middle: each ends in one sentence that says so. */
import type { ServerResponse } from "node:http";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { LiveModel } from "../../src/live/live-model.ts";
import { preflight } from "../../src/live/preflight.ts";
import { parseServers } from "../../src/live/server-address.ts";
import { ServerLosses } from "../../src/live/server-losses.ts";
import { randomPrompts, verify } from "../../src/live/verification.ts";
import { parsePattern } from "../../src/pattern/pattern.ts";
import { DemoServer, full, quarter } from "../serve/demo-server.ts";
import { changeRanks, TamperedServer, type Tampering } from "./tampered-server.ts";

let server: DemoServer;
const tampered: TamperedServer[] = [];
const opened: LiveModel[] = [];
beforeAll(async () => {
  server = await DemoServer.start({ dialects: ["vllm"] });
});
afterEach(async () => {
  for (const served of opened.splice(0)) await served.release();
  for (const one of tampered.splice(0)) await one.stop();
});
afterAll(() => server.stop());

const windows = randomPrompts(2, 192, 320);

async function behind(tamper: Tampering): Promise<TamperedServer> {
  const one = await TamperedServer.start(server.url, tamper);
  tampered.push(one);
  return one;
}

const notes: string[] = [];
async function open(url: string, settings: { apiKey?: string; timeout?: number } = {}): Promise<LiveModel> {
  notes.length = 0;
  const note = (words: string): number => notes.push(words);
  const served = await LiveModel.open([url], { note, pauses: [5, 10], timeout: 20_000, ...settings });
  opened.push(served);
  return served;
}

async function losses(url: string, settings: { timeout?: number } = {}): Promise<ServerLosses> {
  const served = await open(url, settings);
  await served.requireSwitchable();
  await served.prepare();
  return new ServerLosses(served, windows, {
    objective: "nll",
    indexTopk: 128,
    concurrency: 2,
    note: (words) => notes.push(words),
  });
}

const onScores =
  (change: (text: string, response: ServerResponse) => ReturnType<Tampering>): Tampering =>
  ({ path, text }, response) =>
    path === "/inference/v1/generate" ? change(text, response) : undefined;

/** As a release that answers in JSON numbers. */
const onCompletions =
  (change: (text: string, response: ServerResponse) => ReturnType<Tampering>): Tampering =>
  ({ path, text }, response) => {
    if (path === "/inference/v1/generate") return { status: 404, text: '{"detail":"Not Found"}' };
    return path === "/v1/completions" ? change(text, response) : undefined;
  };

describe("addresses", () => {
  test.each([
    ["localhost:8000", /no http address/],
    ["ftp://127.0.0.1", /no http address/],
    ["http://user:secret@127.0.0.1:8000", /a password/],
    ["http://10.1.2.3:8000", /not this machine/],
    ["http://127.0.0.1.evil.example:8000", /not this machine/],
    ["http://127.0.0.1:1,http://127.0.0.1:1/v1", /twice/],
  ])("%s", (text, message) => {
    expect(() => parseServers(text, false)).toThrow(message);
    expect(() => parseServers(text, false)).not.toThrow(/secret/);
  });

  test("another host with --allow-remote, and the address that OpenAI's libraries take", () => {
    expect(parseServers("http://10.1.2.3:8000/v1/, http://localhost:9000", true)).toEqual([
      "http://10.1.2.3:8000",
      "http://localhost:9000",
    ]);
  });
});

describe("what answers", () => {
  test("nobody", async () => {
    const gone = await behind(() => undefined);
    const { url } = gone;
    await gone.stop();
    tampered.length = 0;
    await expect(open(url)).rejects.toThrow("nobody listens there");
  });

  test("another program", async () => {
    const page = await behind(() => ({ status: 404, text: "<html>nothing here</html>" }));
    await expect(open(page.url)).rejects.toThrow(/is no server of vLLM or SGLang: \/v1\/models answers 404/);
    page.tamper = () => ({ text: "<html>a page</html>" });
    await expect(open(page.url)).rejects.toThrow(/does not answer with JSON but with "<html>a page/);
  });

  test("development mode is off", async () => {
    const off = await behind(({ path }) =>
      path.startsWith("/server_info") || path === "/collective_rpc" ? { status: 404, text: "{}" } : undefined,
    );
    await expect(open(off.url)).rejects.toMatchObject({
      message: expect.stringContaining("development mode is off"),
      hint: expect.stringContaining("VLLM_SERVER_DEV_MODE=1"),
    });
    off.tamper = ({ path }) => (path === "/collective_rpc" ? { status: 404, text: "{}" } : undefined);
    await expect(open(off.url)).rejects.toThrow("development mode is off");
  });

  test("no extension: known before a worker is asked, or from what it answers", async () => {
    const bare = await behind(({ path, text }) => {
      if (!path.startsWith("/server_info")) return undefined;
      return {
        text: text.replace('"parallel_config":{', '"parallel_config":{"worker_extension_cls":"",'),
      };
    });
    await expect(open(bare.url)).rejects.toMatchObject({
      message: expect.stringContaining("without the kit's worker extension"),
      hint: expect.stringContaining("--worker-extension-cls indexcache_live.vllm.PatternExtension"),
    });
    expect(bare.paths).not.toContain("/collective_rpc");
    bare.tamper = ({ path }) =>
      path === "/collective_rpc" ? { status: 500, text: '{"error":{"message":"no attribute"}}' } : undefined;
    await expect(open(bare.url)).rejects.toThrow(/"no attribute": does the server have the kit's extension\?/);
  });

  test("a wrong key, and a missing one", async () => {
    const locked = await DemoServer.start({ dialects: ["vllm"], apiKey: "right" });
    await expect(open(locked.url, { apiKey: "wrong" })).rejects.toMatchObject({
      message: expect.stringContaining("the key is not accepted"),
      hint: expect.stringContaining("--api-key"),
    });
    await expect(open(locked.url)).rejects.toThrow("a key is missing");
    expect((await open(locked.url, { apiKey: "right" })).description.layers).toBe(12);
    await opened.pop()?.release();
    await locked.stop();
  });

  test("SGLang without the plugin", async () => {
    const bare = await behind(({ path }) =>
      path.startsWith("/server_info") ? { text: '{"version":"0.5.23","internal_states":[{}]}' } : undefined,
    );
    await expect(open(bare.url)).rejects.toThrow("is SGLang without the kit's plugin");
  });
});

describe("what is served", () => {
  test("graphs that are on", async () => {
    const graphs = await behind(
      changeRanks("indexcache_describe", (ranks) =>
        ranks.map((rank) => ({ ...rank, obstacles: ["graphs are on: start the server with --enforce-eager"] })),
      ),
    );
    await expect((await open(graphs.url)).requireSwitchable()).rejects.toThrow(/cannot switch patterns: graphs are on/);
  });

  test("requests of other clients", async () => {
    const busy = await behind(({ path }) =>
      path === "/metrics" ? { text: 'vllm:num_requests_running{engine="0"} 3.0\n' } : undefined,
    );
    await expect((await open(busy.url)).requireSwitchable()).rejects.toThrow(
      "is answering 3 requests of other clients",
    );
  });

  test("a switch that no layer looks at", async () => {
    // The pattern is read back as set, and the model runs as it was: scores of the server's own pattern.
    const deaf = await behind(
      changeRanks("indexcache_count", (ranks) => ranks.map((rank) => ({ ...rank, calls: Array(12).fill(2) }))),
    );
    const served = await open(deaf.url);
    const evaluator = new ServerLosses(served, windows, {
      objective: "nll",
      indexTopk: 128,
      concurrency: 2,
      note: () => {},
    });
    await served.prepare();
    await expect(preflight(served, evaluator, [0, 1], 128)).rejects.toThrow(
      "Patterns do not reach the model: under FSSSSSSSSSSS the indexer of layer 1 ran 2 times",
    );
  });

  test("a model of another depth or vocabulary", async () => {
    const served = await open(server.url);
    const shape = { name: "GLM-5.1", numHiddenLayers: 78, vocabSize: 154_880, indexTopk: 2048 };
    expect(() => served.requireShape(shape)).toThrow(
      /serves "demo", which is not "GLM-5.1": num_hidden_layers 12 there, 78 in -m, vocab_size \d+ there, 154880 in -m, index_topk 128 there, 2048 in -m/,
    );
  });

  test("ranks that differ", async () => {
    const split = await behind(
      changeRanks("indexcache_set", (ranks) => [...ranks, { ...ranks[0], rank: 1, letters: full }]),
    );
    const evaluator = await losses(split.url);
    await expect(evaluator.evaluate(quarter)).rejects.toThrow("layer 1 is S on rank 0 and F on rank 1: ranks differ");
  });

  test("a rank that could not switch", async () => {
    const one = await behind(
      changeRanks("indexcache_set", (ranks) => ranks.map((rank) => ({ ...rank, error: "HiSparse is on" }))),
    );
    await expect((await losses(one.url)).evaluate(quarter)).rejects.toThrow(
      /rank 0 cannot switch to FSSSFSSSFSSS: "HiSparse is on"/,
    );
  });

  test("a pattern that somebody else sets meanwhile", async () => {
    const other = await behind(
      onScores(() => {
        void server.post("/collective_rpc", { method: "indexcache_set", args: [full] });
        return undefined;
      }),
    );
    await expect((await losses(other.url)).evaluate(quarter)).rejects.toThrow(
      "runs FFFFFFFFFFFF after the measurement, FSSSFSSSFSSS was set",
    );
  });
});

describe("answers", () => {
  test.each([
    ["NaN, as Python writes it", (text: string) => text.replace(/"logprob":-[\d.]+/, '"logprob":NaN'), /not finite/],
    ["a probability above 1", (text: string) => text.replace(/"logprob":-[\d.]+/g, '"logprob":2.5'), /is 2\.5/],
    [
      "fewer positions",
      (text: string) => JSON.stringify(dropPosition(JSON.parse(text))),
      /of 191 tokens of a prompt of 192/,
    ],
    ["another shape", () => '{"choices":[]}', /answers otherwise than vLLM and SGLang do at "choices"/],
  ])("%s", async (_, change, message) => {
    const wrong = await behind(onCompletions((text) => ({ text: change(text) })));
    await expect((await losses(wrong.url)).evaluate(quarter)).rejects.toThrow(message);
  });

  test("a NaN among binary scores", async () => {
    const wrong = await behind(
      onScores((text) => {
        const answer = JSON.parse(text);
        const bytes = Buffer.from(answer.prompt_token_id_logprobs, "base64");
        bytes.writeFloatLE(Number.NaN, bytes.length - 4);
        return { text: JSON.stringify({ ...answer, prompt_token_id_logprobs: bytes.toString("base64") }) };
      }),
    );
    await expect((await losses(wrong.url)).evaluate(quarter)).rejects.toThrow(
      /log-probability of a scored token .* is NaN/,
    );
  });

  test("one that is cut off is asked for again, and ends the run if that does not help", async () => {
    let cuts = 0;
    const cut = await behind(onScores((text) => (cuts++ === 1 ? { text: text.slice(0, 60) } : undefined)));
    const evaluator = await losses(cut.url);
    expect((await evaluator.evaluate(quarter)).sequences).toHaveLength(2);
    expect(cuts).toBe(4);
    cut.tamper = onScores((text) => ({ text: text.slice(0, 60) }));
    await expect(evaluator.evaluate(quarter)).rejects.toThrow("the answer ends in the middle, after 60 characters");
  });

  test("one without an end is not read to its end", async () => {
    let sent = 0;
    const endless = await behind(
      onScores((_, response) => {
        response.writeHead(200, { "Content-Type": "application/json" });
        const block = `"${"x".repeat(1 << 16)}",`;
        const more = (): void => {
          if (response.destroyed) return;
          sent += block.length;
          response.write(block, more);
        };
        more();
        return undefined;
      }),
    );
    // The scoring of given tokens is tried when the server is opened.
    await expect(losses(endless.url)).rejects.toThrow(
      /answers with more than [\d,]+ bytes, which is more than was asked for/,
    );
    expect(sent).toBeLessThan(64 << 20);
  });

  test("a server that is slow", async () => {
    const evaluator = await losses(server.url, { timeout: 60_000 });
    await evaluator.evaluate(full);
    const slow = await behind(() => undefined);
    const late = await losses(slow.url, { timeout: 3000 });
    let asked = 0;
    slow.tamper = onScores((_, response) => {
      // Never answered.
      asked++;
      response.writeHead(200);
      return undefined;
    });
    await expect(late.evaluate(quarter)).rejects.toMatchObject({
      message: expect.stringContaining("has not answered in 3 s"),
      hint: expect.stringContaining("--timeout"),
    });
    // Two sequences at a time, each asked twice: pauses are for servers that start again.
    expect(asked).toBeLessThanOrEqual(4);
  }, 90_000);

  test("a server that is restarted in the middle of an evaluation: the pattern is set and measured again", async () => {
    const next = await DemoServer.start({ dialects: ["vllm"] });
    const front = await behind(() => undefined);
    const evaluator = await losses(front.url);
    const before = await evaluator.evaluate(quarter);
    let scores = 0;
    front.tamper = onScores(() => {
      if (++scores === 1) front.target = next.url;
      return undefined;
    });
    const after = await evaluator.evaluate(quarter);
    expect(notes.join()).toContain("was restarted; the pattern is set and measured again");
    expect(after.sequences).toEqual(before.sequences);
    await opened.pop()?.release();
    await next.stop();
  });
});

function dropPosition(answer: { choices: { prompt_logprobs: unknown[] }[] }): unknown {
  answer.choices[0]?.prompt_logprobs.pop();
  return answer;
}

describe("a verified pattern", () => {
  /** Other selections in another order: sums of the first tokens come out in another order as well. */
  const rounded = (share: number, types: Record<string, string>): Tampering => {
    const describe = changeRanks("indexcache_describe", (ranks) => ranks.map((rank) => ({ ...rank, ...types })));
    let letters = full;
    return (exchange, response) => {
      const { path, sent } = exchange;
      if (path === "/collective_rpc" && sent.method === "indexcache_set") letters = sent.args[0];
      if (path !== "/inference/v1/generate" || letters === full) return describe(exchange, response);
      const answer = JSON.parse(exchange.text);
      const bytes = Buffer.from(answer.prompt_token_id_logprobs, "base64");
      for (let at = 1; at < 127; at++) {
        const offset = bytes.length - 4 * (192 - at);
        bytes.writeFloatLE(bytes.readFloatLE(offset) * (1 + (at % 2 === 0 ? share : -share)), offset);
      }
      return { text: JSON.stringify({ ...answer, prompt_token_id_logprobs: bytes.toString("base64") }) };
    };
  };
  test.each([
    ["rounding of bfloat16", 2 ** -9, { dtype: "bfloat16", kv_cache_dtype: "auto" }, false],
    ["more than that", 2 ** -6, { dtype: "bfloat16", kv_cache_dtype: "auto" }, true],
    ["as much in float32", 2 ** -9, { dtype: "float32", kv_cache_dtype: "float32" }, true],
    ["as much beside an FP8 cache", 2 ** -6, { dtype: "bfloat16", kv_cache_dtype: "fp8_e4m3" }, false],
  ])("tokens before index_topk may move by %s", async (_, share, types, acts) => {
    const served = await open((await behind(rounded(share, types))).url);
    await served.prepare();
    const { ranges, begins } = await verify(served, parsePattern(quarter), windows, 128);
    expect(ranges.map((range) => range.acts)).toEqual([acts, true]);
    expect(ranges[0]?.moved).toBeGreaterThan(0);
    if (acts) expect(begins).toBeLessThan(128);
    else expect(begins ?? 128).toBeGreaterThanOrEqual(128);
  });
});
