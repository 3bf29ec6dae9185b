/** The OpenAI API over HTTP, on the demo model: what lm-evaluation-harness and other clients rely on. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { openDecoder } from "../../src/runtime/generate/decoder.ts";
import { generate } from "../../src/runtime/generate/generation.ts";
import { type Answer, DemoServer, full, quarter } from "./demo-server.ts";

let server: DemoServer;
let ids: number[];
beforeAll(async () => {
  server = await DemoServer.start();
  const text = readFileSync(join(import.meta.dirname, "..", "..", "calibration", "demo-prompt.txt"), "utf8");
  ids = server.tokenizer.encode(text.repeat(6));
});
afterAll(async () => {
  expect(server.errors).toEqual([]);
  await server.stop();
});
beforeEach(() => server.runner.prefixes.clear());

const greedy = { temperature: 0, max_tokens: 8 };
const complete = async (body: object): Promise<Answer["body"]> => {
  const answer = await server.post("/v1/completions", body);
  expect(answer.body.error).toBeUndefined();
  return answer.body;
};
/** What an answer says, without the names of the request. */
const told = ({ choices }: Answer["body"]) => JSON.stringify(choices);

describe("what lm-evaluation-harness 0.4.13 sends for a log-likelihood", () => {
  const recorded = (prompt: unknown) => ({
    model: "demo",
    prompt,
    temperature: 0,
    max_tokens: 1,
    logprobs: 1,
    seed: 1234,
    echo: true,
  });

  test("has one entry for each token of the prompt and exactly one more, null first", async () => {
    const prompts = [ids.slice(0, 200), ids.slice(50, 90), ids.slice(3, 4)];
    const { choices, usage } = await complete(recorded(prompts));
    expect(choices.map(({ index }: { index: number }) => index)).toEqual([0, 1, 2]);
    for (const [index, prompt] of prompts.entries()) {
      const { tokens, token_logprobs, top_logprobs, text_offset } = choices[index].logprobs;
      for (const list of [tokens, token_logprobs, top_logprobs, text_offset])
        expect(list).toHaveLength(prompt.length + 1);
      expect([token_logprobs[0], top_logprobs[0]]).toEqual([null, null]);
      expect(token_logprobs.slice(1).every((value: number) => value <= 0)).toBe(true);
    }
    expect(usage).toMatchObject({ prompt_tokens: 241, completion_tokens: 3, total_tokens: 244 });
  });

  test("says whether a continuation is greedy: the most likely tokens hold the chosen one's number to the last bit", async () => {
    const context = ids.slice(0, 150);
    const continued = server.tokenizer.encodePlain((await complete({ prompt: context, ...greedy })).choices[0].text);
    const isGreedy = async (continuation: readonly number[]): Promise<boolean> => {
      const { choices } = await complete(recorded([[...context, ...continuation]]));
      const { token_logprobs, top_logprobs } = choices[0].logprobs;
      const chosen: number[] = token_logprobs.slice(context.length, -1);
      const likely: Record<string, number>[] = top_logprobs.slice(context.length, -1);
      expect(chosen).toHaveLength(continuation.length);
      for (const [index, top] of likely.entries()) expect(Object.values(top)).toContain(chosen[index]);
      return chosen.every((value, index) => value === Math.max(...Object.values(likely[index] ?? {})));
    };
    expect(await isGreedy(continued)).toBe(true);
    expect(await isGreedy([...continued.slice(0, -1), (continued.at(-1) ?? 0) + 1])).toBe(false);
  });

  test("answers strings as it answers their ids", async () => {
    const text = "The key of the house is";
    const asIds = await complete(recorded([server.tokenizer.encode(text)]));
    const asText = await complete(recorded([text]));
    expect(asText.choices[0].logprobs).toEqual(asIds.choices[0].logprobs);
    expect(asText.choices[0].text.startsWith(text)).toBe(true);
  });

  test("offers its tokenizer", async () => {
    const info = (await server.get("/tokenizer_info")).body;
    expect(info).toMatchObject({ eos_token: "<|eos|>", bos_token: "<|bos|>" });
    const text = "A special magic number.";
    const { tokens, count } = (await server.post("/tokenize", { prompt: text, add_special_tokens: false })).body;
    expect(tokens).toEqual(server.tokenizer.encodePlain(text));
    expect(count).toBe(tokens.length);
    expect((await server.post("/detokenize", { tokens })).body).toEqual({ prompt: text });
    const whole = (await server.post("/tokenize", { prompt: text, return_token_strs: true })).body;
    expect(whole.token_strs[0]).toBe("<|bos|>");
    const chat = (await server.post("/tokenize", { messages: [{ role: "user", content: text }] })).body;
    expect(chat.tokens).toEqual(server.tokenizer.encodeChat([{ role: "user", content: text }]));
  });
});

