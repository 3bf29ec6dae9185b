/** Where a server is, as a user writes it. */
import { UsageError } from "../base/errors.ts";
import { quoted } from "../base/quoted.ts";

/**
 * Reads `--server`: one address, or several with commas between.
 * @param allowRemote whether hosts other than this machine are meant
 * @returns addresses without a slash at their end
 */
export function parseServers(text: string, allowRemote: boolean): string[] {
  const servers = text.split(",").map((one) => parseServer(one.trim(), allowRemote));
  const twice = servers.find((one, index) => servers.indexOf(one) !== index);
  if (twice !== undefined) throw new UsageError(`--server names ${quoted(twice)} twice`);
  return servers;
}

function parseServer(text: string, allowRemote: boolean): string {
  const example = { hint: "an address looks like http://127.0.0.1:8000" };
  // `localhost:8000` parses as a URL of the scheme "localhost".
  const url = /^https?:\/\//i.test(text) && URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined) throw new UsageError(`--server is ${quoted(text)}, which is no http address`, example);
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw new UsageError(
      `--server is ${quoted(`${url.origin}${url.pathname}`)} with a password, a query or a fragment`,
      { hint: "a key is given as --api-key" },
    );
  }
  if (!allowRemote && !isLoopback(url.hostname)) {
    throw new UsageError(`--server is on ${quoted(url.hostname)}, which is not this machine`, {
      hint: "whoever reaches a server in development mode can run code there (docs/serving.md): give --allow-remote if that network is trusted, or tunnel: ssh -L 8000:127.0.0.1:8000 host",
    });
  }
  // The OpenAI libraries take the address with /v1.
  const path = url.pathname.replace(/\/+$/, "").replace(/\/v1$/, "");
  return `${url.origin}${path}`;
}

/** Is it this machine? @param host as a URL has it, or as one listens on it */
export function isLoopback(host: string): boolean {
  return host === "localhost" || /^\[?::1\]?$/.test(host) || /^127(\.\d{1,3}){3}$/.test(host);
}
