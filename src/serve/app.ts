/** All endpoints, with what holds for each of them: keys, limits, the shape of errors, counters. */
import { createHash, timingSafeEqual } from "node:crypto";
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { toolVersion } from "../base/version.ts";
import { ApiError, asApiError, errorBody } from "./api-error.ts";
import { addChatRoute } from "./chat.ts";
import { addCompletionsRoute } from "./completions.ts";
import { PatternSwitch } from "./dev/pattern-switch.ts";
import { addSglangRoutes, sglangServerInfo } from "./dev/sglang.ts";
import { addVllmRoutes, vllmServerInfo } from "./dev/vllm.ts";
import type { ServerContext } from "./server-context.ts";
import { TokenTexts } from "./token-text.ts";
import { addTokenizerRoutes } from "./tokenizer-routes.ts";

export type ApiDialect = "vllm" | "sglang";

export interface AppSettings {
  apiKey?: string | undefined;
  /** Engines whose routes for development are served as well. */
  dialects: readonly ApiDialect[];
  /** Bytes that a request's body may have. */
  bodyBytes: number;
}

/** Endpoints that answer without a key: whether the server is there is no secret. */
const open = new Set(["/health", "/ping"]);

export function buildApp(context: ServerContext, { apiKey, dialects, bodyBytes }: AppSettings): Hono {
  const { runner, patterns, metrics } = context;
  const app = new Hono();
  const texts = new TokenTexts(runner.tokenizer);

  app.onError((error, c) => {
    const known = asApiError(error);
    if (known.status === 500) context.report(error);
    // The rest of the body is not read: no other request can follow it on this connection.
    if (known.status === 413) c.header("Connection", "close");
    return c.json(errorBody(known), known.status);
  });
  app.notFound((c) => {
    const message = `There is no ${c.req.method} ${c.req.path.slice(0, 200)} here`;
    return c.json(errorBody(new ApiError(404, message)), 404);
  });
  app.use(async (c, next) => {
    const started = performance.now();
    await next();
    const known = app.routes.some(({ path }) => path === c.req.path);
    metrics.count(known ? c.req.path : "other", c.res.status, (performance.now() - started) / 1000);
  });
  app.use(async (c, next) => {
    if (apiKey !== undefined && !open.has(c.req.path)) requireKey(c, apiKey);
    await next();
  });
  app.use(
    bodyLimit({
      maxSize: bodyBytes,
      onError: () => {
        throw new ApiError(413, `The body is larger than ${bodyBytes} bytes, which is what this server takes`);
      },
    }),
  );

  app.on("GET", [...open], (c) => c.body(null, 200));
  app.get("/version", (c) => c.json({ version: toolVersion }));
  app.get("/metrics", async (c) => c.body(await metrics.text(), 200, { "Content-Type": metrics.contentType }));
  app.get("/v1/models", (c) =>
    c.json({
      object: "list",
      data: patterns.listed.map(({ id, pattern }) => ({
        id,
        object: "model",
        created: context.started,
        owned_by: "indexcache",
        root: patterns.model,
        parent: id === patterns.model ? null : patterns.model,
        max_model_len: runner.config.maxPositionEmbeddings,
        index_topk_pattern: pattern,
      })),
    }),
  );
  addCompletionsRoute(app, context, texts);
  addChatRoute(app, context, texts);
  addTokenizerRoutes(app, context, texts);

  const patternSwitch = new PatternSwitch(context);
  if (dialects.includes("vllm")) addVllmRoutes(app, context, texts, patternSwitch);
  if (dialects.includes("sglang")) addSglangRoutes(app, context, patternSwitch);
  // Both engines have this route: with both dialects the answer has the fields of both.
  const infos = [
    ...(dialects.includes("vllm") ? [() => vllmServerInfo(context)] : []),
    ...(dialects.includes("sglang") ? [() => sglangServerInfo(context, patternSwitch)] : []),
  ];
  if (infos.length > 0) app.get("/server_info", (c) => c.json(Object.assign({}, ...infos.map((info) => info()))));
  return app;
}

function requireKey(c: Context, apiKey: string): void {
  const given = /^Bearer (.*)$/i.exec(c.req.header("authorization") ?? "")?.[1] ?? "";
  // Digests are equally long, so that the comparison takes the same time for every key.
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  if (!timingSafeEqual(digest(given), digest(apiKey))) {
    throw new ApiError(401, "The API key is missing or wrong: send it as Authorization: Bearer KEY");
  }
}
