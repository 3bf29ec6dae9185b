/** The real server with the demo model's weights, on a free port, asked over HTTP. */
import { Tokenizer } from "../../src/checkpoint/tokenizer/tokenizer.ts";
import { type ModelFolder, openModel } from "../../src/graph/model-folder.ts";
import { parsePattern } from "../../src/pattern/pattern.ts";
import { ModelRunner } from "../../src/serve/model-runner.ts";
import { ModelServer, type ServerSettings } from "../../src/serve/model-server.ts";
import { ServedPatterns } from "../../src/serve/served-patterns.ts";
import { demoModel } from "../cli/indexcache.ts";

export const quarter = parsePattern("FSSSFSSSFSSS");
export const full = parsePattern("FFFFFFFFFFFF");

export interface Answer {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: a client reads what came.
  body: any;
}

export class DemoServer {
  readonly model: ModelFolder;
  readonly tokenizer: Tokenizer;
  readonly runner: ModelRunner;
  readonly errors: unknown[];
  readonly #server: ModelServer;

  private constructor(
    model: ModelFolder,
    tokenizer: Tokenizer,
    runner: ModelRunner,
    server: ModelServer,
    errors: unknown[],
  ) {
    this.model = model;
    this.tokenizer = tokenizer;
    this.runner = runner;
    this.#server = server;
    this.errors = errors;
  }

  static async start(settings: Partial<ServerSettings> = {}): Promise<DemoServer> {
    const model = await openModel(demoModel);
    const tokenizer = await Tokenizer.load(model.path);
    const runner = await ModelRunner.open(model, tokenizer, { device: "cpu", threads: 1, prefixBytes: 64 << 20 });
    const patterns = new ServedPatterns({
      model: "demo",
      indexers: model.config.indexerLayers,
      pattern: full,
      named: [{ name: "1/4", pattern: quarter }],
    });
    const errors: unknown[] = [];
    const server = await ModelServer.listen(runner, patterns, {
      host: "127.0.0.1",
      port: 0,
      dialects: ["vllm", "sglang"],
      bodyBytes: 1 << 20,
      report: (error) => errors.push(error),
      ...settings,
    });
    return new DemoServer(model, tokenizer, runner, server, errors);
  }

  get url(): string {
    return this.#server.url;
  }

  async get(path: string, headers: Record<string, string> = {}): Promise<Answer> {
    return await read(await fetch(this.url + path, { headers }));
  }

  async post(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    return await read(
      await fetch(this.url + path, {
        method: "POST",
        headers: { "Content-Type": "application/json", ...headers },
        body: typeof body === "string" ? body : JSON.stringify(body),
      }),
    );
  }

  /** The events of a streamed answer, without the `[DONE]` that must end it. */
  async stream(path: string, body: Record<string, unknown>): Promise<Answer["body"][]> {
    const response = await fetch(this.url + path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...body, stream: true }),
    });
    const events = (await response.text()).split("\n\n").filter((event) => event !== "");
    if (events.pop() !== "data: [DONE]") throw new Error("the stream has no end");
    return events.map((event) => JSON.parse(event.replace(/^data: /, "")));
  }

  async stop(): Promise<void> {
    await this.#server.close(0);
    await this.runner.release();
  }
}

async function read(response: Response): Promise<Answer> {
  const text = await response.text();
  const isJson = response.headers.get("content-type")?.includes("json") === true;
  return { status: response.status, body: isJson ? JSON.parse(text) : text };
}

/** The mean negative log-probability. */
export function meanLoss(logprobs: readonly number[]): number {
  return -logprobs.reduce((total, logprob) => total + logprob, 0) / logprobs.length;
}