describe("generation", () => {
  test("gives the tokens of the runtime's decoder", async () => {
    const prompt = ids.slice(0, 300);
    for (const pattern of [full, quarter]) {
      const decoder = await openDecoder(server.model, pattern, { device: "cpu", threads: 1 });
      let text = "";
      const options = { maxNewTokens: 24, window: 1024, text: server.tokenizer.detokenizer() };
      for await (const event of generate(decoder, prompt, options)) if (event.kind === "done") text = event.result.text;
      await decoder.release();
      const { choices } = await complete({ prompt, pattern, max_tokens: 24, temperature: 0, ignore_eos: true });
      expect(choices[0]).toMatchObject({ text, finish_reason: "length" });
    }
  });

  test("streams what it answers otherwise, log-probabilities and usage included", async () => {
    const body = {
      prompt: [ids.slice(0, 20), ids.slice(40, 70)],
      max_tokens: 10,
      temperature: 0,
      logprobs: 2,
      echo: true,
    };
    const whole = await complete(body);
    server.runner.prefixes.clear();
    const events = await server.stream("/v1/completions", { ...body, stream_options: { include_usage: true } });
    expect(events.pop().usage).toEqual(whole.usage);
    for (const choice of whole.choices) {
      const pieces = events.map((event) => event.choices[0]).filter(({ index }) => index === choice.index);
      expect(pieces.map(({ text }) => text).join("")).toBe(choice.text);
      for (const field of ["tokens", "token_logprobs", "top_logprobs", "text_offset"]) {
        expect(pieces.flatMap(({ logprobs }) => logprobs?.[field] ?? [])).toEqual(choice.logprobs[field]);
      }
      expect(pieces.map(({ finish_reason }) => finish_reason).filter((reason) => reason !== null)).toEqual([
        choice.finish_reason,
      ]);
    }
  });

  test("the same seed draws the same text, another one another, and each of n its own", async () => {
    const body = { prompt: [5], max_tokens: 24, temperature: 2, seed: 7 };
    const first = await complete({ ...body, n: 3 });
    expect(told(await complete({ ...body, n: 3 }))).toBe(told(first));
    expect(new Set(first.choices.map(({ text }: { text: string }) => text)).size).toBe(3);
    expect(first.usage.prompt_tokens).toBe(1);
    expect((await complete({ ...body, seed: 8 })).choices[0].text).toBe(first.choices[1].text);
  });

  test("ends before a stop text", async () => {
    const prompt = "The key of";
    const whole = (await complete({ prompt, ...greedy })).choices[0].text;
    const stop = whole.slice(4, 7);
    const { choices } = await complete({ prompt, ...greedy, stop: ["never there", stop] });
    expect(choices[0]).toMatchObject({ text: whole.slice(0, whole.indexOf(stop)), finish_reason: "stop" });
  });

  test("scores a prompt in vLLM's shape", async () => {
    const prompt = ids.slice(0, 40);
    const { choices } = await complete({ prompt, max_tokens: 0, prompt_logprobs: 3 });
    const [first, ...rows] = choices[0].prompt_logprobs;
    expect(first).toBeNull();
    expect(rows).toHaveLength(39);
    for (const [index, row] of rows.entries()) {
      const entries: { rank: number; logprob: number; decoded_token: string }[] = Object.values(row);
      expect(row[prompt[index + 1] as number]).toBeDefined();
      const ranks = entries.map(({ rank }) => rank);
      expect(ranks).toEqual(expect.arrayContaining([1, 2, 3]));
      const byRank = [...entries].sort((left, right) => left.rank - right.rank);
      expect(byRank).toEqual([...entries].sort((left, right) => right.logprob - left.logprob));
    }
  });

  test("chats, whole and streamed", async () => {
    const messages = [
      { role: "system", content: "Be brief." },
      { role: "user", content: [{ type: "text", text: "The key of" }] },
    ];
    const body = { messages, temperature: 0, max_completion_tokens: 12, logprobs: true, top_logprobs: 2 };
    const { body: whole } = await server.post("/v1/chat/completions", body);
    const { message, logprobs } = whole.choices[0];
    expect(message.role).toBe("assistant");
    expect(logprobs.content).toHaveLength(whole.usage.completion_tokens);
    expect(logprobs.content[0].top_logprobs[0]).toMatchObject({
      token: logprobs.content[0].token,
      logprob: logprobs.content[0].logprob,
    });
    const prompt = server.tokenizer.encodeChat([
      { role: "system", content: "Be brief." },
      { role: "user", content: "The key of" },
    ]);
    expect((await complete({ prompt, temperature: 0, max_tokens: 12 })).choices[0].text).toBe(message.content);
    const events = await server.stream("/v1/chat/completions", body);
    expect(events[0].choices[0].delta).toEqual({ role: "assistant", content: "" });
    expect(events.map((event) => event.choices[0].delta.content ?? "").join("")).toBe(message.content);
  });
});

