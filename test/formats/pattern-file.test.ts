import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { InputError, RuntimeFailure } from "../../src/base/errors.ts";
import {
  formatPatternFile,
  parsePatternFile,
  readPatternFile,
  requireSameModel,
  writePatternFile,
} from "../../src/formats/pattern-file.ts";
import type { PatternFile } from "../../src/formats/pattern-schema.ts";
import { patternJsonSchema } from "../../src/formats/published-pattern.ts";
import { temporaryFolder } from "../temporary-folder.ts";

const folder = temporaryFolder("file");

function example(): PatternFile {
  return {
    schema_version: 1,
    index_topk_pattern: "FSSF",
    model: {
      name: "glm-tiny",
      architecture: "glm_moe_dsa",
      layers: 4,
      index_topk: 16,
      config_hash: "a".repeat(64),
      weight_hash: "b".repeat(64),
    },
    calibration: { source: "text.jsonl", hash: "c".repeat(64), sequences: 8, tokens: 8192 },
    baseline_loss: 2.5,
    loss: 2.625,
    trajectory: [
      {
        index_topk_pattern: "FFSF",
        flipped_layer: 2,
        loss: 2.5625,
        standard_error: 0.01,
        candidates: [
          { layer: 1, loss: 2.6 },
          { layer: 2, loss: 2.5625 },
          { layer: 3, loss: 2.7 },
        ],
      },
      {
        index_topk_pattern: "FSSF",
        flipped_layer: 1,
        loss: 2.625,
        standard_error: 0.01,
        candidates: [
          { layer: 1, loss: 2.625 },
          { layer: 3, loss: 2.8 },
        ],
      },
    ],
    search: {
      strategy: "greedy",
      evaluations: 6,
      layer_executions: { body: 18, indexer: 12, naive_body: 24, naive_indexer: 20 },
      seconds: 3.5,
    },
    tool: { version: "0.1.0", runtime: "onnxruntime-node 1.30.0", device: "cpu" },
  };
}

/** Reads the example with a part of its JSON text replaced. */
async function readChanged(part: string, by: string): Promise<unknown> {
  const text = JSON.stringify(example());
  expect(text).toContain(part);
  const path = join(folder, "changed.json");
  await writeFile(path, text.replace(part, by));
  return readPatternFile(path);
}

/** The example as another strategy would have found it. */
function otherwise(): PatternFile {
  const { search, ...file } = example();
  const step = { loss: 2.625, standard_error: 0.01, candidates: 3 };
  return {
    ...file,
    trajectory: [],
    patterns: [
      {
        full_layers: 2,
        index_topk_pattern: file.index_topk_pattern,
        loss: file.loss,
        standard_error: 0.01,
        change: 0.125,
        change_error: 0.001,
        kl: 0.0625,
        kl_error: 0.001,
        found_by: "exchange",
        steps: [
          { ...step, index_topk_pattern: "FFSS", flipped_layers: [1] },
          { ...step, index_topk_pattern: "FSSF", flipped_layers: [1, 3] },
        ],
        held_out: { loss: 2.5, change: 0.25, change_error: 0.01 },
        second_look: { first_pattern: "FSFS", first_loss: 2.75, gain: 0.125, gain_error: 0.01 },
      },
    ],
    search: { ...search, strategy: "look-again", objective: "nll", settings: { swaps: "single", race_alpha: 0.1 } },
  };
}

describe("pattern files of other strategies than greedy", () => {
  test("read as written", async () => {
    const path = join(folder, "otherwise.json");
    await writePatternFile(path, otherwise());
    expect(await readPatternFile(path)).toEqual(otherwise());
  });

  test.each([
    ["other layers than differ", '"flipped_layers":[1,3]', '"flipped_layers":[3]', /step 1 .* differ are 1, 3/],
    ["a step of another length", '"FFSS","flipped', '"FFSSF","flipped', /step 0 has 5 letters/],
    ["another end", '"index_topk_pattern":"FSSF","model"', '"index_topk_pattern":"FFSF","model"', /is not the last of/],
    ["another size", '"full_layers":2', '"full_layers":3', /has 2 F layers and says 3/],
  ])("are refused with %s", async (_, part, by, words) => {
    const text = JSON.stringify(otherwise());
    expect(text).toContain(part);
    const path = join(folder, "changed.json");
    await writeFile(path, text.replace(part, by));
    await expect(readPatternFile(path)).rejects.toThrow(words);
  });
});

