/** Every serving engine that indexcache writes patterns for. */
import { atom } from "./atom.ts";
import type { Dialect, EngineName } from "./dialect.ts";
import { sglang } from "./sglang.ts";
import { tensorrtLlm } from "./tensorrt-llm.ts";
import { transformers } from "./transformers.ts";
import { vllm } from "./vllm.ts";
import { vllmAscend } from "./vllm-ascend.ts";

export const dialects: Readonly<Record<EngineName, Dialect>> = {
  vllm,
  sglang,
  transformers,
  "tensorrt-llm": tensorrtLlm,
  "vllm-ascend": vllmAscend,
  atom,
};
