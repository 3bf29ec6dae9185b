/** Answers through the engines' routes are those of our own arms, whatever happens on the way. */
import { readFile } from "node:fs/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { Tokenizer } from "../../src/checkpoint/tokenizer/tokenizer.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { LiveModel } from "../../src/live/live-model.ts";
import { ServerArms } from "../../src/live/server-arms.ts";
import { type ArmAnswer, Arms, type PromptRequest } from "../../src/runtime/generate/arms.ts";
import { demoModel } from "../cli/indexcache.ts";
import { DemoServer, full, quarter } from "../serve/demo-server.ts";
import { TamperedServer, type Tampering } from "./tampered-server.ts";

const window = 1024;
/** The first pattern comes twice: its second arm shows whether a machine repeats itself. */
const patterns = [full, quarter, full];
const few = 4;
let tokenizer: Tokenizer;
let requests: PromptRequest[];
let own: ArmAnswer[][];
const servers: DemoServer[] = [];
const opened: ServerArms[] = [];
const tampered: TamperedServer[] = [];
const notes: string[] = [];

beforeAll(async () => {
  const model = await openModel(demoModel);
  tokenizer = await Tokenizer.load(demoModel);
  servers.push(await DemoServer.start({ dialects: ["vllm"] }), await DemoServer.start({ dialects: ["sglang"] }));
  requests = await someRequests();
  const arms = await Arms.open(model, tokenizer, patterns, { device: "cpu", threads: 2 });
  own = [];
  for (const request of requests) own.push(await arms.answer(request, patterns));
  await arms.release();
}, 120_000);
afterEach(async () => {
  for (const arms of opened.splice(0)) await arms.release();
  for (const one of tampered.splice(0)) await one.stop();
  notes.length = 0;
});
afterAll(async () => {
  for (const server of servers) await server.stop();
});

/** Longer than index_topk, with every kind of question that an evaluation asks. */
async function someRequests(): Promise<PromptRequest[]> {
  const text = await readFile("calibration/demo.jsonl", "utf8");
  const ids = tokenizer.encode((JSON.parse(text.slice(0, text.indexOf("\n"))) as { text: string }).text);
  const prompt = (start: number): number[] => [...ids.slice(0, 1), ...ids.slice(start, start + 180)];
  const one = (start: number, more: Partial<PromptRequest>): PromptRequest => ({
    prompt: prompt(start),
    maxNewTokens: 12,
    stop: [],
    ...more,
  });
  const labels = ["A", "B", "C", "D"].map((label) => tokenizer.encodePlain(label));
  const space = tokenizer.encodePlain(" ").at(-1) ?? 0;
  return [
    one(1, { answer: { ids: [...prompt(1), ...ids.slice(181, 190)], start: 181 } }),
    one(31, { choices: { shared: [...prompt(31), space], options: labels } }),
    one(61, { choices: { shared: prompt(61), options: [ids.slice(241, 243), ids.slice(11, 14)] } }),
    // The answer begins after tokens that lead it.
    one(91, { answer: { ids: [...prompt(91), ...ids.slice(271, 279)], start: 181, scored: 184 } }),
    one(121, { stop: [".", "the", "e"], maxNewTokens: 30 }),
    one(151, { stopIds: tokenizer.encodePlain("\n").slice(-1), minNewTokens: 4 }),
    one(181, { sampling: { temperature: 0.9, seed: 11 } }),
    { ...one(1, {}), prompt: ids.slice(0, window - 3) },
  ].map((request, item) => ({ item, ...request }));
}

async function open(...urls: string[]): Promise<ServerArms> {
  const note = (words: string): number => notes.push(words);
  const served = await LiveModel.open(urls, { note, pauses: [10, 20], timeout: 60_000 });
  await served.requireSwitchable();
  await served.prepare();
  const arms = new ServerArms(served, tokenizer, { window, concurrency: 2, note });
  opened.push(arms);
  return arms;
}

async function behind(server: DemoServer, tamper: Tampering): Promise<TamperedServer> {
  const one = await TamperedServer.start(server.url, tamper);
  tampered.push(one);
  return one;
}

const answerAll = (arms: ServerArms, some = requests): Promise<ArmAnswer[][]> =>
  Promise.all(some.map((request) => arms.answer(request, patterns)));
/** Of the first requests: enough for two servers and two lanes on each. */
const answerSome = (arms: ServerArms): Promise<ArmAnswer[][]> => answerAll(arms, requests.slice(0, few));

function requireSame(answers: ArmAnswer[][]): void {
  for (const [at, arms] of own.slice(0, answers.length).entries()) {
    for (const [arm, { tokens, text, finish, answerLoss, choices }] of arms.entries()) {
      const there = answers[at]?.[arm] as ArmAnswer;
      expect({ at, tokens: there.tokens, text: there.text, finish: there.finish }).toEqual({
        at,
        tokens,
        text,
        finish,
      });
      expect(there.answerLoss?.tokens).toBe(answerLoss?.tokens);
      if (answerLoss !== undefined) expect(there.answerLoss?.nats).toBeCloseTo(answerLoss.nats, 4);
      expect(there.choices?.length).toBe(choices?.length);
      for (const [option, logprob] of (choices ?? []).entries())
        expect(there.choices?.[option]).toBeCloseTo(logprob, 4);
    }
  }
}

