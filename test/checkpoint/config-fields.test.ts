/** What config.json may say, and what is made of it; expected numbers are transformers' (5.24, modeling_rope_utils). */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InputError } from "../../src/base/errors.ts";
import { parseModelConfig } from "../../src/checkpoint/config/config-json.ts";
import { largestSizes } from "../../src/checkpoint/config/config-schema.ts";
import { reduceConfig } from "../../src/checkpoint/config/reduced-config.ts";
import { parseServedModel } from "../../src/engines/served-model.ts";
import { fixturePath } from "../oracle.ts";

const glm = JSON.parse(await readFile(join(fixturePath("glm-groups"), "config.json"), "utf8"));
const v32 = JSON.parse(await readFile(join(fixturePath("v32-fp8"), "config.json"), "utf8"));
const parse = (changes: object, base: object = glm) => parseModelConfig({ ...base, ...changes }, "config.json", "test");
const without = (field: string, base: Record<string, unknown> = glm) =>
  Object.fromEntries(Object.entries(base).filter(([name]) => name !== field));

describe("RoPE", () => {
  const rope = (changes: object) => parse({ qk_rope_head_dim: 16, index_head_dim: 16, ...changes }).rope;
  const frequencies = (changes: object) => [...rope(changes).inverseFrequencies].map((x) => Number(x.toPrecision(3)));
  const million = [1, 0.178, 0.0316, 0.00562, 0.001, 0.000178, 0.0000316, 0.00000562];
  const parameters = { rope_type: "default", rope_theta: 1_000_000 };

  test("an empty rope_scaling is none, as in Python", () => {
    for (const rope_scaling of [{}, null, undefined]) {
      expect(frequencies({ rope_parameters: parameters, rope_scaling })).toEqual(million);
    }
    expect(frequencies({ rope_parameters: {}, rope_scaling: null, rope_theta: 1_000_000 })).toEqual(million);
    expect(frequencies({ rope_parameters: null, rope_theta: 1_000_000 })).toEqual(million);
  });

  test("rope_scaling wins with all that it says and does not say, and that is told", () => {
    const two = { rope_scaling: { type: "linear", factor: 4 }, rope_parameters: parameters };
    const { rope: read, notes } = parse({ qk_rope_head_dim: 4, ...two });
    expect([...read.inverseFrequencies].map((x) => Number(x.toPrecision(3)))).toEqual([0.25, 0.0025]);
    expect(notes).toEqual([expect.stringContaining("rope_scaling and rope_parameters differ")]);
    expect(parse({ rope_scaling: parameters, rope_parameters: parameters }).notes).toEqual([]);
  });

  test("YaRN: 0 and null are defaults where Python asks for truth, and null is false where it asks for a flag", () => {
    const yarn = { rope_type: "yarn", rope_theta: 10000, factor: 8, original_max_position_embeddings: 64 };
    const plain = rope({ rope_parameters: yarn });
    for (const zero of [{ beta_fast: 0, beta_slow: 0 }, { beta_fast: null, beta_slow: null }, { mscale: 0 }]) {
      expect(rope({ rope_parameters: { ...yarn, ...zero } })).toEqual(plain);
    }
    const ragged = rope({ rope_parameters: { ...yarn, truncate: false } });
    expect(ragged).not.toEqual(plain);
    expect(rope({ rope_parameters: { ...yarn, truncate: null } })).toEqual(ragged);
    const ratio = { max_position_embeddings: 512, rope_parameters: { ...yarn, factor: null } };
    expect(rope(ratio)).toEqual(plain);
  });

  test("YaRN without an original window takes the model's own default", () => {
    const yarn = { rope_type: "yarn", factor: 8 };
    const stated = rope({ rope_parameters: { ...yarn, original_max_position_embeddings: 202752 } });
    const assumed = without("max_position_embeddings");
    const read = parseModelConfig(
      { ...assumed, qk_rope_head_dim: 16, index_head_dim: 16, rope_parameters: yarn },
      "config.json",
      "test",
    );
    expect(read.rope).toEqual(stated);
    expect(rope({ original_max_position_embeddings: 202752, rope_parameters: yarn })).toEqual(stated);
  });

  test("refuses what it cannot compute", () => {
    const refused: [object, RegExp][] = [
      [{ rope_type: "yarn" }, /rope_type yarn needs a factor/],
      [{ type: "linear" }, /rope_type linear needs a factor/],
      [{ rope_type: "llama3", factor: 8 }, /rope_type "llama3" is not supported/],
      [{ rope_type: "default", partial_rotary_factor: 0.5 }, /partial_rotary_factor/],
      [{ full_attention: { rope_theta: 1 } }, /kinds of layers/],
      [{ rope_theta: "10000" }, /rope_theta": .*expected number, received string/],
      [{ rope_type: "yarn", factor: 4, mscale_all_dim: 1e308, original_max_position_embeddings: 4096 }, /not finite/],
      [{ rope_theta: 0 }, /rope_theta": must be positive/],
      [{ rope_theta: 1e60 }, /rope_theta": must be positive and within the range of float32/],
    ];
    for (const [rope_parameters, message] of refused) expect(() => parse({ rope_parameters })).toThrow(message);
  });
});

describe("identity", () => {
  const kinds: [string, object, string | RegExp][] = [
    ["V3.2 that calls itself V3", { model_type: "deepseek_v3" }, "deepseek_v32"],
    [
      "V3.2 by index_topk alone",
      { model_type: "deepseek_v3", architectures: ["DeepseekV3ForCausalLM"] },
      "deepseek_v32",
    ],
    ["V3.2 by index_topk without architectures", { model_type: "deepseek_v3", architectures: null }, "deepseek_v32"],
    ["a class and no model_type", { model_type: undefined }, "deepseek_v32"],
    ["the class of the bare model", { architectures: ["DeepseekV32Model"] }, "deepseek_v32"],
    ["two that disagree", { model_type: "glm_moe_dsa" }, /contradicts itself.*"glm_moe_dsa".*DeepseekV32ForCausalLM/],
    ["another model's type", { model_type: "llama" }, /model_type "llama" is not supported/],
    ["nothing", { model_type: undefined, architectures: undefined }, /has no model_type/],
  ];
  test.each(kinds)("%s", (_, changes, expected) => {
    if (expected instanceof RegExp) expect(() => parse(changes, v32)).toThrow(expected);
    else expect(parse(changes, v32).modelType).toBe(expected);
  });

  test("V3 without indexers is refused with the reason", () => {
    const v3 = { ...without("index_topk", v32), model_type: "deepseek_v3", architectures: ["DeepseekV3ForCausalLM"] };
    expect(() => parseModelConfig(v3, "config.json", "test")).toThrow(
      expect.objectContaining({ hint: expect.stringContaining("no indexers") }),
    );
  });

  test("what was concluded is told, what was read is not", () => {
    expect(parse({ model_type: "deepseek_v3" }, v32).notes).toEqual([
      '"config.json" has model_type "deepseek_v3"; read as deepseek_v32, going by DeepseekV32ForCausalLM and index_topk',
    ]);
    expect(parse({}, v32).notes).toEqual([]);
  });

  test("engines see the same model", () => {
    const text = JSON.stringify({ ...v32, model_type: "deepseek_v3" });
    expect(parseServedModel(text, "config.json").modelType).toBe("deepseek_v32");
  });

  test("the language model of a composite config is found in text_config", () => {
    const { tie_word_embeddings, ...inner } = glm;
    const outer = {
      model_type: "glm5v",
      architectures: ["Glm5vForConditionalGeneration"],
      tie_word_embeddings: true,
      text_config: inner,
    };
    const read = parseModelConfig(outer, "config.json", "test");
    expect(read).toMatchObject({ modelType: "glm_moe_dsa", numHiddenLayers: 5, tieWordEmbeddings: true });
    expect(reduceConfig(outer, "config.json", "test", { layers: 2 }).config.numHiddenLayers).toBe(2);
  });
});

describe("sizes", () => {
  test("have bounds, every one", () => {
    const sizes = [
      "vocab_size",
      "hidden_size",
      "num_hidden_layers",
      "num_attention_heads",
      "q_lora_rank",
      "kv_lora_rank",
      "qk_nope_head_dim",
      "qk_rope_head_dim",
      "v_head_dim",
      "intermediate_size",
      "moe_intermediate_size",
      "n_routed_experts",
      "num_experts_per_tok",
      "n_group",
      "topk_group",
      "max_position_embeddings",
      "index_topk",
      "index_head_dim",
      "index_n_heads",
    ];
    for (const field of sizes) {
      for (const value of [1e10, 0, -4, 2.5, "8", true, [8], {}]) {
        expect(() => parse({ [field]: value }), `${field} ${value}`).toThrow(`"config.json": "${field}": `);
      }
    }
    expect(() => parse({ num_hidden_layers: largestSizes.layers + 1 })).toThrow(/whole number from 1 to 1,000/);
    expect(() => parseServedModel(JSON.stringify({ ...glm, num_hidden_layers: 1e9 }), "config.json")).toThrow(
      /num_hidden_layers": must be a whole number from 1 to 1,000/,
    );
  });

  test("numbers that float32 cannot hold are refused", () => {
    for (const value of [1e-60, 1e39, 0, -1e-6]) {
      expect(() => parse({ rms_norm_eps: value })).toThrow(/"rms_norm_eps": must be positive/);
      expect(() => parse({ routed_scaling_factor: value })).toThrow(/"routed_scaling_factor": must be positive/);
    }
  });

  test("names of the same number must agree", () => {
    expect(parse({ num_local_experts: 8, num_experts: null }).nRoutedExperts).toBe(8);
    expect(() => parse({ num_experts: 16 })).toThrow(/n_routed_experts is 8 and num_experts is 16/);
  });

  test("absent fields are transformers' defaults; null is false, and no group", () => {
    const dense = without("n_group", without("topk_group", without("index_n_heads", v32)));
    expect(parseModelConfig({ ...dense, n_routed_experts: 256 }, "c", "t")).toMatchObject({
      nGroup: 8,
      topkGroup: 4,
      indexNHeads: 64,
    });
    expect(parse({ n_group: null, topk_group: null, norm_topk_prob: null })).toMatchObject({
      nGroup: 1,
      normTopkProb: false,
    });
    expect(parse({ attention_bias: null }).attentionBias).toBe(false);
  });

  test("any value in any field is either read or refused by name", () => {
    const anything = fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.double(), fc.bigInt().map(Number), fc.constant(1e308));
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(glm), "rope_scaling", "text_config"), anything, (field, value) => {
        try {
          expect(parse({ [field]: value }).numHiddenLayers).toBeLessThanOrEqual(largestSizes.layers);
        } catch (error) {
          if (!(error instanceof InputError)) throw error;
          expect(error.message).toMatch(/^"config.json"/);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("fields that contradict each other are told of", () => {
  const types = (letters: string) => [...letters].map((letter) => (letter === "F" ? "full" : "shared"));

  test("sharing: transformers' order decides", () => {
    const { indexerLayers, notes } = parse({ indexer_types: types("FSSFS"), index_topk_pattern: "FFFSS" });
    expect(indexerLayers).toBe("FSSFS");
    expect(notes).toEqual([
      `"config.json": index_topk_pattern and indexer_types differ; indexer_types is used (FSSFS), as transformers does, and engines may go by the other`,
    ]);
    expect(parse({ indexer_types: types("FSSFS"), index_topk_pattern: "sfsfs" }).notes).toHaveLength(1);
  });

  test("nothing is said where they agree, or where a field is only its default", () => {
    expect(parse({ indexer_types: types("FFFSS"), index_topk_pattern: "FFFSS", index_topk_freq: 1 }).notes).toEqual([]);
    const frequency = { index_topk_freq: 4, index_skip_topk_offset: 3 };
    expect(parse({ indexer_types: types("FSSFS"), index_topk_pattern: null, ...frequency }).notes).toEqual([]);
  });

  test("rope_theta and the dense layers", () => {
    const parameters = { rope_type: "default", rope_theta: 10_000 };
    expect(parse({ rope_theta: 500_000, rope_parameters: parameters }).notes).toEqual([
      `"config.json": rope_theta is 500000, and 10000 inside the RoPE parameters; that is used, as transformers does`,
    ]);
    expect(parse({ rope_theta: 10_000, rope_parameters: parameters }).notes).toEqual([]);
    const layers = ["dense", "sparse", "sparse", "sparse", "sparse"];
    expect(parse({ mlp_layer_types: layers, first_k_dense_replace: 2 }).notes).toEqual([
      expect.stringMatching(/first_k_dense_replace is 2, and mlp_layer_types begins with 1 dense/),
    ]);
    expect(parse({ mlp_layer_types: layers, first_k_dense_replace: 1 }).notes).toEqual([]);
  });

  test("a composite config that repeats numbers on the outside is still read from text_config", () => {
    const config = { model_type: "glm_moe_dsa_vl", num_hidden_layers: 5, vision_config: {}, text_config: glm };
    expect(parseModelConfig(config, "config.json", "test").notes).toEqual([
      expect.stringMatching(/the language model is the one of text_config/),
    ]);
  });
});
