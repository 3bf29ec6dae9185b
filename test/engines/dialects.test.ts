/** Each engine's reading, as it was read from its source; docs/log.md says from which. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { dialectAt, dialects, type EngineName, engineNames } from "../../src/engines/engines.ts";
import { type IndexFields, indexFieldsSchema } from "../../src/engines/index-fields.ts";
import { modelOfLayers, parseServedModel, type ServedModel } from "../../src/engines/served-model.ts";
import { fullLayers, parsePattern } from "../../src/pattern/pattern.ts";
import { deepseekV32, glm5, glm52Pattern, glmConfig, v4Flash } from "./models.ts";

const half = "FFSFSSSFSSFFFSSSFFFSFSSSSSSFFSFFSFFSSFFFFFFSFFFFFSFFSSSSSSFSFFFSFSSSFSFFSFFSSS";

function run(engine: EngineName, fields: IndexFields, model: ServedModel): string {
  const schedule = dialects[engine].schedule(fields, model);
  return "letters" in schedule ? schedule.letters : schedule.failure;
}

/** Its config class derives nothing: what an override says is all that there is. */
const ten = modelOfLayers(10, "deepseek_v32");
const glmTen = modelOfLayers(10, "glm_moe_dsa");

function configOf(fields: object): ServedModel {
  return parseServedModel(JSON.stringify(fields), "config.json");
}

/** Engines that read index_topk_pattern and index_topk_freq of an override. */
const readers = engineNames.filter((engine) => engine !== "lmdeploy" && engine !== "llama.cpp");

describe("index_topk_freq on DeepSeek-V3.2 and GLM-5", () => {
  test.each(readers)("%s keeps layers 0 and 1 of freq 4: the off-by-one", (engine) => {
    const fields = { use_index_cache: true, index_topk_freq: 4 };
    expect(run(engine, fields, ten)).toBe("FFSSSFSSSF");
    expect(fullLayers(parsePattern(run(engine, fields, deepseekV32)))).toHaveLength(16);
  });

  test.each<[EngineName, string]>([
    ["vllm", "FFFSSSFSSS"],
    ["sglang", "FFFSSSFSSS"],
    ["transformers", "FFFSSSFSSS"],
    ["tensorrt-llm", "FFFSSSFSSS"],
    ["vllm-ascend", "FFFSSSFSSS"],
    ["atom", "FFFFSSSFSS"],
  ])("offset 3 is %s: %s, ATOM counts one lower", (engine, letters) => {
    expect(run(engine, { index_topk_freq: 4, index_skip_topk_offset: 3 }, ten)).toBe(letters);
  });

  test("freq 4 with offset 3 is GLM-5.2's own schedule, but not ATOM's fallback", () => {
    const fields = { index_topk_freq: 4, index_skip_topk_offset: 3 };
    expect(run("vllm", fields, glm5)).toBe(glm52Pattern);
    expect(fullLayers(parsePattern(run("atom", fields, glm5)))).toHaveLength(22);
    const types = [...glm52Pattern].map((letter) => (letter === "F" ? "full" : "shared"));
    expect(run("atom", { ...fields, indexer_types: types }, glm5)).toBe(glm52Pattern);
  });

  test("an offset of 0 shares layer 0 in vLLM, ends SGLang, is repaired by TensorRT-LLM", () => {
    const fields = { index_topk_freq: 4, index_skip_topk_offset: 0 };
    expect(run("vllm", fields, ten)).toBe("SSSFSSSFSS");
    expect(run("sglang", fields, ten)).toContain("AssertionError");
    expect(run("tensorrt-llm", fields, ten)).toBe("FSSFSSSFSS");
  });
});

