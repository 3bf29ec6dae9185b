/** One test for each trap on the way from a checkpoint to its numbers; the parity tests hold the results. */
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { bindWeights } from "../../src/checkpoint/bind-weights.ts";
import { parseModelConfig, readModelConfig } from "../../src/checkpoint/config/config-json.ts";
import { firstNonFinite } from "../../src/checkpoint/dtype.ts";
import { openTensors } from "../../src/checkpoint/shards.ts";
import { listWeights } from "../../src/checkpoint/weights.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { fixturePath } from "../oracle.ts";
import { copyFixture, editHeader } from "./safetensors-file.ts";

const glm = JSON.parse(await readFile(join(fixturePath("glm-groups"), "config.json"), "utf8"));
const parse = (changes: object) => parseModelConfig({ ...glm, ...changes }, "config.json", "test");
const v32 = { model_type: "deepseek_v32", architectures: ["DeepseekV32ForCausalLM"] };
const folders: string[] = [];
const damaged = async (name: string) => {
  const folder = await copyFixture(name);
  folders.push(folder);
  return folder;
};
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
});

describe("config.json", () => {
  test("is not looked for inside a file", async () => {
    await expect(readModelConfig(join(fixturePath("glm-groups"), "config.json"))).rejects.toThrow(
      /config\.json" is a file, and MODEL is the folder of a checkpoint$/,
    );
  });

  test.each(["llama", "deepseek_v3", "deepseek_v4", "glm5_next"])("refuses model_type %s by name", (modelType) => {
    expect(() => parse({ model_type: modelType })).toThrow(
      `model_type "${modelType}" is not supported; supported are glm_moe_dsa, deepseek_v32, axk2`,
    );
  });

  test("says what sets the layers of a model that is not supported apart", () => {
    const types = (every: number, other: string) =>
      Array.from({ length: 40 }, (_, layer) => ((layer + 1) % every === 0 ? "indexed_attention" : other));
    const hybrid = { model_type: "qwen4_exp", layer_types: types(4, "linear_attention"), kv_lora_rank: null };
    expect(() => parse({ ...hybrid, num_attention_heads: 16, num_key_value_heads: 2 })).toThrow(
      'model_type "qwen4_exp" is not supported: 10 of its 40 layers have an indexer, and attention reads 2 heads of keys and values (GQA) instead of latents (MLA); supported are',
    );
    expect(() => parse({ model_type: "mistral_large4", kv_source_layers: [0, 0, 2, 2, 2] })).toThrow(
      'model_type "mistral_large4" is not supported: 3 layers read keys and values of another layer (kv_source_layers); supported are',
    );
    expect(() => parse({ model_type: "odd", layer_types: 7, kv_source_layers: "x" })).toThrow(
      /"odd" is not supported;/,
    );
  });

  test("takes layer_types that name the indexed layers of its own model, and no others", () => {
    const layers = (type: string) => ({ layer_types: Array.from({ length: 5 }, () => type) });
    const own = parse({}).indexerLayers;
    for (const type of ["indexed_attention", "deepseek_sparse_attention", "full_attention"])
      expect(parse(layers(type)).indexerLayers).toBe(own);
    expect(() => parse(layers("sliding_attention"))).toThrow(/layer_types/);
  });

  test("names the field that is wrong", () => {
    expect(() => parse({ index_topk: 0 })).toThrow(/index_topk/);
    expect(() => parse({ hidden_size: "64" })).toThrow(/hidden_size/);
    expect(() => parse({ q_lora_rank: null })).toThrow(/q_lora_rank/);
    expect(() => parse({ scoring_func: "softmax" })).toThrow(/scoring_func/);
    expect(() => parse({ mlp_layer_types: ["dense"] })).toThrow(/mlp_layer_types has 1 entries for 5 layers/);
    expect(() => parse({ n_group: 3 })).toThrow(/n_group is 3, which does not divide/);
  });

  test("indexer_types wins over the pattern, the pattern over the frequency", () => {
    const types = ["full", "shared", "shared", "full", "shared"];
    const base = { indexer_types: null, index_topk_pattern: null, index_topk_freq: 4 };
    expect(parse({ ...base }).indexerLayers).toBe("FFSSS");
    expect(parse({ ...base, index_skip_topk_offset: 3 }).indexerLayers).toBe("FFFSS");
    expect(parse({ ...base, index_topk_pattern: "FSFSF" }).indexerLayers).toBe("FSFSF");
    expect(parse({ ...base, index_topk_pattern: "FSFSF", indexer_types: types }).indexerLayers).toBe("FSSFS");
    expect(parse({ ...base, index_topk_freq: null }).indexerLayers).toBe("FFFFF");
  });

  test("the same fields share indices of V3.2, as serving engines have it", () => {
    const shared = { ...v32, indexer_types: null, index_topk_pattern: null };
    expect(parse(shared).indexerLayers).toBe("FFFFF");
    expect(parse({ ...shared, index_topk_pattern: "FSFSF" }).indexerLayers).toBe("FSFSF");
  });

  test("what a schedule says of layers past the last one is of prediction layers", () => {
    expect(parse({ indexer_types: null, index_topk_pattern: "FSFSFS" }).indexerLayers).toBe("FSFSF");
    const six = ["full", "full", "shared", "full", "full", "full"];
    expect(parse({ indexer_types: six }).indexerLayers).toBe("FFSFF");
    const frequency = { indexer_types: null, index_topk_pattern: null, index_topk_freq: 4, index_skip_topk_offset: 0 };
    expect(() => parse(frequency)).toThrow('"config.json": index_skip_topk_offset is 0, which makes layer 0 Shared');
  });

  test("refuses a native schedule of the wrong length or without a first Full layer", () => {
    expect(() => parse({ indexer_types: ["full"] })).toThrow(/indexer_types has 1 letters, the model has 5 layers/);
    expect(() => parse({ indexer_types: null, index_topk_pattern: "SFFFF" })).toThrow(/starts with S/);
  });

  test("indexer RoPE is interleaved for GLM and half-split for V3.2, unless the config says", () => {
    const unset = { indexer_rope_interleave: undefined };
    expect(parse({ ...unset }).indexerRopeInterleave).toBe(true);
    expect(parse({ ...unset, ...v32 }).indexerRopeInterleave).toBe(false);
    expect(parse({ indexer_rope_interleave: false }).indexerRopeInterleave).toBe(false);
  });

  test("YaRN: DeepSeek-V3.2's own values give its known softmax factor and no factor on cos and sin", () => {
    const yarn = { factor: 40, beta_fast: 32, beta_slow: 1, mscale: 1, mscale_all_dim: 1 };
    const scaling = { type: "yarn", original_max_position_embeddings: 4096, ...yarn };
    const { rope } = parse({ rope_parameters: null, rope_scaling: scaling, qk_rope_head_dim: 64, index_head_dim: 128 });
    expect(192 ** -0.5 * rope.softmaxFactor).toBeCloseTo(0.135234, 6);
    expect(rope.attentionFactor).toBe(1);
    // The fastest dimension is kept, the slowest is divided by the factor.
    expect(rope.inverseFrequencies[0]).toBe(1);
    expect(rope.inverseFrequencies[31]).toBeCloseTo(10000 ** (-62 / 64) / 40, 9);
    expect(() => parse({ rope_parameters: { rope_type: "longrope" } })).toThrow(
      /rope_type "longrope" is not supported/,
    );
  });
});

