/** Checkpoints in the shape of engines' kernels: the same losses under any pattern, or a refusal that names the field. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { reduceConfig } from "../../src/checkpoint/config/reduced-config.ts";
import { planEngineShape } from "../../src/checkpoint/derived/engine-shape.ts";
import { writeRandomCheckpoint } from "../../src/checkpoint/derived/random-checkpoint.ts";
import { spreadTensor } from "../../src/checkpoint/derived/spread-tensor.ts";
import { openTensors } from "../../src/checkpoint/shards.ts";
import { applyPattern } from "../../src/engines/applied/applied-checkpoint.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { type Pattern, parsePattern } from "../../src/pattern/pattern.ts";
import { openLossEvaluator } from "../../src/runtime/loss/loss-evaluator.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { float32, floats, readTensors, type Tensor, writeTensors } from "./tensor-file.ts";

/** Every size differs from the others, and from those of the kernels. */
const glm = {
  architectures: ["GlmMoeDsaForCausalLM"],
  model_type: "glm_moe_dsa",
  vocab_size: 61,
  hidden_size: 40,
  intermediate_size: 24,
  moe_intermediate_size: 12,
  num_hidden_layers: 3,
  num_attention_heads: 3,
  num_key_value_heads: 3,
  q_lora_rank: 20,
  kv_lora_rank: 32,
  qk_nope_head_dim: 32,
  qk_rope_head_dim: 16,
  v_head_dim: 28,
  n_routed_experts: 4,
  n_shared_experts: 1,
  num_experts_per_tok: 2,
  first_k_dense_replace: 1,
  n_group: 1,
  topk_group: 1,
  index_n_heads: 5,
  index_head_dim: 64,
  index_topk: 128,
  rms_norm_eps: 1e-5,
  max_position_embeddings: 512,
  rope_parameters: { rope_type: "default", rope_theta: 10000 },
  tie_word_embeddings: false,
};
const v32 = { ...glm, architectures: ["DeepseekV32ForCausalLM"], model_type: "deepseek_v32" };
/** V3.2's own RoPE, YaRN with its factor on the softmax scale; of real width, since its ramp moves with the width. */
const yarn = {
  ...v32,
  kv_lora_rank: 128,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  index_head_dim: 128,
  rope_parameters: undefined,
  rope_scaling: {
    type: "yarn",
    factor: 40,
    beta_fast: 32,
    beta_slow: 1,
    mscale: 1,
    mscale_all_dim: 1,
    original_max_position_embeddings: 64,
  },
};

const windows = [190, 205].map((length, index) =>
  Int32Array.from({ length }, (_, position) => 3 + ((index * 31 + position * (position + 17)) % 58)),
);

const folder = temporaryFolder("file");

async function writeModel(name: string, json: object): Promise<string> {
  const path = join(folder, name);
  await mkdir(path);
  await writeRandomCheckpoint(path, reduceConfig(JSON.parse(JSON.stringify(json)), "config.json", name, {}), 7);
  return path;
}

async function change(path: string, edit: (tensors: Map<string, Tensor>) => void): Promise<void> {
  const file = join(path, "model.safetensors");
  const tensors = await readTensors(file);
  edit(tensors);
  await writeTensors(file, tensors);
}

/** The upper halves of the numbers: what BF16 keeps. */
function toBfloat16(tensor: Tensor): Tensor {
  const bits = new Uint32Array(floats(tensor).buffer);
  return { ...tensor, dtype: "BF16", data: new Uint8Array(Uint16Array.from(bits, (value) => value >>> 16).buffer) };
}

async function losses(path: string, pattern: string): Promise<number[]> {
  const model = await openModel(path);
  const evaluator = await openLossEvaluator(model, windows, { device: "cpu", threads: 1, workers: 1 });
  const { sequences } = await evaluator.evaluate(parsePattern(pattern));
  await evaluator.release();
  return sequences.map(({ loss }) => loss);
}

async function expectSameFunction(native: string, padded: string, patterns: readonly string[]): Promise<void> {
  const seen: number[] = [];
  for (const pattern of patterns) {
    const wanted = await losses(native, pattern);
    for (const [sequence, loss] of (await losses(padded, pattern)).entries()) {
      expect(Math.abs(loss - (wanted[sequence] as number))).toBeLessThan(1e-6);
    }
    seen.push(wanted[0] as number);
  }
  // Patterns matter to this model: a selection of other keys would be seen.
  expect(new Set(seen.map((loss) => loss.toFixed(5))).size).toBe(patterns.length);
}

const apply = (source: string, name: string, pattern?: Pattern, heads?: 16) =>
  applyPattern(source, pattern, join(folder, name), {
    engineShape: heads === undefined ? {} : { heads },
    origin: { warnings: [] },
  });

async function configOf(name: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(join(folder, name, "config.json"), "utf8")) as Record<string, unknown>;
}

