/** `indexcache serve`: the model behind the OpenAI API. */
import type { Command } from "commander";
import { InterruptedError, UsageError } from "../base/errors.ts";
import { isPublished } from "../formats/published-pattern.ts";
import { isLoopback } from "../live/server-address.ts";
import { fullLayers, type Pattern, parsePattern } from "../pattern/pattern.ts";
import { looksLikePattern } from "../pattern/schedule.ts";
import { formatBytes } from "../report/quantities.ts";
import { availableMemory } from "../runtime/device/host-memory.ts";
import { defaultThreads } from "../runtime/session/onnx-session.ts";
import { ModelRunner } from "../serve/model-runner.ts";
import { ModelServer } from "../serve/model-server.ts";
import { retained, type ServedPattern, ServedPatterns } from "../serve/served-patterns.ts";
import { choice, type Flags, group, option } from "./arguments/declared-option.ts";
import { choosePattern, openDevice } from "./arguments/inputs.ts";
import { modelOptions, openModelToRun, openTokenizer } from "./arguments/opening.ts";
import { addModelArgument, demoModel, deviceOptions, patternOptions, wholeNumber } from "./arguments/options.ts";
import { reportFailure } from "./console/failure.ts";
import type { Terminal } from "./console/terminal.ts";
import { addWork } from "./console/work.ts";
import { patternOfSize } from "./pattern/pattern-of-size.ts";
import { readNamedPattern } from "./pattern/shelf.ts";

const options = [
  ...modelOptions,
  ...patternOptions,
  ...group(
    "Server:",
    option("--host <address>", "where to listen; anything but loopback is reached from other machines", "127.0.0.1"),
    option("--port <n>", "0 takes a free one", portNumber, 8000),
    option("--api-key <key>", "requests must carry it as a bearer token").env("INDEXCACHE_API_KEY"),
    option("--name <name>", "what clients call the model (default: its folder's name)"),
    option(
      "--prefix-cache <MiB>",
      "caches of earlier requests kept for those that begin alike; 0 for none (default: a fifth of the free memory)",
      wholeNumber,
    ),
    option(
      "--dev",
      "also the engines' routes that search --server uses: whoever reaches them changes the pattern of all",
    ),
    choice("--dialect <engine>", "with --dev: whose routes", ["vllm", "sglang", "both"], "both"),
  ),
  ...deviceOptions,
  ...group(
    "What it prints:",
    option("-v, --verbose", "say more on stderr: devices, memory"),
    option("-q, --quiet", "say nothing on stderr but warnings and errors"),
  ),
] as const;

type ServeFlags = Flags<typeof options>;

/** Share of the free memory that is kept for prefixes where `--prefix-cache` does not say. */
const prefixShare = 0.2;
/** Bytes of a request's body: a batch of long prompts as token ids. */
const bodyBytes = 64 << 20;
/** Milliseconds that requests under way have once the server is asked to end: less than SIGTERM leaves in all. */
const grace = 3000;

const help = `
Speaks the OpenAI API: /v1/models, /v1/completions, /v1/chat/completions, and beside it /tokenize, /detokenize,
/tokenizer_info, /health, /version, /metrics. Up to four requests take turns. A request names a pattern by the model's name
("demo@1/4" for a size of the pattern file, "demo@uniform:4", "demo@FSSF...") or by a field "pattern". Requests that begin
alike run their common beginning once. Ctrl-C ends it: requests under way have 3 seconds. docs/serve.md has every endpoint.

Examples:
  $ indexcache serve                                    the demo model at http://127.0.0.1:8000
  $ indexcache serve ./model -p quarter.json --port 8080
  $ indexcache serve ./model --host 0.0.0.0 --api-key "$(cat key.txt)"
  $ indexcache serve --dev --dialect vllm               a stand-in for an engine, to try search --server`;

