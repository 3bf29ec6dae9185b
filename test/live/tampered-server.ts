/** Stands between a client and the real server, and changes what comes back: everything that goes wrong is real HTTP. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

interface Exchange {
  path: string;
  // biome-ignore lint/suspicious/noExplicitAny: whatever the client has sent.
  sent: any;
  status: number;
  /** The real answer. */
  text: string;
}

/** What the client gets instead: text, a status, or an answer that this function writes itself. */
export type Tampering = (
  exchange: Exchange,
  response: ServerResponse,
) => { status?: number; text?: string } | undefined;

export class TamperedServer {
  /** Where requests go; another server's address is what a restart looks like. */
  target: string;
  tamper: Tampering;
  /** Paths in the order in which they came. */
  readonly paths: string[] = [];
  readonly #server: Server;

  private constructor(target: string, tamper: Tampering, server: Server) {
    this.target = target;
    this.tamper = tamper;
    this.#server = server;
  }

  static async start(target: string, tamper: Tampering = () => undefined): Promise<TamperedServer> {
    const server = createServer();
    const tampered = new TamperedServer(target, tamper, server);
    server.on("request", (request, response) => void tampered.#answer(request, response));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return tampered;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? "/";
    this.paths.push(path);
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const body = Buffer.concat(parts).toString();
    const headers: Record<string, string> = { "Content-Type": "application/json" };
    const { authorization } = request.headers;
    if (authorization !== undefined) headers.Authorization = authorization;
    try {
      const real = await fetch(this.target + path, {
        method: request.method ?? "GET",
        headers,
        ...(body === "" ? {} : { body }),
      });
      const exchange = {
        path,
        sent: body === "" ? undefined : JSON.parse(body),
        status: real.status,
        text: await real.text(),
      };
      const changed = this.tamper(exchange, response);
      if (response.headersSent || response.destroyed) return;
      response.writeHead(changed?.status ?? real.status, {
        "Content-Type": real.headers.get("content-type") ?? "application/json",
      });
      response.end(changed?.text ?? exchange.text);
    } catch {
      // As a server that is away.
      response.destroy();
    }
  }
}

/** Changes what the kit's method answers, rank by rank. */
export function changeRanks(
  method: string,
  change: (ranks: Record<string, unknown>[]) => Record<string, unknown>[],
): Tampering {
  return ({ path, sent, text }) => {
    if (path !== "/collective_rpc" || sent.method !== method) return undefined;
    return { text: JSON.stringify({ results: change(JSON.parse(text).results) }) };
  };
}
