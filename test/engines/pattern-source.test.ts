import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InputError } from "../../src/base/errors.ts";
import { dialects, engineNames } from "../../src/engines/engines.ts";
import { lettersOfTypes } from "../../src/engines/index-fields.ts";
import { isInlinePattern, readInlinePattern, readPatternText } from "../../src/engines/pattern-source.ts";
import { modelOfLayers } from "../../src/engines/served-model.ts";
import { parsePattern } from "../../src/pattern/pattern.ts";

const patterns = fc
  .array(fc.constantFrom("F", "S"), { minLength: 1, maxLength: 90 })
  .map((rest) => parsePattern(`F${rest.join("")}`));

/** The letters that a source holds, whichever field they are in. */
function lettersOf(text: string): string | undefined {
  const source = readInlinePattern(text);
  if (source.kind === "letters") return source.letters;
  if (source.kind !== "override") return undefined;
  const { index_topk_pattern: pattern, indexer_types: types } = source.fields;
  return typeof pattern === "string" ? pattern : lettersOfTypes(types ?? []);
}

describe("what indexcache writes it reads back", () => {
  test.each(engineNames)("the argument for %s, alone and inside a command", (engine) => {
    fc.assert(
      fc.property(patterns, (pattern) => {
        const dialect = dialects[engine];
        const lines = dialect.argument(dialect.fields(pattern, modelOfLayers(pattern.length, "glm_moe_dsa")));
        expect(lettersOf(lines.join("\n"))).toBe(pattern);
        const command = `MODEL=/m serve --tensor-parallel-size 8 \\\n  ${lines.at(-1)} --port 8000 # ours`;
        if (lines.length === 1 && dialect.instead === undefined) expect(lettersOf(command)).toBe(pattern);
      }),
      { numRuns: 30 },
    );
  });

  test("letters", () => {
    fc.assert(
      fc.property(patterns, (pattern) => {
        expect(lettersOf(pattern)).toBe(pattern);
      }),
    );
  });
});

describe("letters that something has folded or spaced", () => {
  test.each([
    ["folded", "FFS\nFSS\r\nF\n"],
    ["spaced", "F F S F S S F"],
    ["as a JSON list", '["F", "F", "S", "F", "S", "S", "F"]'],
    ["as a JSON list of types", '["full", "full", "shared", "full", "shared", "shared", "full"]'],
  ])("%s", (_, text) => {
    expect(readPatternText(text, "file")).toEqual({ kind: "letters", letters: "FFSFSSF" });
  });

  test.each(["[]", '["F", 1]', '["F", "constructor"]', "F f S", "F G S"])("%s is none", (text) => {
    expect(() => readPatternText(text, "file")).toThrow(/holds no pattern/);
  });
});

describe("overrides as they are found in the wild", () => {
  test.each([
    [
      "vLLM's documentation",
      `vllm serve deepseek-ai/DeepSeek-V3.2 \\\n--hf-overrides '{"use_index_cache": true, "index_topk_pattern": "FFSF"}'`,
      "--hf-overrides",
    ],
    ["with an equals sign", `vllm serve M --hf-overrides='{"index_topk_pattern":"FFSF"}'`, "--hf-overrides"],
    [
      "dotted",
      "vllm serve M --hf-overrides.use_index_cache true --hf-overrides.index_topk_pattern FFSF",
      "--hf-overrides",
    ],
    ["dotted with an equals sign", "vllm serve M --hf-overrides.index_topk_pattern=FFSF", "--hf-overrides"],
    [
      "in double quotes",
      String.raw`vllm serve M --hf-overrides "{\"index_topk_pattern\": \"FFSF\"}"`,
      "--hf-overrides",
    ],
    [
      "SGLang",
      `python -m sglang.launch_server --json-model-override-args '{"index_topk_pattern": "FFSF"}' --tp 8`,
      "--json-model-override-args",
    ],
    ["an environment variable", `docker run -e HF_OVERRIDES='{"index_topk_pattern":"FFSF"}' image`, undefined],
    [
      "a command in quotes",
      `bash -lc 'exec vllm serve M --hf-overrides '"'"'{"index_topk_pattern":"FFSF"}'"'"' --port 1'`,
      "--hf-overrides",
    ],
    ["Python", 'AutoModel.from_pretrained("M", index_topk_pattern="FFSF")', undefined],
    ["a Python list", 'AutoModel.from_pretrained("M", indexer_types=["full", "full", "shared", "full"])', undefined],
    [
      "TensorRT-LLM's options",
      'enable_chunked_prefill: true\nmodel_kwargs:\n  index_topk_pattern: "FFSF"\n',
      "--extra_llm_api_options",
    ],
    ["an override alone", '{"index_topk_pattern": "FFSF"}', undefined],
  ])("%s", (_, text, flag) => {
    expect(lettersOf(text)).toBe("FFSF");
    expect(readInlinePattern(text)).toMatchObject({ kind: "override", flag });
    // As the content of a launch script, too.
    expect(readPatternText(text, "serve.sh")).toEqual(readInlinePattern(text));
  });

  test("one inside text_config says so", () => {
    const text = `vllm serve M --hf-overrides '{"text_config": {"use_index_cache": true, "index_topk_freq": 4}}'`;
    expect(readInlinePattern(text)).toMatchObject({ nestedUnder: "text_config", fields: { index_topk_freq: 4 } });
  });

  test.each([
    ["vllm serve M --tensor-parallel-size 8", "holds no pattern"],
    [`vllm serve M --hf-overrides '{"rope_scaling": {}}'`, "holds no pattern"],
    [`a '{"index_topk_pattern": "FS"}' b '{"index_topk_pattern": "FF"}'`, "two different patterns"],
    [`--hf-overrides '{"index_topk_pattern": 7}'`, "wrong index_topk_pattern"],
    ["freq:0", 'is "freq:0"'],
    ["uniform:x", 'is "uniform:x"'],
  ])("%s: %s", (text, words) => {
    expect(() => readInlinePattern(text)).toThrow(InputError);
    expect(() => readInlinePattern(text)).toThrow(words);
  });
});

describe("files", () => {
  test("a config.json gives its model", () => {
    const text = JSON.stringify({ model_type: "glm_moe_dsa", num_hidden_layers: 4, index_topk_pattern: "FFSF" });
    expect(readPatternText(text, "config.json")).toMatchObject({
      kind: "config",
      model: { layers: 4 },
      fields: { index_topk_pattern: "FFSF" },
    });
  });

  test("a wrong pattern file is refused as one", () => {
    expect(() => readPatternText('{"schema_version": 1}', "p.json")).toThrow('Pattern file "p.json"');
  });

  test("a text of letters", () => {
    expect(readPatternText("FFSF\n", "p.txt")).toEqual({ kind: "letters", letters: "FFSF" });
    expect(() => readPatternText("F".repeat(10_001), "p.txt")).toThrow("10,001 letters: no model has so many layers");
  });
});

test("isInlinePattern() tells a pattern from a path", () => {
  for (const text of ["FFS", "ffs", "F", "freq:4", "uniform:x", "vllm serve M", '{"a":1}']) {
    expect(isInlinePattern(text)).toBe(true);
  }
  for (const text of ["p.json", "./FS", "quarter", "models/demo", "-"]) expect(isInlinePattern(text)).toBe(false);
});
