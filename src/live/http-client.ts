/** Requests to a server: bounded in time and size, tried again where that can help, with errors that say what to do. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Agent } from "undici";
import type { z } from "zod";
import { InputError } from "../base/errors.ts";
import { quoted } from "../base/quoted.ts";
import { LostServer, ServerRefusal, SlowServer } from "./server-error.ts";

export interface ClientSettings {
  apiKey?: string | undefined;
  /** Milliseconds for one request, its answer included. */
  timeout?: number;
  /** Milliseconds between tries, each in turn; their number is that of further tries. */
  pauses?: readonly number[];
  /** Hears why something is tried again. */
  onRetry?: (words: string) => void;
}

export interface RequestSettings {
  body?: unknown;
  signal?: AbortSignal | undefined;
  /** Bytes that an answer may have. */
  most?: number;
  /** No second try: the caller is asking whether there is anybody. */
  once?: boolean;
}

const defaultTimeout = 600_000;
/** Tries of a request that runs into its time limit each time: the server is there, and a pause does not make it faster. */
const slowTries = 2;
const defaultPauses = [500, 1000, 2000, 4000, 8000, 16000] as const;
/** Bytes of an answer that has no reason to be long. */
const usualAnswer = 4 << 20;
/** Bytes of a refusal that are looked at. */
const refusalBytes = 64 << 10;

/** Statuses that a later try may not meet: time-outs, overload, a proxy whose server is away. */
const passing = new Set([408, 425, 429, 502, 503, 504]);

export class HttpClient {
  readonly url: string;
  readonly #settings: ClientSettings;
  #agent: Agent | undefined;

  constructor(url: string, settings: ClientSettings = {}) {
    this.url = url;
    this.#settings = settings;
  }

  /**
   * Asks for JSON.
   * @throws LostServer where there is no whole answer after all tries
   * @throws ServerRefusal for any status but 2xx
   * @throws InputError for an answer that is not what the endpoint gives: another program's
   */
  async json<T>(method: "GET" | "POST", path: string, schema: z.ZodType<T>, request: RequestSettings = {}): Promise<T> {
    return this.#retrying(method, path, request, (text) => {
      const parsed = schema.safeParse(this.#parse(path, text));
      if (parsed.success) return parsed.data;
      const issue = parsed.error.issues[0];
      const where = issue === undefined || issue.path.length === 0 ? "" : ` at "${issue.path.join(".")}"`;
      throw new InputError(
        `${this.url}${path} answers otherwise than vLLM and SGLang do${where}: ${issue?.message ?? "another shape"}`,
        { hint: "is another program listening there, or a release that this one does not know?" },
      );
    });
  }

  /** Asks for text, or for nothing but a status. */
  async text(method: "GET" | "POST", path: string, request: RequestSettings = {}): Promise<string> {
    return this.#retrying(method, path, request, (text) => text);
  }

  async close(): Promise<void> {
    await this.#agent?.destroy();
  }

  async #retrying<T>(method: string, path: string, request: RequestSettings, read: (text: string) => T): Promise<T> {
    const { pauses = defaultPauses, onRetry } = this.#settings;
    let slow = 0;
    for (let attempt = 0; ; attempt++) {
      try {
        return read(await this.#once(method, path, request));
      } catch (error) {
        request.signal?.throwIfAborted();
        slow = error instanceof SlowServer ? slow + 1 : 0;
        const pause = request.once === true || slow >= slowTries ? undefined : pauses[attempt];
        const again = error instanceof LostServer || (error instanceof ServerRefusal && passing.has(error.status));
        if (!again || pause === undefined) throw error;
        onRetry?.(`${error.message}; trying again in ${pause / 1000} s`);
        await sleep(pause, undefined, request.signal === undefined ? {} : { signal: request.signal }).catch(
          () => undefined,
        );
        request.signal?.throwIfAborted();
      }
    }
  }

  async #once(method: string, path: string, { body, signal, most = usualAnswer }: RequestSettings): Promise<string> {
    const { apiKey, timeout = defaultTimeout } = this.#settings;
    // Loaded here: most commands that can ask a server are given a model in a folder.
    const { Agent, fetch } = await import("undici");
    // Time is limited here; the library's own limit of 300 s between bytes is too short for a long prefill.
    this.#agent ??= new Agent({ headersTimeout: 0, bodyTimeout: 0, connect: { timeout: 10_000 } });
    const limit = AbortSignal.timeout(timeout);
    try {
      const response = await fetch(this.url + path, {
        method,
        redirect: "error",
        dispatcher: this.#agent,
        signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
        headers: {
          ...(body === undefined ? {} : { "Content-Type": "application/json" }),
          ...(apiKey === undefined ? {} : { Authorization: `Bearer ${apiKey}` }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await this.#read(response.body, path, response.ok ? most : refusalBytes, response.ok);
      if (!response.ok) throw this.#refusal(path, response.status, text);
      return text;
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof ServerRefusal || error instanceof InputError) throw error;
      if (limit.aborted) {
        throw new SlowServer(`${this.url}${path} has not answered in ${Math.round(timeout / 1000)} s`, {
          hint: "a slow server is given more with --timeout",
        });
      }
      throw new LostServer(`${this.url}${path}: ${reasonOf(error)}`, { hint: hintOf(error), cause: error });
    }
  }

  /** Reads no further than `most` bytes: an answer without an end must not take the memory. */
  async #read(body: AsyncIterable<Uint8Array> | null, path: string, most: number, whole: boolean): Promise<string> {
    const parts: Uint8Array[] = [];
    let bytes = 0;
    for await (const part of body ?? []) {
      bytes += part.byteLength;
      parts.push(part);
      if (bytes <= most) continue;
      if (!whole) break;
      throw new InputError(
        `${this.url}${path} answers with more than ${most.toLocaleString("en-US")} bytes, which is more than was asked for`,
      );
    }
    return Buffer.concat(parts).toString("utf8");
  }

  #parse(path: string, text: string): unknown {
    try {
      return JSON.parse(text);
    } catch (error) {
      // Python writes these; JSON has no such words.
      if (/[[,:]\s*-?(NaN|Infinity)\b/.test(text)) {
        throw new InputError(`${this.url}${path} answers with numbers that are not finite (NaN or Infinity)`, {
          hint: "the model computes no log-probabilities there: look at its dtype, and at what the server logs",
        });
      }
      const start = text.trimStart().slice(0, 1);
      if (start !== "{" && start !== "[") {
        throw new InputError(`${this.url}${path} does not answer with JSON but with ${quoted(text, 80)}`, {
          hint: "is another program listening there?",
        });
      }
      throw new LostServer(`${this.url}${path}: the answer ends in the middle, after ${text.length} characters`, {
        cause: error,
      });
    }
  }

  #refusal(path: string, status: number, text: string): Error {
    const said = saidIn(text);
    const about = `${this.url}${path} answers ${status}${said === "" ? "" : `: ${quoted(said)}`}`;
    if (status === 401 || status === 403) {
      const key = this.#settings.apiKey === undefined ? "a key is missing" : "the key is not accepted";
      return new ServerRefusal(`${about}; ${key}`, status, { hint: "give --api-key, or INDEXCACHE_API_KEY" });
    }
    return new ServerRefusal(about, status);
  }
}