describe("patterns by request", () => {
  test("come by the model's name or by a field, and do not last", async () => {
    const prompt = ids.slice(0, 400);
    const score = async (more: object) => told(await complete({ prompt, max_tokens: 0, prompt_logprobs: 0, ...more }));
    const own = await score({ model: "demo" });
    const bySize = await score({ model: "demo@1/4" });
    expect(bySize).not.toBe(own);
    expect(await score({ model: `demo@${quarter}` })).toBe(bySize);
    expect(await score({ model: "demo", pattern: "uniform:4" })).toBe(bySize);
    expect(await score({ pattern: "full" })).toBe(own);
    expect(await score({})).toBe(own);
  });

  test("are listed where they have a name", async () => {
    const { data } = (await server.get("/v1/models")).body;
    expect(data.map(({ id }: { id: string }) => id)).toEqual(["demo", "demo@1/4"]);
    expect(data[0]).toMatchObject({ max_model_len: 1024, index_topk_pattern: full });
  });
});

describe("prompts that begin alike", () => {
  const context = () => ids.slice(0, 900);
  const options = () => [5, 6, 7, 8].map((id) => [...context(), id, id + 1]);
  const score = (prompt: number[], more = {}) =>
    complete({ prompt, max_tokens: 1, temperature: 0, logprobs: 1, echo: true, ...more });
  const reused = ({ usage }: Answer["body"]): number => usage.prompt_tokens_details.cached_tokens;

  test("run their common chunks once, scores included, and get the same answers to the last bit", async () => {
    const alone: string[] = [];
    for (const option of options()) {
      server.runner.prefixes.clear();
      alone.push(told(await score(option)));
    }
    server.runner.prefixes.clear();
    const together: string[] = [];
    const counts: number[] = [];
    for (const option of options()) {
      const answer = await score(option);
      together.push(told(answer));
      counts.push(reused(answer));
    }
    expect(together).toEqual(alone);
    // Chunks of the demo model end at 128, 384, 640 and 896.
    expect(counts).toEqual([0, 896, 896, 896]);
    expect(server.runner.prefixes.size).toBe(1);
  });

  test("are kept apart by pattern", async () => {
    await score(context());
    expect(reused(await score(context(), { pattern: "uniform:4" }))).toBe(0);
    expect(reused(await score(context()))).toBeGreaterThan(0);
  });

  test("a request that scores does not take rows whose scores nobody made, but the next one does", async () => {
    await complete({ prompt: context(), ...greedy });
    expect(reused(await complete({ prompt: context(), ...greedy }))).toBe(896);
    expect(reused(await score(context()))).toBe(0);
    expect(reused(await score(context(), { logprobs: 5 }))).toBe(0);
    expect(reused(await score(context(), { logprobs: 5 }))).toBe(896);
    expect(reused(await score(context()))).toBe(896);
  });

  test("where two part, the score of the token that differs is not taken from the other", async () => {
    const parting = 640;
    const left = ids.slice(0, 700);
    const right = left.map((id, position) => (position >= parting ? (id + 3) % 2000 : id));
    const alone = told(await score(right));
    server.runner.prefixes.clear();
    await score(left);
    const answer = await score(right);
    expect(told(answer)).toBe(alone);
    expect(reused(answer)).toBe(384);
    // The rows alone are the same up to the token that differs.
    server.runner.prefixes.clear();
    await complete({ prompt: left, ...greedy });
    expect(reused(await complete({ prompt: right, ...greedy }))).toBe(640);
    // Scores that came along with rows which another request took stay right as well.
    server.runner.prefixes.clear();
    await score(left);
    await complete({ prompt: right, ...greedy });
    expect(told(await score(right))).toBe(alone);
  });

  test("what is generated goes on from a prefix as from a whole prompt", async () => {
    const alone = told(await complete({ prompt: context(), max_tokens: 20, temperature: 0 }));
    const again = await complete({ prompt: context(), max_tokens: 20, temperature: 0 });
    expect(reused(again)).toBe(896);
    expect(told(again)).toBe(alone);
  });
});