describe("a padded checkpoint computes what the native one does", () => {
  test("GLM in F32: neighbouring pairs in the indexer, biases, a doubled query", async () => {
    const native = await writeModel("glm", { ...glm, attention_bias: true });
    const { engineShape } = await apply(native, "glm-padded");
    expect(engineShape).toMatchObject({ heads: 8, indexHeads: 32 });
    expect(await configOf("glm-padded")).toMatchObject({
      num_attention_heads: 8,
      num_key_value_heads: 8,
      kv_lora_rank: 512,
      qk_nope_head_dim: 128,
      qk_rope_head_dim: 64,
      v_head_dim: 128,
      index_n_heads: 32,
      index_head_dim: 128,
      index_topk: 128,
      first_k_dense_replace: 1,
      max_position_embeddings: 8192,
    });
    await expectSameFunction(native, join(folder, "glm-padded"), ["FFF", "FSS"]);
  });

  test("DeepSeek-V3.2 in BF16 matrices: halves in the indexer, four times the query, 16 heads", async () => {
    const native = await writeModel("v32", { ...v32, qk_nope_head_dim: 8, qk_rope_head_dim: 4, index_n_heads: 40 });
    await change(native, (tensors) => {
      for (const [name, tensor] of tensors) if (tensor.shape.length > 1) tensors.set(name, toBfloat16(tensor));
    });
    const { engineShape } = await apply(native, "v32-padded", undefined, 16);
    expect(engineShape).toMatchObject({ heads: 16, indexHeads: 64 });
    const tensors = await readTensors(join(folder, "v32-padded", "model.safetensors"));
    expect(tensors.get("model.layers.1.self_attn.q_b_proj.weight")).toMatchObject({
      dtype: "BF16",
      shape: [16 * 192, 20],
    });
    expect(tensors.get("model.layers.1.self_attn.indexer.k_norm.bias")).toMatchObject({ dtype: "F32", shape: [128] });
    await expectSameFunction(native, join(folder, "v32-padded"), ["FFF", "FSS"]);
  });

  test("DeepSeek-V3.2 with YaRN of real width", async () => {
    const native = await writeModel("yarn", yarn);
    await apply(native, "yarn-padded");
    expect((await configOf("yarn-padded")).max_position_embeddings).toBe(512);
    await expectSameFunction(native, join(folder, "yarn-padded"), ["FFF", "FFS"]);
  });

  test("with a pattern; indexers that config.json does not use are padded as well, prediction layers left out", async () => {
    const native = await writeModel("leftover", glm);
    await change(native, (tensors) => {
      tensors.set("model.layers.3.self_attn.q_b_proj.weight", float32([144, 20], new Float32Array(144 * 20)));
    });
    const config = JSON.parse(await readFile(join(native, "config.json"), "utf8"));
    const own = { ...config, index_topk_pattern: "FSF", num_nextn_predict_layers: 1 };
    await writeFile(join(native, "config.json"), JSON.stringify(own));

    expect((await apply(native, "own")).pattern).toBe("FSF");
    expect(await configOf("own")).toMatchObject({
      index_topk_pattern: "FSF",
      indexer_types: ["full", "shared", "full"],
      num_nextn_predict_layers: 0,
    });
    await expectSameFunction(native, join(folder, "own"), ["FSF", "FSS"]);
    const names = [...(await readTensors(join(folder, "own", "model.safetensors"))).keys()];
    expect(names.filter((name) => /layers\.(1\.self_attn\.indexer|3)\./.test(name))).toEqual([]);

    await apply(native, "all", parsePattern("FFF"));
    const all = await configOf("all");
    expect(Object.keys(all).filter((field) => /index_topk_pattern|indexer_types|use_index_cache/.test(field))).toEqual(
      [],
    );
    await writeFile(join(native, "config.json"), JSON.stringify(config));
    await expectSameFunction(native, join(folder, "all"), ["FFF", "FSF"]);
  });

  test("indexers come back from an original of the same shape only", async () => {
    const native = await writeModel("original", glm);
    await applyPattern(native, parsePattern("FSS"), join(folder, "third"), { origin: { warnings: [] } });
    const restored = { original: native, origin: { warnings: [] } };
    await applyPattern(join(folder, "third"), undefined, join(folder, "back"), { ...restored, engineShape: {} });
    await expectSameFunction(native, join(folder, "back"), ["FFF", "FFS"]);

    await apply(join(folder, "third"), "third-padded", parsePattern("FSS"));
    const mixed = applyPattern(join(folder, "third-padded"), undefined, join(folder, "mixed"), restored);
    await expect(mixed).rejects.toThrow(/is of another shape than .*indexer\.\S+" has \[/);
    await expect(apply(join(folder, "back"), "again")).rejects.toThrow("already has the shape");
  });
});

describe("what cannot be padded exactly is refused by the name of the field", () => {
  test.each([
    [{ index_topk: 192 }, "index_topk is 192, no multiple of 128"],
    [{ kv_lora_rank: 48 }, "kv_lora_rank is 48, which does not divide 512"],
    [{ qk_rope_head_dim: 24, qk_nope_head_dim: 24 }, "qk_rope_head_dim is 24, which does not divide 64"],
    [{ qk_nope_head_dim: 192 }, "qk_nope_head_dim is 192, more than 128"],
    [{ v_head_dim: 256 }, "v_head_dim is 256, more than 128"],
    [{ index_head_dim: 96 }, "index_head_dim is 96, which does not divide 128"],
    [{ index_head_dim: 128 }, "index_head_dim - qk_rope_head_dim is 112, more than 64"],
    [{ index_n_heads: 65 }, "index_n_heads is 65, more than 64"],
    [{ num_attention_heads: 129, num_key_value_heads: 129 }, "num_attention_heads is 129, more than 128"],
    [{ qk_nope_head_dim: 30 }, "qk_nope_head_dim + qk_rope_head_dim is 46, which must be 192, 48, 12 or 3"],
    [
      { rope_parameters: { rope_type: "yarn", factor: 4, original_max_position_embeddings: 64 } },
      "rope_parameters give pair",
    ],
  ])("%o", async (fields, words) => {
    const empty = { folder, files: [], bytes: 0, tensors: new Map(), absent: new Map(), notes: [] };
    const checkpoint = { ...empty, places: { folder, files: new Map() } };
    expect(() => planEngineShape({ ...glm, ...fields }, "c.json", checkpoint)).toThrow(`"c.json": ${words}`);
  });

  test("too few heads, quantised weights, a language model inside another one", async () => {
    const native = await writeModel("refused", { ...glm, num_attention_heads: 9, num_key_value_heads: 9 });
    const json = JSON.parse(await readFile(join(native, "config.json"), "utf8"));
    const tensors = await openTensors(native);
    expect(() => planEngineShape(json, "c.json", tensors, 8)).toThrow("num_attention_heads is 9, more than heads=8");
    expect(planEngineShape(json, "c.json", tensors).heads).toBe(16);
    expect(() => planEngineShape({ text_config: json }, "c.json", tensors)).toThrow("text_config holds the language");
    const name = "model.layers.1.self_attn.o_proj.weight";
    await change(native, (held) => {
      const { shape } = held.get(name) as Tensor;
      const [rows = 0, columns = 0] = shape;
      held.set(name, { dtype: "F8_E4M3", shape, data: new Uint8Array(rows * columns) });
      held.set(`${name}_scale_inv`, float32([1, 2], [1, 1]));
    });
    const quantised = await openTensors(native);
    const fp8 = { ...json, quantization_config: { quant_method: "fp8", weight_block_size: [128, 128] } };
    expect(() => planEngineShape(fp8, "c.json", quantised)).toThrow(`"${name}" is quantised (F8_E4M3); padded are F32`);
  });
});

describe("multiplication by a power of two", () => {
  async function doubled(dtype: string, elements: Uint16Array | Uint32Array, doublings: number): Promise<Buffer> {
    const path = join(folder, "elements");
    const bytes = new Uint8Array(elements.buffer);
    await writeFile(path, bytes);
    const data = { path, offset: 0, length: bytes.length };
    const rows = Int32Array.from(elements, (_, row) => row);
    const result = spreadTensor({ name: "t", dtype, shape: [elements.length], data }, { rows, doublings });
    const blocks: Uint8Array[] = [];
    if (typeof result.data === "function") for await (const block of result.data()) blocks.push(block);
    return Buffer.concat(blocks);
  }

  test("is that of float32, subnormal and negative numbers included", async () => {
    const values = Float32Array.from([0, -0, 1, -1.5, 1e-45, -3e-42, 1.1e-38, -1.17e-38, 3.3e37, 0.1]);
    const bytes = await doubled("F32", new Uint32Array(values.buffer.slice(0)), 2);
    const wanted = values.map((value) => 4 * value);
    expect(bytes).toEqual(Buffer.from(wanted.buffer));
  });

  test("of half precision: 2^-24 by four, the largest subnormal, 1; beyond the largest number it is refused", async () => {
    const bytes = await doubled("F16", Uint16Array.from([0x0001, 0x03ff, 0x3c00, 0x8200]), 2);
    expect(new Uint16Array(Uint8Array.from(bytes).buffer)).toEqual(Uint16Array.from([0x0004, 0x0bfe, 0x4400, 0x8800]));
    const words = 'tensor "t": element 1 times 2 is more than';
    await expect(doubled("F16", Uint16Array.from([0x77ff, 0x7bff]), 1)).rejects.toThrow(`${words} F16 can hold`);
    await expect(doubled("BF16", Uint16Array.from([0x7eff, 0xff00]), 1)).rejects.toThrow(`${words} BF16 can hold`);
  });
});