const lettersOf = async (server: DemoServer): Promise<string> => {
  const { body } = await server.get("/server_info");
  return body.internal_states?.[0].indexcache.letters ?? (await rpcLetters(server));
};
const rpcLetters = async (server: DemoServer): Promise<string> =>
  (await server.post("/collective_rpc", { method: "indexcache_describe" })).body.results[0].letters;

describe.each([0, 1])("dialect %s of vLLM and SGLang", (which) => {
  test("answers, ends, losses and choices are our own, and the pattern is given back", async () => {
    const server = servers[which] as DemoServer;
    const arms = await open(server.url);
    requireSame(await answerAll(arms));
    await arms.release();
    expect(await lettersOf(server)).toBe(full);
  }, 120_000);
});

test("a release of vLLM without scores of given tokens is asked for each choice, with the same answers", async () => {
  const old = await behind(servers[0] as DemoServer, ({ path, text }) =>
    path === "/inference/v1/generate"
      ? { text: JSON.stringify({ ...JSON.parse(text), prompt_token_id_logprobs: undefined }) }
      : undefined,
  );
  requireSame(await answerSome(await open(old.url)));
}, 60_000);

test("a lost connection costs one more request and no answer", async () => {
  let lost = 0;
  const shaky = await behind(servers[0] as DemoServer, ({ path }, response) => {
    if (path === "/v1/completions" && lost++ % 3 === 0) response.destroy();
    return undefined;
  });
  requireSame(await answerSome(await open(shaky.url)));
  expect(lost).toBeGreaterThan(few * patterns.length);
}, 60_000);

test("a server that is restarted in mid-batch: the pattern is set again, and all of it asked again", async () => {
  const next = await DemoServer.start({ dialects: ["vllm"] });
  let answers = 0;
  const front = await behind(servers[0] as DemoServer, ({ path }) => {
    // In the second arm, whose pattern the new server does not have.
    if (path === "/v1/completions" && ++answers === few + 2) front.target = next.url;
    return undefined;
  });
  requireSame(await answerSome(await open(front.url)));
  expect(notes.join()).toContain("was restarted; the pattern is set and measured again");
  await opened.pop()?.release();
  await next.stop();
}, 60_000);

test("items are shared by their place; a server that dies leaves its items to the other, all arms anew", async () => {
  const other = await DemoServer.start({ dialects: ["vllm"] });
  const asked: number[] = [];
  const dying: TamperedServer = await behind(other, ({ path, sent }, response) => {
    if (path !== "/v1/completions" || sent.prompt_logprobs !== undefined) return undefined;
    asked.push(requests.findIndex(({ prompt }) => prompt.join() === sent.prompt.join()));
    if (asked.length > 3) {
      response.destroy();
      void dying.stop();
    }
    return undefined;
  });
  requireSame(await answerSome(await open((servers[0] as DemoServer).url, dying.url)));
  expect(asked.every((item) => item % 2 === 1)).toBe(true);
  expect(notes.join()).toContain("the other servers take its items, all arms anew");
  tampered.length = 0;
  await opened.pop()?.release();
  await other.stop();
}, 60_000);

test("a failure ends everything that is under way, and the pattern is given back", async () => {
  let answers = 0;
  const broken = await behind(servers[0] as DemoServer, ({ path }) =>
    path === "/v1/completions" && ++answers === 4
      ? { status: 400, text: '{"error":{"message":"no room"}}' }
      : undefined,
  );
  const arms = await open(broken.url);
  const results = await Promise.allSettled(requests.map((request) => arms.answer(request, patterns)));
  expect(results.every(({ status }) => status === "rejected")).toBe(true);
  expect((results[0] as PromiseRejectedResult).reason.message).toContain('/v1/completions answers 400: "no room"');
  await arms.release();
  expect(await rpcLetters(servers[0] as DemoServer)).toBe(full);
}, 60_000);

test("an interruption ends requests in mid-batch, and no switch comes after the pattern is given back", async () => {
  const controller = new AbortController();
  let isSwitched = false;
  const front = await behind(servers[0] as DemoServer, ({ path, sent }) => {
    if (sent?.method === "indexcache_set") isSwitched = sent.args[0] === quarter;
    if (path === "/v1/completions" && isSwitched) controller.abort(new Error("stop"));
    return undefined;
  });
  const arms = await open(front.url);
  const answers = requests.map((request) => arms.answer(request, patterns, controller.signal));
  await expect(Promise.all(answers)).rejects.toThrow("stop");
  await arms.release();
  const paths = front.paths.length;
  // Nothing is under way any more, here or in front of the server: whatever was sent has come.
  await Promise.allSettled(answers);
  await fetch(`${front.url}/health`);
  expect(front.paths.slice(paths)).toEqual(["/health"]);
  expect(await rpcLetters(servers[0] as DemoServer)).toBe(full);
}, 60_000);

test("an answer without ids of tokens is refused", async () => {
  const textOnly = await behind(servers[0] as DemoServer, ({ path, text }) =>
    path === "/v1/completions" ? { text: text.replaceAll('"token_ids"', '"other"') } : undefined,
  );
  await expect((await open(textOnly.url)).answer(requests[0] as PromptRequest, [full])).rejects.toThrow(
    "gives no ids of the generated tokens",
  );
});