describe("index_topk_pattern on DeepSeek-V3.2 and GLM-5", () => {
  test.each(engineNames)("%s runs what its own fields say", (engine) => {
    const dialect = dialects[engine];
    expect(run(engine, dialect.fields(parsePattern(half), glm5), glm5)).toBe(half);
  });

  test("the gate: ATOM ignores a pattern without use_index_cache, the others do not need it", () => {
    const bare = { index_topk_pattern: "FSFSSSFSSF" };
    for (const engine of readers) expect(run(engine, bare, ten)).toBe(engine === "atom" ? "FFFFFFFFFF" : "FSFSSSFSSF");
  });

  test("a short pattern: the rest is Full in silence, transformers and xLLM end", () => {
    const short = { use_index_cache: true, index_topk_pattern: "FSSS" };
    const ends: Partial<Record<EngineName, string>> = {
      transformers: "IndexError: index_topk_pattern ends before layer 4",
      xllm: "CHECK failed: the pattern has 4 letters for 10 layers",
    };
    for (const engine of readers) expect(run(engine, short, ten)).toBe(ends[engine] ?? "FSSSFFFFFF");
  });

  test("lower case: Full in silence, shared by TensorRT-LLM, a KeyError of transformers", () => {
    const lower = { use_index_cache: true, index_topk_pattern: "FsFsFsFsFs" };
    expect(run("vllm", lower, ten)).toBe("FFFFFFFFFF");
    expect(run("sglang", lower, ten)).toBe("FFFFFFFFFF");
    expect(run("tensorrt-llm", lower, ten)).toBe("FSFSFSFSFS");
    expect(run("xllm", lower, ten)).toBe("FSFSFSFSFS");
    expect(run("transformers", lower, ten)).toBe("KeyError: 's' in index_topk_pattern");
  });

  test("a leading S stays in vLLM, TensorRT-LLM forces layer 0", () => {
    const leading = { index_topk_pattern: "SSFSSSFSSF" };
    expect(run("vllm", leading, ten)).toBe("SSFSSSFSSF");
    expect(run("tensorrt-llm", leading, ten)).toBe("FSFSSSFSSF");
  });

  test("indexer_types wins in some engines, and is not read by the others", () => {
    const types = { indexer_types: Array.from({ length: 10 }, () => "full") };
    const both = { use_index_cache: true, index_topk_pattern: "FSFSSSFSSF", ...types };
    for (const engine of engineNames) {
      const wins = ["transformers", "atom", "sglang", "lmdeploy", "llama.cpp"].includes(engine);
      expect(run(engine, both, ten)).toBe(wins ? "FFFFFFFFFF" : "FSFSSSFSSF");
    }
  });

  test("an override of the pattern alone does not reach GLM-5 where its config class has filled in the types", () => {
    const alone = { use_index_cache: true, index_topk_pattern: "FSFSSSFSSF" };
    for (const engine of ["sglang", "lmdeploy"] as const) expect(run(engine, alone, glmTen)).toBe("FFFFFFFFFF");
    const { dialect } = dialectAt("sglang", "0.5.19");
    expect(dialect.schedule(alone, glmTen)).toEqual({ letters: "FSFSSSFSSF" });
  });

  test("vllm-ascend gets no indexer_types, ATOM gets one where the config can have it", () => {
    const native = glmConfig({ indexer_types: Array.from({ length: 10 }, () => "full") });
    const pattern = parsePattern("FSFSSSFSSF");
    expect(dialects["vllm-ascend"].fields(pattern, native)).not.toHaveProperty("indexer_types");
    expect(dialects.atom.fields(pattern, ten)).not.toHaveProperty("indexer_types");
    const fields = dialects.atom.fields(pattern, native);
    expect(run("atom", fields, native)).toBe(pattern);
    expect(dialects.atom.fields(pattern, glmTen)).toHaveProperty("indexer_types");
  });

  test("nobody writes index_topk_freq: above 1 it would switch on other things", () => {
    for (const engine of engineNames) {
      expect(dialects[engine].fields(parsePattern(half), glm5)).not.toHaveProperty("index_topk_freq");
    }
  });
});

