/** Which ONNX Runtime computes, for results. */
import { createRequire } from "node:module";
import { z } from "zod";

export function runtimeName(): string {
  const manifest: unknown = createRequire(import.meta.url)("onnxruntime-node/package.json");
  return `onnxruntime-node ${z.object({ version: z.string() }).parse(manifest).version}`;
}
