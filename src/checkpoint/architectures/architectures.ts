/** The architectures that are read, by `model_type` of config.json. */
import type { Architecture } from "./architecture.ts";
import { axk2 } from "./axk2.ts";
import { deepseekV32 } from "./deepseek-v32.ts";
import { glmMoeDsa } from "./glm-moe-dsa.ts";

export const architectures = {
  glm_moe_dsa: glmMoeDsa,
  deepseek_v32: deepseekV32,
  axk2,
} satisfies Record<string, Architecture>;

export type ModelType = keyof typeof architectures;
