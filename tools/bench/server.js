/**
 * `indexcache serve` beside direct evaluation on the same windows in one run: the server in a process of its own, asked in
 * turn with this process, so that a noisy machine is noisy for both. Every answer is compared with what was computed here.
 */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { openLossEvaluator } from "../../dist/runtime/loss/loss-evaluator.js";
import { requireExecutions } from "../executions.js";
import { calibrationWindows } from "./search.js";

const program = fileURLToPath(new URL("../../bin/indexcache.js", import.meta.url));
/** Means of float32 losses, and of the float64 ones that the API tells. */
const tolerance = 1e-6;

export async function measureServer(model, { threads, sequences }) {
  const length = Math.min(1024, model.config.maxPositionEmbeddings);
  const windows = await calibrationWindows(model, length, sequences);
  const evaluator = await openLossEvaluator(model, windows, { device: "cpu", threads, workers: 1 });
  const server = await start(model.path, threads);
  try {
    const pattern = model.config.indexerLayers;
    const direct = { cpu: 0, seconds: 0 };
    const ways = scoringWays.map((way) => ({ ...way, cpu: 0, serverCpu: 0, seconds: 0, bytes: 0, difference: 0 }));
    for (const [index, window] of [windows[0], ...windows].entries()) {
      const at = Math.max(0, index - 1);
      const own = await measured(server, () => evaluator.evaluate(pattern, { sequences: [at], afresh: true }));
      const [{ loss }] = own.result.sequences;
      requireExecutions(
        `direct evaluation of window ${at}`,
        { bodies: own.result.executions.body, served: own.served },
        { bodies: model.config.numHiddenLayers, served: 0 },
      );
      // The first window warms both sides up.
      if (index > 0) add(direct, { cpu: own.cpu, seconds: own.seconds });
      for (const way of ways) {
        await server.post("/reset_prefix_cache", {});
        const asked = await measured(server, () => server.post(way.path, way.body([...window])));
        requireExecutions(`${way.title}, window ${at}`, { tokens: asked.served }, { tokens: window.length });
        const difference = Math.abs(way.loss(asked.result.body, [...window]) - loss);
        if (!(difference < tolerance)) throw new Error(`${way.title}: the loss is off by ${difference}`);
        way.difference = Math.max(way.difference, difference);
        if (index === 0) continue;
        add(way, { cpu: asked.cpu + asked.serverCpu, serverCpu: asked.serverCpu, seconds: asked.seconds });
        way.bytes += asked.result.bytes;
      }
    }
    return {
      length,
      sequences: windows.length,
      direct,
      ways,
      prefix: await measurePrefix(server, windows),
      turns: await measureTurns(server, windows[0]),
      small: await measureSmall(server, windows[0]),
    };
  } finally {
    await server.stop();
    await evaluator.release();
  }
}

const mean = (logprobs) => -logprobs.reduce((sum, value) => sum + value, 0) / logprobs.length;

/** A matrix of one column in NumPy's format. */
function column(base64) {
  const bytes = Buffer.from(base64, "base64");
  const start = 10 + bytes.readUInt16LE(8);
  return [...new Float32Array(bytes.buffer.slice(bytes.byteOffset + start, bytes.byteOffset + bytes.length))];
}

const scoringWays = [
  {
    title: "/v1/completions, prompt_logprobs 0",
    path: "/v1/completions",
    body: (prompt) => ({ prompt, max_tokens: 1, temperature: 0, prompt_logprobs: 0 }),
    loss: ({ choices: [{ prompt_logprobs: rows }] }, ids) =>
      mean(rows.slice(1).map((row, index) => row[ids[index + 1]].logprob)),
  },
  {
    title: "/v1/completions, echo, logprobs 1 (lm-eval)",
    path: "/v1/completions",
    body: (prompt) => ({ prompt, max_tokens: 1, temperature: 0, logprobs: 1, echo: true }),
    loss: ({ choices: [{ logprobs }] }) => mean(logprobs.token_logprobs.slice(1, -1)),
  },
  {
    title: "/inference/v1/generate (vLLM)",
    path: "/inference/v1/generate",
    body: (token_ids) => ({
      token_ids,
      sampling_params: {
        max_tokens: 1,
        temperature: 0,
        prompt_logprob_token_ids: token_ids.slice(1).map((id) => [id]),
      },
    }),
    loss: (body) => mean(column(body.prompt_token_id_logprobs)),
  },
  {
    title: "/generate (SGLang)",
    path: "/generate",
    body: (input_ids) => ({
      input_ids,
      sampling_params: { max_new_tokens: 1, temperature: 0 },
      return_logprob: true,
      logprob_start_len: 0,
    }),
    loss: ({ meta_info }) => mean(meta_info.input_token_logprobs.slice(1).map(([logprob]) => logprob)),
  },
];

