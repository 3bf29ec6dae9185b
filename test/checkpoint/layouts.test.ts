/** The same numbers stored in other ways give the same losses; formats that are not read are named. */
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { openModel } from "../../src/graph/model-folder.ts";
import { fullPattern } from "../../src/pattern/pattern.ts";
import { openLossEvaluator } from "../../src/runtime/loss/loss-evaluator.ts";
import { fixturePath, readOracle } from "../oracle.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { e4m3, float32, floats, readTensors, type Tensor, toE4m3, writeTensors } from "./tensor-file.ts";

const name = "glm-groups";
const source = JSON.parse(await readFile(join(fixturePath(name), "config.json"), "utf8"));
const original = await readTensors(join(fixturePath(name), "model.safetensors"));
const windows = readOracle(name)
  .sequences.slice(0, 1)
  .map((ids) => Int32Array.from(ids));
const scratch = temporaryFolder("file");
let count = 0;

async function write(tensors: ReadonlyMap<string, Tensor>, config: object = {}, remove = ""): Promise<string> {
  const folder = await mkdtemp(join(scratch, `${count++}-`));
  const fields = { ...source, ...config };
  delete fields[remove];
  await writeFile(join(folder, "config.json"), JSON.stringify(fields));
  await writeTensors(join(folder, "model.safetensors"), tensors);
  return folder;
}

async function lossOf(folder: string): Promise<number> {
  const model = await openModel(folder);
  const evaluator = await openLossEvaluator(model, windows, { device: "cpu", threads: 1, workers: 1 });
  try {
    return (await evaluator.evaluate(fullPattern(model.config.numHiddenLayers))).loss;
  } finally {
    await evaluator.release();
  }
}

const isLinear = (tensor: string, { shape }: Tensor) =>
  shape.length === 2 && tensor.endsWith("proj.weight") && !tensor.includes("indexer");

interface Grid {
  rows: number;
  columns: number;
  exponents?: boolean;
  /** Shape and dtype of the scales as they are stored. */
  store?: (across: number, along: number) => number[];
}

/** FP8 numbers and scales of a matrix, and what they are worth. */
function quantise({ shape, ...rest }: Tensor, { rows, columns, exponents, store }: Grid) {
  const values = floats({ shape, ...rest });
  const [height = 0, width = 0] = shape;
  const across = Math.ceil(height / Math.min(rows, height));
  const along = Math.ceil(width / Math.min(columns, width));
  const block = (i: number) => Math.floor(Math.floor(i / width) / rows) * along + Math.floor((i % width) / columns);
  const scales = new Float32Array(across * along);
  values.forEach((value, i) => {
    scales[block(i)] = Math.max(scales[block(i)] as number, Math.abs(value) / 448);
  });
  const bytes = scales.map((scale) => 127 + Math.ceil(Math.log2(scale)));
  if (exponents) scales.set(bytes.map((byte) => 2 ** (byte - 127)));
  const data = Uint8Array.from(values, (value, i) => toE4m3(value / (scales[block(i)] as number)));
  const worth = Float32Array.from(data, (byte, i) => (e4m3[byte] as number) * (scales[block(i)] as number));
  const scaleShape = store?.(across, along) ?? [across, along];
  return {
    weight: { dtype: "F8_E4M3", shape, data } satisfies Tensor,
    scale: exponents
      ? ({ dtype: "F8_E8M0", shape: scaleShape, data: Uint8Array.from(bytes) } satisfies Tensor)
      : float32(scaleShape, scales),
    worth: float32(shape, worth),
  };
}

function quantised(grid: Grid, suffix: string) {
  const stored = new Map<string, Tensor>();
  const plain = new Map<string, Tensor>();
  for (const [tensor, value] of original) {
    const result = isLinear(tensor, value) ? quantise(value, grid) : undefined;
    stored.set(tensor, result?.weight ?? value);
    plain.set(tensor, result?.worth ?? value);
    if (result !== undefined) stored.set(`${tensor}${suffix}`, result.scale);
  }
  return { stored, plain };
}