describe("requests that cannot be carried out", () => {
  test.each([
    [{}, "prompt"],
    [{ prompt: "", max_tokens: 0 }, "max_tokens is 0"],
    [{ prompt: [] }, "prompt"],
    [{ prompt: [2048] }, "outside the model's vocabulary of 2048"],
    [{ prompt: [1.5] }, "prompt"],
    [{ prompt: [-1] }, "prompt"],
    [{ prompt: Array.from({ length: 1025 }, () => 5) }, "context is 1024 tokens: the prompt has 1025"],
    [{ prompt: [5], max_tokens: 1025 }, "1025 more are asked for"],
    [{ prompt: "x", temperature: -1 }, "temperature"],
    [{ prompt: "x", top_p: 0 }, "top_p"],
    [{ prompt: "x", n: 0 }, '"n"'],
    [{ prompt: "x", logprobs: 21 }, "logprobs"],
    [{ prompt: "x", stop: "" }, "stop"],
    [{ prompt: "x", frequency_penalty: 0.5 }, '"frequency_penalty": is not supported'],
    [{ prompt: "x", logit_bias: { 5: 1 } }, "logit_bias"],
    [{ prompt: "x", best_of: 4 }, "best_of"],
    [{ prompt: "x", pattern: "FFS" }, "3 letters"],
    [{ prompt: "x", pattern: "SFFFFFFFFFFF" }, "layer 0 must be Full"],
    [{ prompt: "x", pattern: "/etc/passwd" }, 'no pattern "/etc/passwd"'],
    [{ prompt: "x", model: "demo@1/4", pattern: "full" }, "different patterns"],
    ["{", "not JSON"],
    ["[]", "expected object"],
  ])("%j gets 400 and a sentence", async (body, words) => {
    const { status, body: answer } = await server.post("/v1/completions", body);
    expect(status).toBe(400);
    expect(answer.error).toMatchObject({ type: "invalid_request_error", code: 400 });
    expect(answer.error.message).toContain(words);
  });

  test.each([
    [{ messages: [] }, "messages"],
    [{ messages: [{ role: "tool", content: "x" }] }, "must be system, user or assistant"],
    [{ messages: [{ role: "user", content: [{ type: "image_url", text: "" }] }] }, "must be a text"],
    [{ messages: [{ role: "user", content: "x" }], top_logprobs: 2 }, "needs logprobs"],
    [{ messages: [{ role: "user", content: "x" }], tools: [{}] }, "tools"],
  ])("chat %j as well", async (body, words) => {
    const { status, body: answer } = await server.post("/v1/chat/completions", body);
    expect(status).toBe(400);
    expect(answer.error.message).toContain(words);
  });

  test("another model, another path, another type of body, too large a body", async () => {
    expect(await server.post("/v1/completions", { model: "gpt-4", prompt: "x" })).toMatchObject({
      status: 404,
      body: { error: { message: 'The model "gpt-4" does not exist: this server has "demo"', param: "model" } },
    });
    expect((await server.get("/v1/engines")).status).toBe(404);
    expect((await server.post("/v1/completions", "prompt=x", { "Content-Type": "text/plain" })).status).toBe(415);
    expect((await server.post("/v1/completions", { prompt: "x".repeat(1 << 20) })).status).toBe(413);
  });

  test("a bad one streams nothing: it is refused with its status", async () => {
    expect((await server.post("/v1/completions", { prompt: [5000], stream: true })).status).toBe(400);
  });
});

