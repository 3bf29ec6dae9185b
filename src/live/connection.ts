/** Finds out which engine is behind an address. */
import { z } from "zod";
import { InputError } from "../base/errors.ts";
import { quoted } from "../base/quoted.ts";
import type { EngineAdapter } from "./engine-adapter.ts";
import { type ClientSettings, HttpClient } from "./http-client.ts";
import { ServerRefusal } from "./server-error.ts";
import { SglangAdapter } from "./sglang.ts";
import { extensionHint, VllmAdapter } from "./vllm.ts";

/** What `/server_info` tells: both engines have it, vLLM in development mode alone. */
const infoSchema = z.object({
  vllm_config: z
    .union([
      z.string(),
      z.object({ parallel_config: z.object({ worker_extension_cls: z.string().nullish() }).nullish() }),
    ])
    .optional(),
  internal_states: z.array(z.unknown()).optional(),
});

/**
 * @throws LostServer where nobody answers
 * @throws ServerRefusal where the key is wrong
 * @throws InputError for a server that is neither, has no development routes, or lacks the kit
 */
export async function connect(url: string, settings: ClientSettings, signal?: AbortSignal): Promise<EngineAdapter> {
  const client = new HttpClient(url, settings);
  try {
    const info = await serverInfo(client, signal);
    if (info?.vllm_config !== undefined) {
      requireExtension(url, info.vllm_config);
      return new VllmAdapter(client);
    }
    if (info?.internal_states !== undefined) return new SglangAdapter(client);
    throw await whatElse(client, signal);
  } catch (error) {
    await client.close();
    throw error;
  }
}

async function serverInfo(
  client: HttpClient,
  signal: AbortSignal | undefined,
): Promise<z.infer<typeof infoSchema> | undefined> {
  // As text vLLM shows only a part of its configuration, but always.
  for (const path of ["/server_info?config_format=json", "/server_info"]) {
    try {
      return await client.json("GET", path, infoSchema, { signal, once: true });
    } catch (error) {
      if (!(error instanceof ServerRefusal) || error.status === 401 || error.status === 403) throw error;
      if (error.status === 404) return undefined;
    }
  }
  return undefined;
}

/**
 * Before a worker is asked for a method that it may lack: under tensor parallelism that ends vLLM's engine.
 */
function requireExtension(url: string, config: NonNullable<z.infer<typeof infoSchema>["vllm_config"]>): void {
  const extension = typeof config === "string" ? undefined : config.parallel_config?.worker_extension_cls;
  if (extension == null || extension.startsWith("indexcache_live.")) return;
  throw new InputError(
    extension === ""
      ? `${url} is vLLM without the kit's worker extension`
      : `${url} is vLLM with another worker extension than the kit's: ${quoted(extension)}`,
    { hint: extensionHint },
  );
}

async function whatElse(client: HttpClient, signal: AbortSignal | undefined): Promise<InputError> {
  const { url } = client;
  try {
    await client.text("GET", "/v1/models", { signal, once: true });
  } catch (error) {
    if (!(error instanceof ServerRefusal) || error.status === 401 || error.status === 403) throw error;
    return new InputError(`${url} is no server of vLLM or SGLang: /v1/models answers ${error.status}`, {
      hint: "the address is that of the server itself, such as http://127.0.0.1:8000",
    });
  }
  return new InputError(
    `${url} serves a model but has no /server_info and no /collective_rpc: development mode is off`,
    {
      hint: "start vLLM with VLLM_SERVER_DEV_MODE=1 (`indexcache kit FOLDER` prints the whole command), on a host that only trusted machines reach",
    },
  );
}