export function addServeCommand(program: Command): void {
  const command = program.command("serve").description("Serve the model, with a pattern, behind the OpenAI API");
  addModelArgument(command);
  const shown = "pattern host port api-key name prefix-cache dev dialect device threads";
  addWork(command, { options, help, shown, stopping: "Stopping: requests under way are finished" }, serve);
}

async function serve(path = demoModel, flags: ServeFlags, terminal: Terminal): Promise<void> {
  const { signal } = terminal;
  requireSafe(flags, terminal);
  const model = await openModelToRun(path, flags, terminal);
  const pattern = await choosePattern(model, flags);
  const name = flags.name ?? model.config.name;
  const patterns = new ServedPatterns({
    model: name,
    indexers: model.config.indexerLayers,
    pattern,
    ...(await patternsOfFile(flags.pattern)),
  });
  const tokenizer = await openTokenizer(model, terminal, "requests must send token ids");
  const { device, threads = defaultThreads() } = await openDevice(flags, terminal);
  await model.checkWeights();
  const prefixBytes = flags.prefixCache === undefined ? availableMemory() * prefixShare : flags.prefixCache * 2 ** 20;
  const runner = await ModelRunner.open(model, tokenizer, { device, threads, prefixBytes });
  try {
    signal.throwIfAborted();
    const server = await ModelServer.listen(runner, patterns, {
      host: flags.host,
      port: flags.port,
      apiKey: flags.apiKey,
      dialects: flags.dev !== true ? [] : flags.dialect === "both" ? ["vllm", "sglang"] : [flags.dialect],
      bodyBytes,
      report: reportFailure,
    });
    terminal.detail(
      `prefix cache: up to ${formatBytes(prefixBytes)}, ${runner.bytesPerToken(pattern)} bytes a token under this pattern`,
    );
    terminal.note(`serving ${name}, pattern ${pattern} (${retained(pattern, patterns.indexers)} Full), on ${device}`);
    terminal.result(server.url);
    await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    const finished = await server.close(grace);
    if (!finished) throw new InterruptedError("Requests were cut: they had 3 seconds to end");
  } finally {
    await runner.release();
  }
}

/** @throws UsageError for what would open more than its user meant to */
function requireSafe({ host, apiKey, dev, dialect }: ServeFlags, terminal: Terminal): void {
  if (apiKey === "") throw new UsageError("--api-key is empty: leave it out, or give a key");
  if (dev !== true && dialect !== "both") throw new UsageError("--dialect needs --dev");
  if (isLoopback(host) || apiKey !== undefined) return;
  if (dev === true) {
    throw new UsageError(`--dev on ${host} lets every machine that reaches it change the pattern`, {
      hint: "listen on 127.0.0.1, or give --api-key",
    });
  }
  terminal.warn(`${host} is reached from other machines, and without --api-key whoever reaches it can use the model`);
}

/** The sizes of a pattern file, by which requests may ask for them. */
async function patternsOfFile(text: string): Promise<{ named: ServedPattern[]; ofSize?: (retain: string) => Pattern }> {
  if (looksLikePattern(text)) return { named: [] };
  const { path, file } = await readNamedPattern(text);
  if (isPublished(file)) return { named: [] };
  const found = (file.patterns ?? [file]).map(({ index_topk_pattern: letters }) => parsePattern(letters, path));
  return {
    named: found.map((pattern) => ({ name: sizeName(pattern), pattern })),
    ofSize: (retain) => patternOfSize(file, retain, path),
  };
}

/** `1/4` for a pattern with 3 of 12 layers, `5` for one with 5. */
function sizeName(pattern: Pattern): string {
  const full = fullLayers(pattern).length;
  return pattern.length % full === 0 ? `1/${pattern.length / full}` : String(full);
}

function portNumber(text: string): number {
  const port = wholeNumber(text);
  if (port > 65_535) throw new UsageError(`--port is ${port}: ports end at 65535`);
  return port;
}