describe("pattern files", () => {
  test("read as written", async () => {
    const path = join(folder, "p.json");
    await writePatternFile(path, example());
    expect(await readPatternFile(path)).toEqual(example());
  });

  test("hold one candidate a line", () => {
    expect(formatPatternFile(example())).toContain('        { "layer": 2, "loss": 2.5625 },\n');
  });

  test("say of every layer how often it is Full, or are refused", async () => {
    const [found] = otherwise().patterns ?? [];
    if (found === undefined) throw new Error("no pattern");
    const stability = { resamples: 100, agreement: 0.5, full: [1, 0.5, 0], sequences_tried: 32 };
    expect(() => formatPatternFile({ ...otherwise(), patterns: [{ ...found, stability }] })).toThrow(
      /says of 3 layers how often they are Full, "model.layers" is 4/,
    );
    const right = { ...stability, full: [1, 0.5, 0, 0.5] };
    const text = formatPatternFile({ ...otherwise(), patterns: [{ ...found, stability: right }] });
    expect(text).toContain('"full": [ 1, 0.5, 0, 0.5 ]');
  });

  test("the committed JSON Schema is current", async () => {
    await expect(patternJsonSchema()).toMatchFileSnapshot("../../docs/pattern.schema.json");
  });

  test("may have fields that a newer version adds", async () => {
    await expect(readChanged("{", '{"note":"by hand",')).resolves.toMatchObject({ index_topk_pattern: "FSSF" });
  });

  test.each([
    ["text that is not JSON", "{", "", "is not JSON"],
    ["another version", '"schema_version":1', '"schema_version":2', '"schema_version"'],
    ["lower case", '"FSSF","model"', '"fssf","model"', '"index_topk_pattern": expected letters F and S'],
    ["S first", '"FSSF","model"', '"SSSF","model"', '"index_topk_pattern": expected letters F and S'],
    ["a missing field", '"weight_hash"', '"weights"', '"model.weight_hash"'],
    ["a wrong field deep inside", '"flipped_layer":1', '"flipped_layer":1.5', '"trajectory[1].flipped_layer"'],
    ["a wrong length", '"layers":4', '"layers":5', 'has 4 letters, "model.layers" is 5'],
    ["a trajectory that is not nested", '"FFSF"', '"FFSS"', '"trajectory[1]" is not the step before it'],
    ["a flip that did not happen", '"flipped_layer":2', '"flipped_layer":1', "says it flipped layer 1"],
    ["a flip that was no candidate", '{"layer":2,"loss":2.5625},', "", "not among its candidates"],
    ["another last pattern", '"FSSF","model"', '"FSSS","model"', 'not the last pattern of "trajectory"'],
  ])("are refused for %s", async (_, part, by, message) => {
    const error = await readChanged(part, by).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(InputError);
    expect(error).toMatchObject({ message: expect.stringContaining(message) });
  });

  test("a path that does not exist is named", async () => {
    await expect(readPatternFile(join(folder, "none.json"))).rejects.toThrow(/none.json": no such file/);
  });

  test("a path that cannot be written is a runtime failure", async () => {
    await expect(writePatternFile("/proc/p.json", example())).rejects.toThrow(RuntimeFailure);
  });

  test("an inconsistent file is never written", async () => {
    const path = join(folder, "never.json");
    await expect(writePatternFile(path, { ...example(), index_topk_pattern: "FSSS" })).rejects.toThrow();
    await expect(readFile(path)).rejects.toThrow("ENOENT");
  });
});

describe("requireSameModel()", () => {
  test("accepts the same hashes under another name", () => {
    requireSameModel(example(), { ...example().model, name: "renamed" }, "p.json");
  });

  test("names both models and what differs", () => {
    const other = { ...example().model, name: "other", weight_hash: "d".repeat(64) };
    expect(() => requireSameModel(example(), other, "p.json")).toThrow(
      'Pattern file "p.json" is of model "glm-tiny", not of "other": weight_hash bbbbbbbbbbbb... against dddddddddddd...',
    );
    expect(() => requireSameModel(example(), { ...other, layers: 6 }, "p.json")).toThrow(
      "layers 4 against 6, weight_hash",
    );
  });
});

describe("losses that contradict each other are refused", () => {
  const first = (file: PatternFile): PatternFile["trajectory"][number] => {
    const [step] = file.trajectory;
    if (step === undefined) throw new RangeError("no step");
    return step;
  };

  test.each<[string, (file: PatternFile) => void, string]>([
    ["a step that is not its candidate's", (file) => Object.assign(first(file), { loss: 2.5 }), "trajectory[0].loss"],
    [
      "a change that is not the difference",
      (file) => Object.assign(first(file), { change: 1 }),
      "trajectory[0].change",
    ],
    ["a negative loss", (file) => Object.assign(file, { baseline_loss: -1 }), "is not negative"],
  ])("%s", async (_, edit, words) => {
    const file = example();
    edit(file);
    const path = join(folder, "edited.json");
    await writeFile(path, JSON.stringify(file));
    await expect(readPatternFile(path)).rejects.toThrow(words);
  });

  test.each(["NaN", "1e999", "null"])("%s as a loss", async (value) => {
    const path = join(folder, "number.json");
    await writeFile(path, JSON.stringify(example()).replace('"loss":2.625', `"loss":${value}`));
    await expect(readPatternFile(path)).rejects.toThrow(InputError);
  });
});

test("a file of objects in objects without end is refused", () => {
  const deep = `{"schema_version":1,"model":${'{"a":'.repeat(5000)}1${"}".repeat(5000)}}`;
  expect(() => parsePatternFile(deep, "p.json")).toThrow(
    'Pattern file "p.json" nests arrays and objects more than 200',
  );
});
