/** What `distill --dry-run` prints of a model far larger than any terminal is wide. */
import { expect, test } from "vitest";
import { parseModelConfig } from "../../src/checkpoint/config/config-json.ts";
import { distillPlan } from "../../src/distill/distill-plan.ts";
import { defaultRecipe, queriesAt } from "../../src/distill/recipe.ts";
import type { TargetWeight } from "../../src/graph/training/attention-target.ts";
import { uniformPattern } from "../../src/pattern/schedule.ts";
import { formatDistillPlan } from "../../src/report/distill/distill-plan.ts";

/** GLM-5's sizes. */
const glm5 = {
  model_type: "glm_moe_dsa",
  num_hidden_layers: 78,
  hidden_size: 6144,
  intermediate_size: 12288,
  moe_intermediate_size: 2048,
  first_k_dense_replace: 3,
  n_routed_experts: 256,
  n_shared_experts: 1,
  num_experts_per_tok: 8,
  num_attention_heads: 64,
  q_lora_rank: 2048,
  kv_lora_rank: 512,
  qk_nope_head_dim: 192,
  qk_rope_head_dim: 64,
  v_head_dim: 256,
  index_n_heads: 32,
  index_head_dim: 128,
  index_topk: 2048,
  vocab_size: 154880,
  rms_norm_eps: 1e-5,
  routed_scaling_factor: 2.5,
  max_position_embeddings: 202752,
  rope_parameters: { rope_type: "default", rope_theta: 1e6 },
};

test("a plan for GLM-5 says disk, memory and time, no line wider than the terminal", () => {
  const config = parseModelConfig(glm5, "zai-org/GLM-5", "config.json");
  const recipe = { ...defaultRecipe, batch: 1, seed: 0, weight: "values" } as const;
  const counts = { sequences: 400, heldOut: 4, length: 8192 };
  const plan = distillPlan(config, uniformPattern(78, 4), recipe, counts, "stored");
  // 4 boundaries of 404 x 8,192 rows in bfloat16; the largest layer in float32.
  expect(plan.diskBytes).toBe(4 * 2 * 404 * 8192 * 6144);
  expect(plan.carry.weights / 2 ** 30).toBeCloseTo(36.8, 1);
  const record = {
    model: "zai-org/GLM-5",
    pattern: uniformPattern(78, 4),
    work: "OUTPUT.work",
    text: "assumed",
  } as const;
  const free = { disk_free: 2 ** 40, memory_free: 2 ** 36, device: "cpu" };
  const text = formatDistillPlan({ ...record, ...free, flops: 1e14, ...plan }, 80);
  for (const line of text.split("\n")) expect(line.length, line).toBeLessThanOrEqual(80);
  expect(text).toMatch(/^Pattern {9}(FSSS)+\n {16}[FS]+$/m);
  expect(text).toMatch(/^Disk +152 GiB = 4 boundaries of 37\.9 GiB/m);
  expect(text).toMatch(/^Time, about +\d+ h \d+ min for the states/m);
});

test("gates of the heads' values (A.X-K2) are counted in memory and time", () => {
  const length = 8192;
  const recipe = { ...defaultRecipe, batch: 1, seed: 0, weight: "values" } as const;
  const plan = (model: string, weight: TargetWeight = "values") => {
    const config = parseModelConfig({ ...glm5, model_type: model, num_hidden_layers: 8 }, model, "config.json");
    return distillPlan(
      config,
      uniformPattern(8, 4),
      { ...recipe, weight },
      { sequences: 16, heldOut: 4, length },
      "stored",
    );
  };
  const [gated, plain] = [plan("axk2"), plan("glm_moe_dsa")];
  // Scores of 64 heads twice more for each row that is asked and each key, and squares of values twice.
  const asked = queriesAt(recipe, 0, length).length;
  expect(gated.training.batch - plain.training.batch).toBe(4 * 2 * 64 * asked * length + 4 * 2 * 64 * 256 * length);
  expect(gated.operations.training).toBeGreaterThan(1.1 * plain.operations.training);
  // By attention alone nobody asks for the gates.
  expect(plan("axk2", "mass").training.batch).toBe(plain.training.batch);
  // Its query projection has rows for the gates, and twice the columns.
  const projected = 2 * 20 * length * (64 * (192 + 64 + 256) * 2 * 2048 - 64 * (192 + 64) * 2048);
  expect(gated.operations.carry - plain.operations.carry).toBe(7 * projected);
});
