/** Counters of a server in Prometheus' text format. */
import process from "node:process";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { clocks } from "../base/clock.ts";
import type { ModelRunner } from "./model-runner.ts";

/** Upper bounds of the histogram of request times, seconds. */
const secondBuckets = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300];

export class ServerMetrics {
  readonly #registry = new Registry();
  readonly #requests: Counter<"path" | "status">;
  readonly #seconds: Histogram<"path">;

  constructor(runner: ModelRunner) {
    const registers = [this.#registry];
    this.#requests = new Counter({
      name: "indexcache_http_requests_total",
      help: "Requests answered, by endpoint and status.",
      labelNames: ["path", "status"],
      registers,
    });
    this.#seconds = new Histogram({
      name: "indexcache_http_request_seconds",
      help: "Time from a request to its answer, waiting included.",
      labelNames: ["path"],
      buckets: secondBuckets,
      registers,
    });
    const { counts, queue, prefixes } = runner;
    const observe = (Kind: typeof Counter | typeof Gauge, name: string, help: string, value: () => number): void => {
      new Kind({
        name,
        help,
        registers,
        collect() {
          this.reset();
          this.inc(value());
        },
      });
    };
    const indexerRuns = () => counts.indexerRuns.reduce((total, runs) => total + runs, 0);
    observe(Counter, "indexcache_prompt_tokens_total", "Tokens of prompts.", () => counts.promptTokens);
    const reused = "Tokens of prompts whose rows came from an earlier request.";
    observe(Counter, "indexcache_prompt_tokens_reused_total", reused, () => counts.reusedTokens);
    observe(Counter, "indexcache_generated_tokens_total", "Tokens generated.", () => counts.generatedTokens);
    const runs = "Runs of indexers, one for each layer and chunk of rows.";
    observe(Counter, "indexcache_indexer_runs_total", runs, indexerRuns);
    observe(Counter, "process_cpu_seconds_total", "CPU time of the server, user and system.", clocks.cpu);
    observe(Gauge, "process_resident_memory_bytes", "Memory of the server.", () => process.memoryUsage.rss());
    const running = "Requests that are under way and take turns at the model.";
    observe(Gauge, "indexcache_requests_running", running, () => queue.running);
    const waiting = "Requests that wait until they may begin.";
    observe(Gauge, "indexcache_requests_waiting", waiting, () => queue.waiting);
    const bytes = "Bytes kept for requests that begin alike.";
    observe(Gauge, "indexcache_prefix_cache_bytes", bytes, () => prefixes.bytes);
    const kept = "Sequences kept for requests that begin alike.";
    observe(Gauge, "indexcache_prefix_cache_sequences", kept, () => prefixes.size);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** @param path the endpoint, never what a client made up */
  count(path: string, status: number, seconds: number): void {
    this.#requests.inc({ path, status });
    this.#seconds.observe({ path }, seconds);
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }
}