function reasonOf(error: unknown): string {
  const code = codeOf(error);
  if (code === "ECONNREFUSED") return "nobody listens there";
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") return "there is no such host";
  if (code === "UND_ERR_CONNECT_TIMEOUT" || code === "ETIMEDOUT") return "no connection in 10 s";
  if (code === "EHOSTUNREACH" || code === "ENETUNREACH") return "the host is out of reach";
  if (code === "ECONNRESET" || code === "UND_ERR_SOCKET" || code === "EPIPE") return "the connection was cut";
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const message = cause instanceof Error ? cause.message : String(cause);
  return message === "unexpected redirect" ? "it redirects elsewhere, which is not followed" : message;
}

function hintOf(error: unknown): string {
  return codeOf(error) === "ECONNREFUSED"
    ? "is the server up, and is this its port? `indexcache kit` prints the command that starts it"
    : "look at what the server logs";
}

function codeOf(error: unknown): string | undefined {
  const cause = error instanceof Error ? (error.cause ?? error) : undefined;
  return cause instanceof Error && "code" in cause ? String(cause.code) : undefined;
}

/** The sentence in an error of the OpenAI shape, FastAPI's, or the beginning of whatever it is. */
function saidIn(text: string): string {
  try {
    const body = JSON.parse(text) as { error?: { message?: unknown } | string; message?: unknown; detail?: unknown };
    const inner = typeof body.error === "object" ? body.error.message : body.error;
    const said = inner ?? body.message ?? body.detail;
    if (said !== undefined) return typeof said === "string" ? said : JSON.stringify(said);
  } catch {
    // Not JSON: shown as it is.
  }
  return text
    .replace(/<[^>]*>/g, " ")
    .replace(/\s+/g, " ")
    .trim();
}
