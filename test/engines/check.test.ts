import { describe, expect, test } from "vitest";
import { checkPattern, type EngineCheck, stageHeads } from "../../src/engines/check.ts";
import { dialects, type EngineName, engineNames } from "../../src/engines/engines.ts";
import type { IndexFields } from "../../src/engines/index-fields.ts";
import { modelOfLayers, type ServedModel } from "../../src/engines/served-model.ts";
import { parsePattern } from "../../src/pattern/pattern.ts";
import { stageStarts } from "../../src/pattern/pipeline-stages.ts";
import { deepseekV32, glm5, glm52Pattern, glmConfig, v4Flash } from "./models.ts";

const half = "FFSFSSSFSSFFFSSSFFFSFSSSSSSFFSFFSFFSSFFFFFFSFFFFFSFFSSSSSSFSFFFSFSSSFSFFSFFSSS";

function errors(letters: string, model: ServedModel, engine?: EngineName, rest: Partial<EngineCheck> = {}): string[] {
  const applied = engine === undefined ? undefined : { dialect: dialects[engine], ...rest };
  return checkPattern(letters, model, applied).flatMap(({ severity, message }) =>
    severity === "error" ? [message] : [],
  );
}

function warnings(letters: string, model: ServedModel, engine: EngineName, rest: Partial<EngineCheck> = {}): string[] {
  return checkPattern(letters, model, { dialect: dialects[engine], ...rest }).flatMap(({ severity, message }) =>
    severity === "warning" ? [message] : [],
  );
}

const ten = modelOfLayers(10, "glm_moe_dsa");

describe("the letters", () => {
  test("a published pattern passes", () => {
    expect(errors(half, glm5)).toEqual([]);
    for (const engine of engineNames) {
      expect(errors(half, glm5, engine)).toEqual([]);
    }
  });

  test("lower case is named as such", () => {
    expect(errors("FfSsFFFFFF", ten)).toEqual([
      '2 letters in lower case, at layers 1 and 3: engines compare with "S" and take "s" for Full without a word',
    ]);
  });

  test("other letters are named with their layer", () => {
    expect(errors("FFSXFFFFFF", ten)).toEqual(['"X" at layer 3 is no letter of a pattern: F is Full, S is Shared']);
    expect(errors("", ten)).toEqual(["the pattern is empty"]);
  });

  test("a wrong length says both, and what the engine would do", () => {
    expect(errors(half, deepseekV32)).toEqual(["the pattern has 78 letters, the model 61 backbone layers"]);
    expect(errors("FSFS", ten, "vllm")).toEqual([
      "the pattern has 4 letters, the model 10 backbone layers; vLLM: layers past the end are Full, without a word",
    ]);
  });

  test("a letter for the MTP layer is recognised", () => {
    const model = glmConfig({ num_nextn_predict_layers: 1 }, 78);
    expect(errors(`${half}F`, model)).toEqual([
      "the pattern has 79 letters, the model 78 backbone layers; prediction (MTP) layers have no letter",
    ]);
  });

  test("a first S says what comes of it", () => {
    expect(errors("SFFFFFFFFF", ten, "vllm")).toEqual([
      "the first layer is S, and there is no layer before it to share from: vLLM reads a buffer that nobody has written: wrong tokens, no error",
    ]);
  });

  test("several faults are told together", () => {
    expect(errors("sFX", ten)).toHaveLength(4);
  });
});

describe("what the checkpoint has", () => {
  test("F where its weights have no indexer is an error, S where they have one is not", () => {
    const model = { ...modelOfLayers(78, "glm_moe_dsa"), shipped: glm52Pattern };
    expect(errors(half, model)[0]).toMatch(/ are F, and the checkpoint has no indexer weights there$/);
    expect(errors(`F${"S".repeat(77)}`, model)).toEqual([]);
  });

  test("without a look at the weights, indexer_types tells", () => {
    const types = [..."FFFSSSFSSS"].map((letter) => (letter === "F" ? "full" : "shared"));
    expect(errors("FFFFSSFSSS", glmConfig({ indexer_types: types }))[0]).toMatch(
      /^layer 3 is F, and Shared in the config/,
    );
    expect(errors("FFFSSSFSSS", glmConfig({ indexer_types: types }))).toEqual([]);
  });
});