describe("clients that go away", () => {
  test("end their request, and the next one is served", async () => {
    const before = server.runner.counts.generatedTokens;
    const leaving = new AbortController();
    const response = await fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ prompt: [5], max_tokens: 1000, ignore_eos: true, stream: true, temperature: 0 }),
      signal: leaving.signal,
    });
    await response.body?.getReader().read();
    leaving.abort();
    await complete({ prompt: [5], max_tokens: 1 });
    expect(server.runner.counts.generatedTokens - before).toBeLessThan(900);
  });

  test("so do those that wait for a whole answer", async () => {
    const before = server.runner.counts.generatedTokens;
    const asked = fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ prompt: [5], max_tokens: 1000, ignore_eos: true, temperature: 0 }),
      signal: AbortSignal.timeout(300),
    });
    await expect(asked).rejects.toThrow();
    await complete({ prompt: [5], max_tokens: 1 });
    expect(server.runner.counts.generatedTokens - before).toBeLessThan(900);
    expect(server.errors).toEqual([]);
  });
});

test("a server that ends tells those whom it cuts, and takes it for no failure", async () => {
  const ending = await DemoServer.start();
  const asked = ending.post("/v1/completions", { prompt: [5], max_tokens: 1000, ignore_eos: true, temperature: 0 });
  await expect.poll(() => ending.runner.counts.generatedTokens).toBeGreaterThan(0);
  await ending.stop();
  expect((await asked).status).toBe(503);
  expect(ending.errors).toEqual([]);
});

test("counts for Prometheus what was asked and done", async () => {
  const number = async (name: string): Promise<number> =>
    Number(new RegExp(`^${name} (.*)$`, "m").exec((await server.get("/metrics")).body)?.[1]);
  const before = await number("indexcache_generated_tokens_total");
  await complete({ prompt: ids.slice(0, 200), ...greedy, ignore_eos: true });
  expect((await number("indexcache_generated_tokens_total")) - before).toBe(8);
  expect(await number("indexcache_requests_running")).toBe(0);
  expect(await number('indexcache_http_requests_total{path="/v1/completions",status="200"}')).toBeGreaterThan(0);
  await server.get("/made/up/by/a/client");
  expect(await number('indexcache_http_requests_total{path="other",status="404"}')).toBeGreaterThan(0);
});

test("with a key nothing but /health answers without it", async () => {
  const locked = await DemoServer.start({ apiKey: "secret" });
  try {
    expect((await locked.get("/health")).status).toBe(200);
    for (const path of ["/v1/models", "/metrics", "/version", "/server_info", "/tokenizer_info"]) {
      expect((await locked.get(path)).status).toBe(401);
    }
    const rpc = { method: "indexcache_set", args: [quarter] };
    expect((await locked.post("/collective_rpc", rpc)).status).toBe(401);
    expect((await locked.get("/v1/models", { Authorization: "Bearer secrets" })).status).toBe(401);
    expect((await locked.get("/v1/models", { Authorization: "Bearer secret" })).body.data[0].index_topk_pattern).toBe(
      full,
    );
  } finally {
    await locked.stop();
  }
});

describe("several requests at a time", () => {
  test("a short one does not wait for a long one to end, and both answer as they do alone", async () => {
    const long = { prompt: ids.slice(0, 300), temperature: 0, max_tokens: 40, ignore_eos: true };
    const short = { prompt: ids.slice(40, 60), temperature: 0, max_tokens: 3, logprobs: 2 };
    const alone = [told(await complete(short)), told(await complete(long))];
    server.runner.prefixes.clear();
    const ended: string[] = [];
    const ask = async (name: string, body: object): Promise<string> => {
      const answer = told(await complete(body));
      ended.push(name);
      return answer;
    };
    const under = ask("long", long);
    await vi.waitFor(() => expect(server.runner.queue.running).toBe(1));
    expect(await Promise.all([ask("short", short), under])).toEqual(alone);
    expect(ended).toEqual(["short", "long"]);
  });

  test("one that begins as another one does waits for it and reuses its rows", async () => {
    const bodies = [0, 1].map((at) => ({ prompt: [...ids.slice(0, 400), at], temperature: 0, max_tokens: 1 }));
    const answers = await Promise.all(bodies.map(complete));
    const cached = answers.map(({ usage }) => usage.prompt_tokens_details?.cached_tokens ?? 0);
    expect(cached.toSorted((a, b) => a - b)).toEqual([0, 384]);
  });
});