describe("weights", () => {
  const bind = async (folder: string) => bindWeights(await readModelConfig(folder), await openTensors(folder));

  test("a Full layer without indexer tensors is refused, never filled with noise", async () => {
    const folder = await damaged("glm-shared");
    const config = JSON.parse(await readFile(join(folder, "config.json"), "utf8"));
    await writeFile(
      join(folder, "config.json"),
      JSON.stringify({ ...config, indexer_types: null, index_topk_freq: 1 }),
    );
    await expect(bind(folder)).rejects.toThrow(/lacks tensor "model.layers.1.self_attn.indexer.wq_b.weight"/);
  });

  test("indexers of layers that the config makes Shared are left out, as in transformers, and named", async () => {
    const pattern = await bind(fixturePath("glm-pattern"));
    expect(pattern.layers.map(({ indexer }) => (indexer === undefined ? "S" : "F")).join("")).toBe("FFSSF");
    expect(pattern.leftoverIndexers).toEqual([2, 3]);
    expect((await bind(fixturePath("glm-shared"))).leftoverIndexers).toEqual([]);
  });

  test("MTP layers are skipped by number", async () => {
    const folder = fixturePath("glm-shared");
    const stored = [...(await openTensors(folder)).tensors.keys()];
    expect(stored.some((name) => name.startsWith("model.layers.5."))).toBe(true);
    expect(listWeights(await bind(folder)).some(({ name }) => name.startsWith("model.layers.5."))).toBe(false);
  });

  test("a tied head is the embedding; an untied one must be there", async () => {
    const tied = await bind(fixturePath("glm-shared"));
    expect(tied.lmHead).toBe(tied.embedding);
    const folder = await damaged("glm-groups");
    await editHeader(join(folder, "model.safetensors"), (header) => {
      header.other = header["lm_head.weight"] as (typeof header)[string];
      delete header["lm_head.weight"];
    });
    await expect(bind(folder)).rejects.toThrow(/lacks tensor "lm_head.weight"/);
  });

  test("a wrong shape is named with both shapes", async () => {
    const folder = await damaged("glm-groups");
    await editHeader(join(folder, "model.safetensors"), (header) => {
      const entry = header["model.norm.weight"];
      if (entry !== undefined) entry.shape = [8, 5];
    });
    await expect(bind(folder)).rejects.toThrow(/"model.norm.weight" has shape \[8, 5\], config.json makes it \[40\]/);
  });

  test("a dtype that no graph reads is refused", async () => {
    const folder = await damaged("glm-groups");
    await editHeader(join(folder, "model.safetensors"), (header) => {
      const entry = header["model.norm.weight"];
      if (entry !== undefined) entry.dtype = "I32";
    });
    await expect(bind(folder)).rejects.toThrow(/has dtype I32; weights may be F32, F16, BF16, F8_E4M3/);
  });

  test("FP8 blocks are cut by the config's edge: partial blocks at the edges, scales in another shard", async () => {
    const weights = await bind(fixturePath("v32-fp8"));
    const scaled = listWeights(weights).filter(({ scale }) => scale !== undefined);
    expect(scaled.some(({ shape }) => (shape[0] ?? 0) > 128 && (shape[0] ?? 0) % 128 !== 0)).toBe(true);
    expect(scaled.some(({ file, scale }) => scale?.weight.file !== file)).toBe(true);
    for (const { shape, scale } of scaled) {
      expect(scale?.weight.shape).toEqual(shape.map((size) => Math.ceil(size / 128)));
    }
  });

  test("FP8 without a scale, or with one of another block size, is refused", async () => {
    const folder = await damaged("v32-fp8");
    const config = JSON.parse(await readFile(join(folder, "config.json"), "utf8"));
    config.quantization_config.weight_block_size = [64, 64];
    await writeFile(join(folder, "config.json"), JSON.stringify(config));
    await expect(bind(folder)).rejects.toThrow(/_scale_inv" has shape .*blocks of 64 x 64/);
  });

  test("fused experts are read as slices", async () => {
    const { layers } = await bind(fixturePath("glm-pattern"));
    const mlp = layers.find(({ mlp }) => "router" in mlp)?.mlp;
    if (mlp === undefined || !("router" in mlp)) throw new Error("no routed layer");
    const [first, second] = mlp.experts;
    expect(first?.up.offset).toBe((first?.gate.offset ?? 0) + (first?.gate.length ?? 0));
    expect(second?.gate.offset).toBe((first?.up.offset ?? 0) + (first?.up.length ?? 0));
  });
});

test("firstNonFinite finds NaN and infinity in every weight dtype", () => {
  expect(firstNonFinite(new Uint8Array(Float32Array.of(1, 2, Number.NaN).buffer), "F32")).toBe(2);
  expect(firstNonFinite(new Uint8Array(Float32Array.of(1, -Infinity).buffer), "F32")).toBe(1);
  expect(firstNonFinite(Uint8Array.of(0x80, 0x3f, 0xc0, 0x7f), "BF16")).toBe(1);
  expect(firstNonFinite(Uint8Array.of(0x00, 0x3c, 0x00, 0xfc), "F16")).toBe(1);
  expect(firstNonFinite(Uint8Array.of(0x7e, 0xff), "F8_E4M3")).toBe(1);
  expect(firstNonFinite(Uint8Array.of(0x7e, 0xfe), "F8_E4M3")).toBe(-1);
});

test("a folder that is no model is refused in one sentence", async () => {
  await expect(openModel("/nonexistent")).rejects.toThrow(
    'Cannot read "/nonexistent/config.json": no such file or folder',
  );
});