describe("what arrives at the engine", () => {
  const given = (fields: IndexFields, rest: object = {}): Partial<EngineCheck> => ({ given: { fields, ...rest } });
  const letters = "FSFSSSFSSF";

  test("ATOM ignores a pattern without use_index_cache", () => {
    expect(errors(letters, ten, "atom", given({ index_topk_pattern: letters }))[0]).toContain(
      "it ignores the override without use_index_cache",
    );
    expect(errors(letters, ten, "vllm", given({ index_topk_pattern: letters }))).toEqual([]);
    expect(errors(letters, ten, "sglang", given({ index_topk_pattern: letters }))[0]).toContain(
      "indexer_types wins over index_topk_pattern, and is filled in before overrides are read; the override has to set both",
    );
  });

  test("options of the same command line that rule sharing out", () => {
    const fields = dialects.sglang.fields(parsePattern(letters), ten);
    const options = ["--json-model-override-args", "--enable-two-batch-overlap"];
    expect(errors(letters, ten, "sglang", given(fields, { options }))).toEqual([
      "SGLang refuses --enable-two-batch-overlap together with Shared layers (ValueError at start)",
    ]);
  });

  test("a length that was compared with nothing has not passed", () => {
    expect(errors("FSSS", { ...modelOfLayers(4), layersAssumed: true })).toEqual([
      "how many layers the model has is not known, so that 4 letters may be too few or too many: give --model or --layers",
    ]);
  });

  test("indexer_types of the config wins over a pattern, where the engine prefers it", () => {
    const model = glmConfig({ indexer_types: Array.from({ length: 10 }, () => "full") });
    const override = given({ use_index_cache: true, index_topk_pattern: letters });
    for (const engine of ["atom", "transformers"] as const) {
      expect(errors(letters, model, engine, override)[0]).toContain(
        "indexer_types of config.json wins over index_topk_pattern",
      );
    }
    expect(errors(letters, { ...model, shipped: letters }, "vllm", override)).toEqual([]);
    // What we write carries the list with it.
    expect(errors(letters, model, "atom")).toEqual([]);
  });

  test("indexer_types reaches nobody who does not read it", () => {
    const types = [...letters].map((letter) => (letter === "F" ? "full" : "shared"));
    expect(errors(letters, ten, "vllm", given({ indexer_types: types }))[0]).toContain(
      "it does not read indexer_types",
    );
    expect(errors(letters, ten, "sglang", given({ indexer_types: types }))).toEqual([]);
  });

  test("the option of another engine, or a wrapper that the config lacks", () => {
    const fields = { use_index_cache: true, index_topk_pattern: letters };
    expect(errors(letters, ten, "sglang", given(fields, { flag: "--hf-overrides" }))).toEqual([
      "--hf-overrides is not how SGLang takes overrides: it takes --json-model-override-args",
    ]);
    expect(errors(letters, ten, "vllm", given(fields, { nestedUnder: "text_config" }))[0]).toContain(
      "inside text_config, which a config of glm_moe_dsa does not have",
    );
  });

  test("transformers ignores every field on DeepSeek-V3.2", () => {
    expect(errors(half.slice(0, 61), deepseekV32, "transformers")[0]).toContain("every layer runs its indexer");
  });
});

describe("pipeline stages", () => {
  const stages = (engine: "vllm" | "sglang" | "atom" | "vllm-ascend", layers: number, count: number) => ({
    starts: stageStarts(engine, layers, count),
  });

  test("GLM-5's published patterns are safe on vLLM with 2 stages and not with 4", () => {
    expect(errors(half, glm5, "vllm", stages("vllm", 78, 2))).toEqual([]);
    expect(errors(half, glm5, "vllm", stages("vllm", 78, 4))[0]).toMatch(
      /^2 pipeline stages begin with S: layer 19 \(stage 1\), layer 59 \(stage 3\); /,
    );
  });

  test("where indices are sent on it is a warning about versions", () => {
    for (const engine of ["sglang", "atom"] as const) {
      expect(errors(half, glm5, engine, stages(engine, 78, 4))).toEqual([]);
      expect(warnings(half, glm5, engine, stages(engine, 78, 4))[0]).toContain("since #");
    }
  });

  test("transformers has none", () => {
    expect(warnings(half, glm5, "transformers", { starts: [0, 39] })[0]).toContain("no pipeline stages");
  });

  test("of DeepSeek-V4 the first layer with an indexer of each stage counts", () => {
    const starts = stageStarts("vllm", 43, 4);
    expect(starts).toEqual([0, 11, 22, 33]);
    expect(stageHeads(starts, v4Flash).map(({ layer, ordinal }) => [layer, ordinal])).toEqual([
      [2, 0],
      [12, 5],
      [22, 10],
      [34, 16],
    ]);
    const letters = [...v4Flash.indexers].map((_, ordinal) => ([0, 5, 16].includes(ordinal) ? "F" : "S")).join("");
    expect(errors(letters, v4Flash, "vllm", { starts })[0]).toContain("layer 22 (stage 2)");
  });
});

test("DeepSeek-V4 takes a letter for each indexer, or one for each layer", () => {
  expect(errors("F".repeat(21), v4Flash)).toEqual([]);
  expect(errors("F".repeat(43), v4Flash, "vllm")).toEqual([]);
  expect(errors("F".repeat(22), v4Flash)).toEqual([
    "the pattern has 22 letters, the model 21 layers with an indexer (C4A) among 43",
  ]);
});
