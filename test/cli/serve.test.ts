/** `indexcache serve` as a process: where it says it listens, how it ends, what it refuses. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { indexcache, tinyModel } from "./indexcache.ts";

const program = join(import.meta.dirname, "..", "..", "bin", "indexcache.js");

let folder: string;
let running: ChildProcess | undefined;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "indexcache-serve-"));
});
afterEach(() => {
  running?.kill("SIGKILL");
  running = undefined;
});
afterAll(() => rm(folder, { recursive: true }));

/** Starts the server on a free port; its address is the first line of stdout. */
async function start(...args: string[]): Promise<{ url: string; child: ChildProcess; stderr: () => string }> {
  const child = spawn(process.execPath, [program, "serve", "--port", "0", ...args], { cwd: folder });
  running = child;
  let stderr = "";
  child.stderr?.on("data", (block: Buffer) => {
    stderr += block.toString();
  });
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout?.once("data", (block: Buffer) => resolve(block.toString().trim()));
    child.once("close", (code) => reject(new Error(`ended with ${code}: ${stderr}`)));
  });
  return { url, child, stderr: () => stderr };
}

const post = (url: string, body: object) =>
  fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<number | string> {
  child.kill(signal);
  const [code, name] = await once(child, "close");
  return code ?? name;
}

describe("serving", () => {
  test.each(["SIGINT", "SIGTERM"] as const)("ends with 0 at %s", async (signal) => {
    const { url, child, stderr } = await start("-p", "uniform:4");
    expect(stderr()).toContain("serving demo, pattern FSSSFSSSFSSS (3/12 Full), on cpu");
    expect((await fetch(`${url}/health`)).status).toBe(200);
    expect(await end(child, signal)).toBe(0);
    await expect(fetch(`${url}/health`)).rejects.toThrow();
  });

  test("takes a pattern of the package by its name, and requests the other sizes of its file", async () => {
    const { url, stderr } = await start("-p", "indexcache/demo/quarter@1/4");
    expect(stderr()).toMatch(/serving demo, pattern F[FS]{11} \(3\/12 Full\)/);
    expect((await post(`${url}/v1/completions`, { model: "demo@1/2", prompt: "The", max_tokens: 1 })).status).toBe(200);
  });

  test("a client that goes away in its body leaves no word in the log", async () => {
    const { url, child, stderr } = await start();
    const { hostname, port } = new URL(url);
    const head =
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n";
    const socket = connect(Number(port), hostname, () => socket.write(`${head}{"prompt"`, () => socket.destroy()));
    await once(socket, "close");
    await vi.waitFor(async () => {
      expect(await (await fetch(`${url}/metrics`)).text()).toContain('path="/v1/completions",status="503"');
    });
    expect(await end(child, "SIGINT")).toBe(0);
    expect(stderr()).not.toContain("defect");
  });

  /** Asks for so many tokens, and sends SIGTERM once the model is at it. */
  async function endDuring(tokens: number): Promise<{ status: number; body: string; exit: number | string }> {
    const { url, child } = await start();
    const asked = post(`${url}/v1/completions`, { prompt: [5], max_tokens: tokens, ignore_eos: true });
    await expect.poll(async () => (await fetch(`${url}/metrics`)).text()).toContain("indexcache_requests_running 1");
    const exit = await end(child, "SIGTERM");
    const answer = await asked;
    return { status: answer.status, body: await answer.text(), exit };
  }

  test("answers what is under way at the signal before it ends", async () => {
    const { status, body, exit } = await endDuring(24);
    expect(status).toBe(200);
    expect(JSON.parse(body).usage.completion_tokens).toBe(24);
    expect(exit).toBe(0);
  });

  test("cuts what does not end in time, and says so", async () => {
    // 1,024 is all that the model can; no machine makes them in 3 seconds, batch after batch.
    const { url, child, stderr } = await start();
    const prompts = Array.from({ length: 64 }, () => [5]);
    const asked = post(`${url}/v1/completions`, { prompt: prompts, max_tokens: 1000, ignore_eos: true });
    await expect.poll(async () => (await fetch(`${url}/metrics`)).text()).toContain("indexcache_requests_running 1");
    expect(await end(child, "SIGTERM")).toBe(130);
    const answer = await asked;
    expect(answer.status).toBe(503);
    expect(await answer.text()).toContain("shutting down");
    expect(stderr()).toContain("Requests were cut");
  });

  test("serves a model without a tokenizer by token ids", async () => {
    const { url, stderr } = await start(tinyModel);
    expect(stderr()).toContain("has no tokenizer.json: requests must send token ids");
    const byIds = await post(`${url}/v1/completions`, {
      prompt: [1, 2, 3],
      max_tokens: 2,
      logprobs: 0,
      temperature: 0,
    });
    const { choices } = (await byIds.json()) as { choices: { text: string; logprobs: { tokens: string[] } }[] };
    expect(choices[0]?.logprobs.tokens.every((token) => /^token_id:\d+$/.test(token))).toBe(true);
    const byText = await post(`${url}/v1/completions`, { prompt: "x" });
    expect(byText.status).toBe(400);
    expect(await byText.text()).toContain("send token ids instead of text");
    expect((await fetch(`${url}/tokenizer_info`)).status).toBe(404);
  });

  test("takes the key from the environment, and its dialects only with --dev", async () => {
    process.env.INDEXCACHE_API_KEY = "secret";
    try {
      const { url } = await start("--dev", "--dialect", "sglang");
      expect((await fetch(`${url}/server_info`)).status).toBe(401);
      const headers = { Authorization: "Bearer secret" };
      expect((await fetch(`${url}/server_info`, { headers })).status).toBe(200);
      expect((await fetch(`${url}/collective_rpc`, { method: "POST", headers })).status).toBe(404);
    } finally {
      delete process.env.INDEXCACHE_API_KEY;
    }
  });
});

describe("command lines that are refused", () => {
  test.each([
    [["--dev", "--host", "0.0.0.0"], "--dev on 0.0.0.0 lets every machine that reaches it change the pattern"],
    [["--dialect", "vllm"], "--dialect needs --dev"],
    [["--api-key", ""], "--api-key is empty"],
    [["--port", "70000"], "ports end at 65535"],
    [["--host", "192.0.2.1"], "no address 192.0.2.1"],
    [["-p", "FSSS"], "4 letters"],
    [["-p", "nowhere.json"], "nowhere.json"],
    [["./nowhere"], "nowhere"],
  ])("%j", async (args, words) => {
    const { status, stdout, stderr } = await indexcache(folder, ["serve", ...args]);
    expect(status).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).toContain(words);
  });

  test("a port that is taken", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const { port } = other.address() as { port: number };
    const { status, stderr } = await indexcache(folder, ["serve", "--port", String(port)]);
    other.close();
    expect(status).toBe(2);
    expect(stderr).toContain(`error: Port ${port} of 127.0.0.1 is in use`);
  });
});