const compressed = (weights: object) => ({
  quantization_config: {
    quant_method: "compressed-tensors",
    format: "float-quantized",
    config_groups: { group_0: { weights: { num_bits: 8, type: "float", ...weights } } },
  },
});
const fp8 = (fields: object) => ({ quantization_config: { quant_method: "fp8", ...fields } });
const whole = 1 << 20;

describe("FP8", () => {
  const layouts: [string, Grid, string, object][] = [
    ["blocks", { rows: 16, columns: 16 }, "_scale_inv", fp8({ weight_block_size: [16, 16] })],
    [
      "blocks of compressed-tensors",
      { rows: 16, columns: 8 },
      "_scale",
      compressed({ strategy: "block", block_structure: [16, 8] }),
    ],
    [
      "blocks of an older compressed-tensors",
      { rows: 16, columns: 8 },
      "_scale",
      compressed({ strategy: "block", block_structure: "16x8" }),
    ],
    ["rows", { rows: 1, columns: whole }, "_scale", compressed({ strategy: "channel" })],
    [
      "rows, scales in one list",
      { rows: 1, columns: whole, store: (across) => [across] },
      "_scale",
      { quantization_config: { quant_method: "fbgemm_fp8" } },
    ],
    ["runs of a row", { rows: 1, columns: 4 }, "_scale", compressed({ strategy: "group", group_size: 4 })],
    [
      "whole weights",
      { rows: whole, columns: whole, store: () => [] },
      "_scale",
      { quantization_config: { quant_method: "modelopt", quant_algo: "FP8" } },
    ],
    [
      "whole weights by name fp8",
      { rows: whole, columns: whole, store: () => [1] },
      "_scale_inv",
      fp8({ weight_block_size: null, activation_scheme: "static" }),
    ],
    [
      "blocks with exponents",
      { rows: 16, columns: 16, exponents: true },
      "_scale_inv",
      fp8({ weight_block_size: [16, 16], scale_fmt: "ue8m0" }),
    ],
    ["rows, and no config", { rows: 1, columns: whole }, "_scale", {}],
  ];
  test.each(layouts)("%s: the loss of the dequantised weights", async (_, grid, suffix, config) => {
    const { stored, plain } = quantised(grid, suffix);
    const loss = await lossOf(await write(stored, config));
    expect(loss).toBeCloseTo(await lossOf(await write(plain)), 5);
    expect(loss).not.toBe(await lossOf(fixturePath(name)));
  });

  test("stacked experts with stacked scales, fused and not", async () => {
    const { stored, plain } = quantised({ rows: 4, columns: 4 }, "_scale_inv");
    const config = fp8({ weight_block_size: [4, 4] });
    const reference = await lossOf(await write(plain));
    for (const layout of ["switch_mlp", "fused"] as const) {
      const stacked = stack(stored, layout);
      expect([...stacked.keys()].some((tensor) => tensor.endsWith("_scale_inv") && tensor.includes("experts.0"))).toBe(
        false,
      );
      expect(await lossOf(await write(stacked, config))).toBeCloseTo(reference, 5);
    }
  });

  test("rows with exponents", async () => {
    const { stored, plain } = quantised({ rows: 1, columns: whole, exponents: true }, "_scale");
    expect(await lossOf(await write(stored, compressed({ strategy: "channel" })))).toBeCloseTo(
      await lossOf(await write(plain)),
      5,
    );
  });

  const refused: [string, (tensors: Map<string, Tensor>) => void, object, RegExp][] = [
    ["no scales", (tensors) => dropAll(tensors, /_scale$/), {}, /is FP8 and has no ".*_scale_inv" or ".*_scale"/],
    ["two sets", (tensors) => copyAll(tensors, "_scale", "_scale_inv"), {}, /two sets of scales/],
    ["zero points", (tensors) => copyAll(tensors, "_scale", "_zero_point"), {}, /asymmetric scales are not read/],
    ["rows where blocks are said", () => undefined, fp8({}), /blocks of 128 x 128 over \[\d+, \d+\] make it \[1, 1\]/],
  ];
  test.each(refused)("%s: refused", async (_, edit, config, message) => {
    const { stored } = quantised({ rows: 1, columns: whole }, "_scale");
    edit(stored);
    await expect(openModel(await write(stored, config))).rejects.toThrow(message);
  });
});

