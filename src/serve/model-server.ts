/** The server: a socket, the endpoints, and an orderly end. */
import { randomUUID } from "node:crypto";
import type { Server } from "node:http";
import { type AddressInfo, isIPv6 } from "node:net";
import { createAdaptorServer } from "@hono/node-server";
import { InterruptedError, RuntimeFailure, UsageError } from "../base/errors.ts";
import { systemErrorCode } from "../base/files.ts";
import { type AppSettings, buildApp } from "./app.ts";
import { ServerMetrics } from "./metrics.ts";
import type { ModelRunner } from "./model-runner.ts";
import type { ServedPatterns } from "./served-patterns.ts";

export interface ServerSettings extends AppSettings {
  host: string;
  /** 0 lets the system choose. */
  port: number;
  /** Hears of errors that are no client's fault. */
  report: (error: unknown) => void;
}

export class ModelServer {
  /** Where it listens, for a client. */
  readonly url: string;
  readonly #server: Server;
  readonly #shutdown: AbortController;
  readonly #runner: ModelRunner;

  private constructor(url: string, server: Server, shutdown: AbortController, runner: ModelRunner) {
    this.url = url;
    this.#server = server;
    this.#shutdown = shutdown;
    this.#runner = runner;
  }

  /**
   * Starts to listen.
   * @throws UsageError where the host or the port cannot be had
   */
  static async listen(runner: ModelRunner, patterns: ServedPatterns, settings: ServerSettings): Promise<ModelServer> {
    const { host, port, report } = settings;
    const shutdown = new AbortController();
    const app = buildApp(
      {
        runner,
        patterns,
        metrics: new ServerMetrics(runner),
        bootId: randomUUID(),
        started: Math.floor(Date.now() / 1000),
        shutdown: shutdown.signal,
        report,
      },
      settings,
    );
    const server = createAdaptorServer({ fetch: app.fetch, overrideGlobalObjects: false }) as Server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", (error) => reject(listenFailure(error, host, port)));
      server.listen(port, host, resolve);
    });
    const { address, port: bound } = server.address() as AddressInfo;
    const url = `http://${isIPv6(address) ? `[${address}]` : address}:${bound}`;
    return new ModelServer(url, server, shutdown, runner);
  }

  /**
   * Takes no more requests, and ends once those that are under way are answered, or after `grace`.
   * @param grace milliseconds; requests that are under way then are cut
   * @returns whether every request was answered
   */
  async close(grace: number): Promise<boolean> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    let late = false;
    const timer = setTimeout(() => {
      late = this.#runner.queue.running + this.#runner.queue.waiting > 0;
      this.#shutdown.abort(cut());
      // What was cut still gets its answer.
      setTimeout(() => this.#server.closeAllConnections(), 500).unref();
    }, grace);
    await closed;
    clearTimeout(timer);
    // The last execution may outlive a client that has gone.
    this.#shutdown.abort(cut());
    await this.#runner.queue.run(async () => undefined);
    return !late;
  }
}

/** The reason with which requests end that are under way: their clients are told that the server is. */
const cut = () => new InterruptedError("The server is shutting down");

function listenFailure(error: Error, host: string, port: number): Error {
  const code = systemErrorCode(error);
  if (code === "EADDRINUSE") {
    return new UsageError(`Port ${port} of ${host} is in use`, { hint: "choose another one with --port" });
  }
  if (code === "EACCES") return new UsageError(`Port ${port} of ${host} needs rights that this user does not have`);
  if (code === "EADDRNOTAVAIL" || code === "ENOTFOUND" || code === "EAI_AGAIN") {
    return new UsageError(`This machine has no address ${host}`);
  }
  return new RuntimeFailure(`Cannot listen on ${host}, port ${port}: ${error.message}`, { cause: error });
}