describe("DeepSeek-V4-Flash, 21 layers with an indexer among 43", () => {
  const uniform = "FSSSFSSSFSSSFSSSFSSSF";

  test("freq 4 counts indexers, and means two different things", () => {
    const fields = { use_index_cache: true, index_topk_freq: 4 };
    expect(v4Flash.indexers).toHaveLength(21);
    expect(run("vllm", fields, v4Flash)).toBe(uniform);
    expect(run("atom", fields, v4Flash)).toBe(uniform);
    expect(run("vllm-ascend", fields, v4Flash)).toBe("FFSSSFSSSFSSSFSSSFSSS");
  });

  test("every engine that shares there needs the gate", () => {
    for (const engine of ["vllm", "atom", "vllm-ascend"] as const) {
      expect(run(engine, { index_topk_freq: 4 }, v4Flash)).toBe("F".repeat(21));
    }
  });

  test("a pattern has 21 letters, for ATOM 43 by layer", () => {
    const pattern = parsePattern("FFSSSFSSFSSSSFSSSSSSS");
    expect(dialects.vllm.fields(pattern, v4Flash).index_topk_pattern).toBe(pattern);
    const absolute = dialects.atom.fields(pattern, v4Flash).index_topk_pattern ?? "";
    expect(absolute).toHaveLength(43);
    expect(v4Flash.indexers.map((layer) => absolute[layer]).join("")).toBe(pattern);
    for (const engine of ["vllm", "atom", "vllm-ascend"] as const) {
      expect(run(engine, dialects[engine].fields(pattern, v4Flash), v4Flash)).toBe(pattern);
    }
  });

  test.each<[EngineName, string, string]>([
    ["vllm", "FFSS", "ValueError: index_topk_pattern has 4 letters for 21 C4A layers"],
    ["vllm", `S${"F".repeat(20)}`, "ValueError: the first C4A layer must be F"],
    ["vllm", "f".repeat(21), "ValueError: index_topk_pattern has letters other than F and S"],
    ["vllm-ascend", "FS", `FS${"F".repeat(19)}`],
    ["vllm-ascend", "SF", "AssertionError: index_topk_pattern must start with F"],
    ["atom", "S".repeat(43), "F".repeat(21)],
  ])("%s makes of %s: %s", (engine, pattern, outcome) => {
    expect(run(engine, { use_index_cache: true, index_topk_pattern: pattern }, v4Flash)).toBe(outcome);
  });

  test("every engine is refused but vLLM, vllm-ascend and ATOM", () => {
    for (const engine of engineNames) {
      const refused = !["vllm", "vllm-ascend", "atom"].includes(engine);
      expect(dialects[engine].refusal(v4Flash) !== undefined).toBe(refused);
    }
  });
});

describe("transformers itself", () => {
  const golden = z
    .object({
      transformers: z.string(),
      cases: z.array(
        z.object({
          case: z.string(),
          model_type: z.string(),
          layers: z.number(),
          fields: indexFieldsSchema,
          index_topk_pattern: z.string().optional(),
          argument: z.string().optional(),
          build: z.string().optional(),
          full_layers: z.array(z.number()).optional(),
          forward: z.string().optional(),
        }),
      ),
    })
    .parse(JSON.parse(readFileSync(join(import.meta.dirname, "transformers-layers.json"), "utf8")));

  test.each(golden.cases)("$case", (observed) => {
    const model = modelOfLayers(observed.layers, observed.model_type);
    if (dialects.transformers.refusal(model) !== undefined) {
      expect(observed.full_layers).toHaveLength(observed.layers);
      return;
    }
    const schedule = dialects.transformers.schedule(observed.fields, model);
    if ("failure" in schedule) {
      expect(schedule.failure).toContain(observed.build ?? "transformers builds this");
      return;
    }
    const letters = [...schedule.letters];
    expect(letters.flatMap((letter, layer) => (letter === "F" ? [layer] : []))).toEqual(observed.full_layers);
    expect(observed.forward).toBe(letters[0] === "F" ? "runs" : "ValueError");
  });

  test("built what the dialect emits, pasted and written", () => {
    const emitted = golden.cases.filter(({ index_topk_pattern: pattern }) => pattern !== undefined);
    expect(emitted).toHaveLength(4);
    for (const { index_topk_pattern: pattern = "", fields, full_layers: full, argument } of emitted) {
      const own = dialects.transformers.fields(parsePattern(pattern), glm5);
      expect(fields).toEqual(own);
      expect(full).toEqual(fullLayers(parsePattern(pattern)));
      if (argument !== undefined) expect(dialects.transformers.argument(own)).toEqual([argument]);
    }
  });
});