function dropAll(tensors: Map<string, Tensor>, pattern: RegExp): void {
  for (const tensor of [...tensors.keys()]) if (pattern.test(tensor)) tensors.delete(tensor);
}

function copyAll(tensors: Map<string, Tensor>, suffix: string, as: string): void {
  for (const [tensor, value] of [...tensors]) {
    if (tensor.endsWith(suffix)) tensors.set(`${tensor.slice(0, -suffix.length)}${as}`, value);
  }
}

/** Experts one behind the other, as MLX has them, or fused, as transformers 5 has them. */
function stack(tensors: ReadonlyMap<string, Tensor>, layout: "switch_mlp" | "fused"): Map<string, Tensor> {
  const stacked = new Map<string, Tensor>();
  const join = (names: string[]): Tensor => {
    const parts = names.map((part) => tensors.get(part) as Tensor);
    const [first] = parts as [Tensor];
    const data = new Uint8Array(Buffer.concat(parts.map(({ data }) => data)));
    return { ...first, shape: [parts.length, ...first.shape], data };
  };
  for (const [tensor, value] of tensors) {
    const match = /^(.*\.mlp\.)experts\.0\.(gate|up|down)_proj\.weight(.*)$/.exec(tensor);
    if (match === null) {
      if (!/\.experts\.\d/.test(tensor)) stacked.set(tensor, value);
      continue;
    }
    const [, at = "", part = "", suffix = ""] = match;
    const of = (proj: string) =>
      Array.from({ length: source.n_routed_experts }, (_, i) => `${at}experts.${i}.${proj}_proj.weight${suffix}`);
    if (layout === "switch_mlp") stacked.set(`${at}switch_mlp.${part}_proj.weight${suffix}`, join(of(part)));
    else if (part === "down") stacked.set(`${at}experts.down_proj${suffix}`, join(of("down")));
    else if (part === "gate") {
      const up = of("up");
      const both = join(of("gate").flatMap((gate, i) => [gate, up[i] as string]));
      const [parts = 0, rows = 0, ...rest] = both.shape;
      stacked.set(`${at}experts.gate_up_proj${suffix}`, { ...both, shape: [parts / 2, 2 * rows, ...rest] });
    }
  }
  return stacked;
}

describe("other layouts of the same weights", () => {
  const reference = lossOf(fixturePath(name));
  const renamed = (rename: (tensor: string) => string) =>
    new Map([...original].map(([tensor, value]) => [rename(tensor), value]));

  test("stacked experts", async () => {
    expect(await lossOf(await write(stack(original, "switch_mlp")))).toBe(await reference);
    expect(await lossOf(await write(stack(original, "fused")))).toBe(await reference);
  });

  test("MLX: kv_b_proj cut in two", async () => {
    const { num_attention_heads: heads, qk_nope_head_dim: nope, v_head_dim: value, kv_lora_rank: rank } = source;
    const tensors = stack(original, "switch_mlp");
    for (const [tensor, whole] of [...tensors]) {
      if (!tensor.endsWith("kv_b_proj.weight")) continue;
      const at = tensor.replace("kv_b_proj.weight", "");
      const numbers = floats(whole);
      const row = (head: number, i: number, j: number) => numbers[(head * (nope + value) + i) * rank + j] as number;
      const keys = Array.from({ length: heads * rank * nope }, (_, i) =>
        row(Math.floor(i / (rank * nope)), i % nope, Math.floor(i / nope) % rank),
      );
      const values = Array.from({ length: heads * value * rank }, (_, i) =>
        row(Math.floor(i / (value * rank)), nope + (Math.floor(i / rank) % value), i % rank),
      );
      tensors.delete(tensor);
      tensors.set(`${at}embed_q.weight`, float32([heads, rank, nope], keys));
      tensors.set(`${at}unembed_out.weight`, float32([heads, value, rank], values));
    }
    expect(await lossOf(await write(tensors))).toBeCloseTo(await reference, 6);
  });

  test.each([
    ["a composite model", (tensor: string) => tensor.replace(/^model\./, "model.language_model.")],
    ["an older composite model", (tensor: string) => `language_model.${tensor}`],
  ])("names of %s", async (_, rename) => {
    const tensors = renamed(rename);
    tensors.set("model.visual.patch_embed.weight", float32([2], [1, 2]));
    const folder = await write(
      tensors,
      { text_config: { ...source }, model_type: "x", architectures: ["X"] },
      "num_hidden_layers",
    );
    expect(await lossOf(folder)).toBe(await reference);
  });

  test("a tied head that is stored as the head only", async () => {
    const tied = new Map(original);
    tied.set("lm_head.weight", original.get("model.embed_tokens.weight") as Tensor);
    const both = await write(tied, { tie_word_embeddings: true });
    tied.delete("model.embed_tokens.weight");
    const one = await write(tied, { tie_word_embeddings: true });
    expect(await lossOf(one)).toBe(await lossOf(both));
  });
});

