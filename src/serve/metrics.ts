/** Counters of a server in Prometheus' text format. */
import process from "node:process";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
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
    const counter = (name: string, help: string, value: () => number): void => {
      new Counter({
        name,
        help,
        registers,
        collect() {
          this.reset();
          this.inc(value());
        },
      });
    };
    const gauge = (name: string, help: string, value: () => number): void => {
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(value());
        },
      });
    };
    counter("indexcache_prompt_tokens_total", "Tokens of prompts.", () => counts.promptTokens);
    counter(
      "indexcache_prompt_tokens_reused_total",
      "Tokens of prompts whose rows came from an earlier request.",
      () => counts.reusedTokens,
    );
    counter("indexcache_generated_tokens_total", "Tokens generated.", () => counts.generatedTokens);
    counter("indexcache_indexer_runs_total", "Runs of indexers, one for each layer and chunk of rows.", () =>
      counts.indexerRuns.reduce((total, runs) => total + runs, 0),
    );
    counter("process_cpu_seconds_total", "CPU time of the server, user and system.", () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1e6;
    });
    gauge("process_resident_memory_bytes", "Memory of the server.", () => process.memoryUsage.rss());
    gauge(
      "indexcache_requests_running",
      "Requests that are under way and take turns at the model.",
      () => queue.running,
    );
    gauge("indexcache_requests_waiting", "Requests that wait until they may begin.", () => queue.waiting);
    gauge("indexcache_prefix_cache_bytes", "Bytes kept for requests that begin alike.", () => prefixes.bytes);
    gauge("indexcache_prefix_cache_sequences", "Sequences kept for requests that begin alike.", () => prefixes.size);
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
