/** What results say about the library that computed them. */
import { createRequire } from "node:module";
import { z } from "zod";

const manifest: unknown = createRequire(import.meta.url)("onnxruntime-node/package.json");

export const runtimeName = `onnxruntime-node ${z.object({ version: z.string() }).parse(manifest).version}`;