describe("contradictions are told", () => {
  const notes = async (tensors: ReadonlyMap<string, Tensor>, config: object = {}) =>
    (await openModel(await write(tensors, config))).notes;

  test("none in a checkpoint that is in order", async () => {
    expect(await notes(original)).toEqual([]);
  });

  test.each([
    ["layers that config.json does not count", {}, { num_hidden_layers: 4 }, /holds layer 4; config.json has 4 layers/],
    [
      "a head beside the embedding that it is tied to",
      {},
      { tie_word_embeddings: true },
      /tie_word_embeddings is true/,
    ],
    ["biases", { "model.layers.0.self_attn.o_proj.bias": float32([2], [1, 2]) }, {}, /without a place in the model/],
    [
      "scales of weights that are not quantised",
      { "model.layers.0.self_attn.o_proj.weight_scale_inv": float32([1, 1], [2]) },
      {},
      /a scale \(.*\) of weights that are not FP8/,
    ],
    [
      "a quantisation that is not there",
      {},
      { quantization_config: { quant_method: "gptq", bits: 4 } },
      /quantised \(gptq, 4 bits\); they are not/,
    ],
  ])("%s", async (_, more, config, message) => {
    const found = await notes(new Map([...original, ...Object.entries(more)]), config);
    expect(found).toEqual([expect.stringMatching(message)]);
  });

  test("fewer layers than config.json counts", async () => {
    await expect(openModel(await write(original, { num_hidden_layers: 6 }))).rejects.toThrow(
      expect.objectContaining({ hint: "the checkpoint holds 5 layers, config.json says 6 (num_hidden_layers)" }),
    );
  });

  test("an adapter beside the weights", async () => {
    const folder = await write(original);
    await writeFile(join(folder, "adapter_config.json"), JSON.stringify({ peft_type: "LORA", r: 8 }));
    await expect(openModel(folder)).rejects.toThrow(/an adapter \(LORA, rank 8; adapter_config.json\).*not applied/);
    await expect(openModel(folder, { withAdapter: true })).resolves.toBeDefined();
  });
});

