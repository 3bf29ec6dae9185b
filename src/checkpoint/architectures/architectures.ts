/** The architectures that are read, by `model_type` of config.json. */
import type { Architecture } from "./architecture.ts";
import { deepseekV32 } from "./deepseek-v32.ts";
import { glmMoeDsa } from "./glm-moe-dsa.ts";

export const architectures = {
  glm_moe_dsa: glmMoeDsa,
  deepseek_v32: deepseekV32,
} satisfies Record<string, Architecture>;

export type ModelType = keyof typeof architectures;
