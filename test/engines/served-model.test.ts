import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { patchConfig } from "../../src/engines/applied/config-patch.ts";
import { parseServedModel, readServedModel } from "../../src/engines/served-model.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const root = join(import.meta.dirname, "..", "..");

const folder = temporaryFolder("file");

describe("readServedModel()", () => {
  test("of a checkpoint folder knows which indexers it ships", async () => {
    expect(await readServedModel(join(root, "models", "demo"))).toMatchObject({ layers: 12, shipped: "F".repeat(12) });
    // Trained with sharing: three shards, no indexer weights on Shared layers.
    const shared = await readServedModel(join(root, "test", "fixtures", "glm-shared"));
    expect(shared.shipped).toMatch(/S/);
    expect(shared.shipped).toHaveLength(shared.layers);
  });

  test("of a config.json alone does not", async () => {
    expect((await readServedModel(join(root, "models", "demo", "config.json"))).shipped).toBeUndefined();
  });

  test.each([
    ["{", "is not JSON"],
    ["[]", "expected record"],
    ['{"model_type": "llama", "num_hidden_layers": 2}', 'model_type "llama"'],
    ['{"model_type": "glm5_next", "text_config": {"model_type": "glm5_next_text"}}', "KDA layers"],
    ['{"model_type": "mistral_large4", "text_config": {"model_type": "mistral_large4_text"}}', "kv_source_layers"],
    ['{"model_type": "deepseek_v41", "num_hidden_layers": 2}', "index_source_layer_ids"],
    ['{"model_type": "longcat_flash", "num_hidden_layers": 2}', "cli_factor"],
    ['{"model_type": "glm_moe_dsa"}', '"num_hidden_layers"'],
    ['{"model_type": "glm_moe_dsa", "num_hidden_layers": 2, "index_topk_pattern": 5}', '"index_topk_pattern"'],
    ['{"model_type": "deepseek_v4", "num_hidden_layers": 2}', "compress_ratios has 0 entries for 2 layers"],
    ['{"model_type": "deepseek_v4", "num_hidden_layers": 2, "compress_ratios": [0, 128]}', "none has an indexer"],
  ])("refuses %s: %s", (text, words) => {
    expect(() => parseServedModel(text, "config.json")).toThrow(words);
  });

  test("a path that does not exist is named", async () => {
    await expect(readServedModel(join(folder, "none"))).rejects.toThrow(/none": no such file/);
  });
});

describe("patchConfig()", () => {
  const config =
    '{\n    "model_type": "glm_moe_dsa",\n    "rms_norm_eps": 1e-05,\n    "routed_scaling_factor": 1.0,\n    "index_topk_freq": 4\n}\n';

  test("sets fields, takes out what they supersede, and leaves the rest as it is written", async () => {
    const patched = patchConfig(config, { use_index_cache: true, index_topk_pattern: "FS" });
    expect(patched).toContain('    "rms_norm_eps": 1e-05,\n    "routed_scaling_factor": 1.0');
    expect(JSON.parse(patched)).toEqual({
      model_type: "glm_moe_dsa",
      rms_norm_eps: 1e-5,
      routed_scaling_factor: 1,
      use_index_cache: true,
      index_topk_pattern: "FS",
    });
    await writeFile(join(folder, "config.json"), patched);
  });

  test("patching twice gives the same text", () => {
    const fields = { indexer_types: ["full", "shared"] };
    const once = patchConfig(config, fields);
    expect(patchConfig(once, fields)).toBe(once);
  });

  test("keeps what a dialect keeps", () => {
    const text = '{"indexer_types": ["full"], "index_topk_freq": 2}';
    expect(JSON.parse(patchConfig(text, { index_topk_pattern: "F" }, ["indexer_types"]))).toEqual({
      indexer_types: ["full"],
      index_topk_pattern: "F",
    });
  });
});