describe("formats that are not read are named", () => {
  const bytes = (dtype: string, shape: number[], length: number): Tensor => ({
    dtype,
    shape,
    data: new Uint8Array(length),
  });
  const formats: [string, (at: string) => [string, Tensor][], object, RegExp][] = [
    [
      "compressed-tensors, 4 bits",
      (at) => [
        [`${at}.weight_packed`, bytes("I32", [2], 8)],
        [`${at}.weight_scale`, bytes("BF16", [2], 4)],
      ],
      {
        quant_method: "compressed-tensors",
        format: "pack-quantized",
        config_groups: { group_0: { weights: { num_bits: 4, type: "int", strategy: "group" } } },
      },
      /compressed-tensors, pack-quantized, 4 bits, by group/,
    ],
    [
      "NVFP4",
      (at) => [
        [`${at}.weight`, bytes("U8", [2], 2)],
        [`${at}.weight_scale_2`, bytes("F32", [], 4)],
      ],
      { quant_method: "modelopt", quant_algo: "NVFP4" },
      /modelopt, NVFP4; its tensors are NVFP4/,
    ],
    ["NVFP4 that only its tensors tell", (at) => [[`${at}.weight`, bytes("F4", [4], 2)]], {}, /4-bit floating point/],
    [
      "GPTQ",
      (at) => [
        [`${at}.qweight`, bytes("I32", [2], 8)],
        [`${at}.g_idx`, bytes("I32", [2], 8)],
      ],
      { quant_method: "gptq", bits: 4 },
      /gptq, 4 bits; its tensors are GPTQ/,
    ],
    [
      "AWQ",
      (at) => [
        [`${at}.qweight`, bytes("I32", [2], 8)],
        [`${at}.qzeros`, bytes("I32", [2], 8)],
      ],
      { quant_method: "awq", bits: 4 },
      /awq, 4 bits/,
    ],
    [
      "bitsandbytes",
      (at) => [
        [`${at}.weight`, bytes("U8", [2, 1], 2)],
        [`${at}.weight.absmax`, bytes("F32", [1], 4)],
      ],
      { quant_method: "bitsandbytes", load_in_4bit: true, bnb_4bit_quant_type: "nf4" },
      /bitsandbytes, nf4, 4 bits/,
    ],
    [
      "MLX",
      (at) => [
        [`${at}.weight`, bytes("U32", [2], 8)],
        [`${at}.biases`, bytes("BF16", [2], 4)],
      ],
      {},
      /MLX, quantised/,
    ],
    [
      "a format that only config.json names",
      (at) => [[`${at}.trellis`, bytes("U8", [2], 2)]],
      { quant_method: "exl3", bits: 4 },
      /exl3, 4 bits/,
    ],
    ["INT8", (at) => [[`${at}.weight`, bytes("I8", [2], 2)]], {}, /INT8/],
    ["FP8 E5M2", (at) => [[`${at}.weight`, bytes("F8_E5M2", [2], 2)]], {}, /FP8 E5M2/],
  ];
  test.each(formats)("%s", async (_, replace, config, message) => {
    const tensors = new Map<string, Tensor>();
    for (const [tensor, value] of original) {
      if (!isLinear(tensor, value)) tensors.set(tensor, value);
      else for (const [part, packed] of replace(tensor.slice(0, -".weight".length))) tensors.set(part, packed);
    }
    const declared = Object.keys(config).length === 0 ? {} : { quantization_config: config };
    const opening = openModel(await write(tensors, declared));
    await expect(opening).rejects.toThrow(message);
    await expect(opening).rejects.toThrow(/is quantised in a format that is not read/);
  });

  test.each([
    ["layers.0.attn.wq_a.weight", /names of DeepSeek's own inference code/],
    ["decoder.layers.0.self_attention.linear_proj.weight", /names of Megatron/],
    ["base_model.model.model.layers.0.self_attn.q_a_proj.lora_A.weight", /names of an adapter/],
  ])("%s", async (tensor, message) => {
    const folder = await write(new Map([[tensor, float32([1], [0])]]));
    await expect(openModel(folder)).rejects.toThrow(message);
  });

  test("experts the other way round", async () => {
    const tensors = stack(original, "fused");
    for (const [tensor, value] of tensors) {
      const [experts = 0, rows = 0, columns = 0] = value.shape;
      if (tensor.endsWith("gate_up_proj")) tensors.set(tensor, { ...value, shape: [experts, columns, rows] });
    }
    await expect(openModel(await write(tensors))).rejects.toThrow(
      expect.objectContaining({ hint: "these experts are stored transposed, a layout that is not read" }),
    );
  });
});