/** Four answers after one context: with an empty cache each, and one after the other. */
async function measurePrefix(server, windows) {
  const context = windows[0].length - 16;
  const prompts = [1, 2, 3, 4].map((option) => [
    ...windows[0].slice(0, context),
    ...windows.at(-1).slice(option, option + 4),
  ]);
  const ask = async (prompt) => {
    const { body } = await server.post("/v1/completions", {
      prompt,
      max_tokens: 1,
      temperature: 0,
      logprobs: 1,
      echo: true,
    });
    return { told: JSON.stringify(body.choices), rows: prompt.length - body.usage.prompt_tokens_details.cached_tokens };
  };
  const rows = [];
  for (const [title, resets] of [
    ["each alone", true],
    ["one after the other", false],
  ]) {
    await server.post("/reset_prefix_cache", {});
    const run = await measured(server, async () => {
      const answers = [];
      for (const prompt of prompts) {
        answers.push(await ask(prompt));
        if (resets) await server.post("/reset_prefix_cache", {});
      }
      return answers;
    });
    const told = run.result.reduce((sum, answer) => sum + answer.rows, 0);
    requireExecutions(`four answers ${title}`, { rows: run.served }, { rows: told });
    rows.push({
      title,
      rows: told,
      cpu: run.serverCpu,
      seconds: run.seconds,
      told: run.result.map(({ told }) => told).join(),
    });
  }
  return { context, rows: rows.map((row) => ({ ...row, identical: row.told === rows[0].told })) };
}

/** A short request that comes right after a long one: how long it takes, and what both of them take, answers compared. */
async function measureTurns(server, window) {
  const ask = (body) => async () => {
    const started = performance.now();
    const answer = await server.post("/v1/completions", { temperature: 0, ...body });
    return { told: JSON.stringify(answer.body.choices), seconds: (performance.now() - started) / 1000 };
  };
  const long = ask({ prompt: [...window.slice(0, 256)], max_tokens: 128, ignore_eos: true });
  const short = ask({ prompt: [...window.slice(300, 330)], max_tokens: 1 });
  const ways = [
    ["the short one alone", async () => [await short()]],
    ["after the long one has ended", async () => [await long(), await short()]],
    ["in turn with the long one", () => Promise.all([long(), short()])],
  ];
  const rows = ways.map(([title]) => ({ title, waited: 0, seconds: 0, cpu: 0, told: [] }));
  await ways[1][1]();
  // Several times in turn: what else the machine does meets all of them alike.
  for (let pass = 0; pass < 3; pass++) {
    for (const [at, [title, way]] of ways.entries()) {
      await server.post("/reset_prefix_cache", {});
      const { result, seconds, serverCpu } = await measured(server, way);
      const waited = title.startsWith("after") ? seconds : result.at(-1).seconds;
      add(rows[at], { waited, seconds, cpu: serverCpu });
      rows[at].told.push(...result.map(({ told }) => told));
    }
  }
  const [, after, turns] = rows;
  return rows.map((row) => ({ ...row, identical: row !== turns || turns.told.join() === after.told.join() }));
}

/** What a request costs that asks for next to nothing. */
async function measureSmall(server, window) {
  const one = { prompt: [window[1]], max_tokens: 1, temperature: 0 };
  const timed = async (title, count, parallel, work) => {
    await work();
    const started = performance.now();
    for (let done = 0; done < count; done += parallel) await Promise.all(Array.from({ length: parallel }, work));
    return { title, count, seconds: (performance.now() - started) / 1000 };
  };
  const complete = async () => {
    const { body } = await server.post("/v1/completions", one);
    if (body.usage.completion_tokens !== 1) throw new Error("a small request was not answered");
  };
  return [
    await timed("GET /health", 200, 1, () => fetch(`${server.url}/health`).then((response) => response.text())),
    await timed("one token after one, one at a time", 100, 1, complete),
    await timed("one token after one, eight at a time", 104, 8, complete),
  ];
}

function add(total, part) {
  for (const [name, value] of Object.entries(part)) total[name] += value;
}

/** Seconds, CPU time of this process and of the server's, and prompt tokens that the server ran, not reused. */
async function measured(server, work) {
  const before = await server.counters();
  const cpu = process.cpuUsage();
  const started = performance.now();
  const result = await work();
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const after = await server.counters();
  const served = after.tokens - before.tokens;
  return { result, seconds, cpu: (user + system) / 1e6, serverCpu: after.cpu - before.cpu, served };
}

async function start(path, threads) {
  const args = [
    program,
    "serve",
    path,
    "--dev",
    "--dialect",
    "both",
    "--port",
    "0",
    "--threads",
    String(threads),
    "-q",
  ];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
  let words = "";
  child.stderr.on("data", (block) => {
    words += block.toString();
  });
  const url = await new Promise((resolve, reject) => {
    child.stdout.once("data", (block) => resolve(block.toString().trim()));
    child.once("exit", (code) => reject(new Error(`the server ended with ${code}: ${words}`)));
  });
  return {
    url,
    async post(where, body) {
      const headers = { "Content-Type": "application/json" };
      const response = await fetch(url + where, { method: "POST", headers, body: JSON.stringify(body) });
      const text = await response.text();
      if (!response.ok) throw new Error(`${where}: ${text}`);
      return { body: JSON.parse(text), bytes: text.length };
    },
    async counters() {
      const text = await (await fetch(`${url}/metrics`)).text();
      const total = (name) => Number(new RegExp(`^${name}_total (.*)$`, "m").exec(text)?.[1]);
      const tokens = total("indexcache_prompt_tokens") - total("indexcache_prompt_tokens_reused");
      return { cpu: total("process_cpu_seconds"), tokens };
    },
    stop: () =>
      new Promise((resolve) => {
        child.once("exit", resolve);
        child.kill("SIGTERM");
      }),
  };
}