describe("the rules of each release, run", () => {
  const golden = z
    .object({
      layers: z.number(),
      cases: z.array(
        z.object({
          engine: z.enum(engineNames),
          release: z.string(),
          case: z.string(),
          model_type: z.string(),
          fields: indexFieldsSchema,
          override: indexFieldsSchema,
          letters: z.string().optional(),
          failure: z.string().optional(),
        }),
      ),
    })
    .parse(JSON.parse(readFileSync(join(import.meta.dirname, "release-rules.json"), "utf8")));
  const releases = [...new Set(golden.cases.map(({ engine, release }) => `${engine} ${release}`))];

  test.each(releases)("%s", (name) => {
    const cases = golden.cases.filter(({ engine, release }) => `${engine} ${release}` === name);
    expect(cases.length).toBeGreaterThan(5);
    for (const { engine, release, override, fields, ...observed } of cases) {
      const { dialect } = dialectAt(engine, release);
      const model = configOf({ model_type: observed.model_type, num_hidden_layers: golden.layers, ...fields });
      const schedule = dialect.schedule(override, model);
      const outcome = "letters" in schedule ? schedule.letters : schedule.failure.split(":")[0];
      expect([observed.case, observed.model_type, outcome]).toEqual([
        observed.case,
        observed.model_type,
        observed.letters ?? observed.failure,
      ]);
    }
  });

  test("what is written for GLM-5 and DeepSeek-V3.2 acts in every release", () => {
    const pattern = parsePattern("FSSFSSSSSFSS");
    for (const name of releases) {
      const [engine, release] = name.split(" ") as [EngineName, string];
      const { dialect } = dialectAt(engine, release);
      for (const type of ["glm_moe_dsa", "deepseek_v32"]) {
        const model = configOf({ model_type: type, num_hidden_layers: 12 });
        if (dialect.refusal(model) !== undefined) continue;
        expect([name, dialect.schedule(dialect.fields(pattern, model), model)]).toEqual([name, { letters: pattern }]);
      }
    }
  });
});

describe("--engine-version", () => {
  test("takes what is known, warns about what is newer, refuses what is older or has no releases here", () => {
    expect(dialectAt("sglang").dialect.version).toBe("0.5.23");
    expect(dialectAt("sglang", "v0.5.20")).not.toHaveProperty("note");
    expect(dialectAt("vllm", "0.33.0.post1")).not.toHaveProperty("note");
    expect(dialectAt("vllm", "0.40.1").note).toBe(
      "vLLM 0.40.1 is newer than any release that was read; the rules are those of 0.33.0",
    );
    expect(dialectAt("vllm", "0.26.0").note).toContain("itself was not read");
    expect(() => dialectAt("vllm", "0.20.2")).toThrow("older than any release that was read: 0.22.0 is the oldest");
    expect(() => dialectAt("atom", "1.0")).toThrow("releases of it are not told apart here");
    for (const text of ["new", "", "1.2.3.4.5", `1.${"9".repeat(50)}`]) {
      expect(() => dialectAt("vllm", text)).toThrow("is no version of an engine");
    }
  });
});

describe("a checkpoint that ships the indexers of Shared layers", () => {
  const pattern = parsePattern("FSSFSSSSSFSS");
  const shipped = { ...configOf({ model_type: "deepseek_v32", num_hidden_layers: 12 }), shipped: "F".repeat(12) };

  test.each([
    ["0.23.0", false],
    ["0.24.0", true],
    ["0.25.1", false],
    ["0.28.0", false],
    ["0.29.0", true],
    ["0.33.0", true],
  ])("vLLM %s fails at load: %s", (release, fails) => {
    const { dialect } = dialectAt("vllm", release);
    const fault = dialect.loadFault?.(pattern, shipped);
    expect(fault !== undefined).toBe(fails);
    if (fault === undefined) return;
    expect(fault.message).toContain("KeyError: 'layers.1.self_attn.indexer.wq_b.weight'");
    expect(fault.certain).toBe(true);
    expect(fault.waysOut.join()).toContain("indexcache pattern apply");
    expect(dialect.loadFault?.("F".repeat(12), shipped)).toBeUndefined();
    expect(dialect.loadFault?.(pattern, { ...shipped, shipped: pattern })).toBeUndefined();
  });

  test("the config tells where the weights were not looked at, letters alone do not", () => {
    const { loadFault } = dialects.vllm;
    const glm52 = configOf({
      model_type: "glm_moe_dsa",
      num_hidden_layers: 12,
      index_topk_freq: 4,
      index_skip_topk_offset: 3,
    });
    expect(loadFault?.("FFFSSSFSSSFS", glm52)).toBeUndefined();
    expect(loadFault?.("FFFSSSSSSSFS", glm52)?.message).toContain("layers.6.self_attn");
    expect(loadFault?.(pattern, modelOfLayers(12))?.certain).toBe(false);
  });
});

test("every dialect says what it was read from", () => {
  for (const engine of engineNames) {
    expect(dialects[engine].engine).toBe(engine);
    expect(dialects[engine].readFrom).toMatch(/\d/);
  }
});
