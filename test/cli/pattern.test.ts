import { mkdtempSync, rmSync } from "node:fs";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { demoModel, indexcache, indexcacheProcess, shell } from "./indexcache.ts";

const published = join(import.meta.dirname, "..", "..", "patterns");
const half = join(published, "zai-org/GLM-5/half.json");
const glm5Config = join(import.meta.dirname, "..", "..", "tools/bench/configs/GLM-5/config.json");

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "indexcache-pattern-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("pattern --for", () => {
  test("prints what a shell hands on as one argument", async () => {
    const outcome = await shell(
      folder,
      `eval "set -- $($indexcache pattern FFSF --for vllm --engine-version 0.28.0 -q)" && printf '%s\\n' "$@"`,
    );
    expect(outcome).toEqual({
      status: 0,
      stdout: '--hf-overrides\n{"use_index_cache": true, "index_topk_pattern": "FFSF"}\n',
      stderr: "",
    });
  });

  test("of TensorRT-LLM writes the options file that its argument names", async () => {
    const outcome = await shell(
      folder,
      `eval "$($indexcache pattern FFSF --for tensorrt-llm -q | head -1)"; cat indexcache.yaml`,
    );
    expect(outcome).toMatchObject({ status: 0, stdout: '{"model_kwargs": {"index_topk_pattern": "FFSF"}}\n' });
    const back = await indexcache(folder, ["pattern", "indexcache.yaml", "-q"]);
    expect(back).toEqual({ status: 0, stdout: "FFSF\n", stderr: "" });
  });

  test("turns one engine's command line into another's, from stdin too", async () => {
    const vllm = await indexcache(folder, ["pattern", half, "--for", "vllm", "-q"]);
    const sglang = await indexcacheProcess(
      folder,
      ["pattern", "-", "--for", "sglang", "-q"],
      `vllm serve M ${vllm.stdout}`,
    );
    expect(sglang).toMatchObject({ status: 0, stderr: "" });
    expect(sglang.stdout).toContain(
      vllm.stdout.trim().replace("--hf-overrides", "--json-model-override-args").slice(0, -2),
    );
    expect(sglang.stdout).toContain('"indexer_types": ["full", "full", "shared"');
    const back = await indexcacheProcess(folder, ["pattern", "-", "--for", "vllm", "-q"], sglang.stdout);
    expect(back.stdout).toBe(vllm.stdout);
  });

  test("gives JSON, and writes a patched config that reads back", async () => {
    const source = [`${join(published, "indexcache/demo/quarter.json")}@1/4`, "--for", "vllm", "--model", demoModel];
    const outcome = await indexcache(folder, ["pattern", ...source, "--write-config", "patched", "--json", "-q"]);
    expect(outcome).toMatchObject({ status: 0, stderr: expect.stringContaining("KeyError") });
    expect(JSON.parse(outcome.stdout)).toMatchObject({
      engine: "vllm",
      index_topk_pattern: "FSSFSSSSSFSS",
      fields: { use_index_cache: true, index_topk_pattern: "FSSFSSSSSFSS" },
    });
    const back = await indexcache(folder, ["pattern", "patched", "-q"]);
    expect(back.stdout).toBe("FSSFSSSSSFSS\n");

    // The same again is no conflict; another pattern is, until --overwrite.
    expect(await indexcache(folder, ["pattern", ...source, "--write-config", "patched", "-q"])).toMatchObject({
      status: 0,
    });
    const other = [
      "pattern",
      "uniform:2",
      "--for",
      "transformers",
      "--model",
      demoModel,
      "--write-config",
      "patched",
      "-q",
    ];
    const before = await readFile(join(folder, "patched", "config.json"), "utf8");
    expect(await indexcache(folder, other)).toMatchObject({
      status: 2,
      stdout: "",
      stderr: expect.stringContaining("--overwrite"),
    });
    expect(await readFile(join(folder, "patched", "config.json"), "utf8")).toBe(before);
    expect(await indexcache(folder, [...other, "--overwrite"])).toMatchObject({ status: 0 });
    const written: unknown = JSON.parse(await readFile(join(folder, "patched", "config.json"), "utf8"));
    expect(written).toMatchObject({ indexer_types: Array.from({ length: 6 }, () => ["full", "shared"]).flat() });
    expect(written).not.toHaveProperty("index_topk_pattern");
  });

  test("refuses what the engine would not run as it stands", async () => {
    const unsafe = ["pattern", half, "--for", "vllm", "--pipeline-stages", "4"];
    expect(await indexcache(folder, unsafe)).toMatchObject({
      status: 2,
      stdout: "",
      stderr: expect.stringContaining("layer 19 (stage 1)"),
    });
    expect(
      await indexcache(folder, ["pattern", half, "--for", "vllm", "--pipeline-partition", "20,20,20,18", "-q"]),
    ).toMatchObject({ status: 0 });
  });
});

describe("pattern --check", () => {
  test("keeps errors and warnings apart, and exits with 2 on an error", async () => {
    const args = ["pattern", half, "--check", "--engine", "tensorrt-llm", "--pipeline-stages", "8"];
    const outcome = await indexcache(folder, args);
    expect(outcome.status).toBe(2);
    expect(outcome.stdout).toMatch(/^error {4}a pipeline stage begins with S: layer 69 .*\nwarning {2}model_kwargs/);
    expect(outcome.stderr).toBe("error: The pattern has 1 error\n");
    const json: unknown = JSON.parse((await indexcache(folder, [...args, "--json"])).stdout);
    expect(json).toMatchObject({
      errors: [expect.any(String)],
      warnings: [expect.any(String)],
      engine: "tensorrt-llm",
    });
  });

  test("of a good pattern exits with 0", async () => {
    const outcome = await indexcache(folder, [
      "pattern",
      "FSSFSSSSSFSS",
      "--model",
      demoModel,
      "--check",
      "--engine",
      "vllm",
      "--engine-version",
      "0.28.0",
    ]);
    expect(outcome).toEqual({
      status: 0,
      stdout: "3 of 12 layers Full (25.0%): can be served by vLLM 0.28.0\n",
      stderr: "",
    });
  });

  test("of one that vLLM cannot load says so, with the ways out", async () => {
    const args = ["pattern", "FSSFSSSSSFSS", "--model", demoModel, "--check", "--engine", "vllm"];
    const outcome = await indexcache(folder, args);
    expect(outcome).toMatchObject({ status: 2, stdout: expect.stringContaining("KeyError: 'layers.1.self_attn") });
    expect(outcome.stdout).toMatch(/\n {9}- .*indexcache pattern apply/);
  });

  test("of letters that were compared with no model does not pass", async () => {
    const outcome = await indexcache(folder, ["pattern", "FSSS", "--check"]);
    expect(outcome).toMatchObject({ status: 2, stdout: expect.stringContaining("not checked") });
    expect(await indexcache(folder, ["pattern", "FSSS", "--check", "--layers", "4"])).toMatchObject({ status: 0 });
  });

  test("looks at a config with a pattern that its own indexer_types overrules", async () => {
    await mkdir(join(folder, "both"), { recursive: true });
    const config: object = JSON.parse(await readFile(join(demoModel, "config.json"), "utf8"));
    await writeFile(
      join(folder, "both", "config.json"),
      JSON.stringify({ ...config, index_topk_pattern: "FSSFSSSSSFSS" }),
    );
    const pattern = ["pattern", "FSSFSSSSSFSS", "--check", "--engine"];
    expect(await indexcache(folder, [...pattern, "transformers", "--model", "both"])).toMatchObject({ status: 0 });
    const override = `vllm serve M --hf-overrides '{"use_index_cache": true, "index_topk_pattern": "FSSFSSSSSFSS"}'`;
    const outcome = await indexcache(folder, ["pattern", override, "--check", "--engine", "atom", "--model", "both"]);
    expect(outcome).toMatchObject({ status: 2, stdout: expect.stringContaining("indexer_types of config.json wins") });
  });
});

test("a pattern that was searched on another model says so, by its letters alone too", async () => {
  const borrowed = "FFSFSSSFSSFFFSSSFFFSFSSSSSSFFSFFSFFSSFFFFFFSFFFFFSFFSSSSSSFSF";
  const outcome = await indexcache(folder, ["pattern", borrowed, "--for", "vllm", "-q"]);
  expect(outcome).toMatchObject({ status: 0, stderr: expect.stringContaining("searched on GLM-5, not DeepSeek-V3.2") });
  const json: unknown = JSON.parse(
    (await indexcache(folder, ["pattern", borrowed, "--check", "--layers", "61", "--json"])).stdout,
  );
  expect(json).toMatchObject({ errors: [], warnings: [expect.stringContaining("first 61 letters of GLM-5's")] });
});

describe("the published patterns", () => {
  test("are found by name, from any folder, and listed", async () => {
    const { index_topk_pattern: letters } = JSON.parse(await readFile(half, "utf8")) as { index_topk_pattern: string };
    for (const name of ["zai-org/GLM-5/half", "GLM-5/half", "glm-5-half"]) {
      expect(await indexcache(folder, ["pattern", name, "-q"]), name).toEqual({
        status: 0,
        stdout: `${letters}\n`,
        stderr: "",
      });
    }
    const listed = await indexcache(folder, ["pattern", "--list", "-q"]);
    expect(listed).toMatchObject({ status: 0, stderr: "" });
    expect(listed.stdout).toMatch(/^zai-org\/GLM-5\/half +40 of 78 +vendor +searched on GLM-5$/m);
  });

  /** A folder of this name with nothing but a config of GLM-5's shape. */
  async function configOnly(name: string, layers = 78): Promise<string> {
    const path = join(folder, name);
    await mkdir(path, { recursive: true });
    const config = JSON.parse(await readFile(glm5Config, "utf8")) as Record<string, unknown>;
    await writeFile(join(path, "config.json"), JSON.stringify({ ...config, num_hidden_layers: layers }));
    return path;
  }

  test.each([
    ["GLM-5", 78, ["zai-org/GLM-5/half vendor", "zai-org/GLM-5/quarter vendor"]],
    ["zai-org/GLM-5.2", 78, ["zai-org/GLM-5.2/trained vendor"]],
    // A relative: what GLM-5.2 was trained with says nothing about it.
    ["GLM-5.1", 78, ["zai-org/GLM-5/half borrowed", "zai-org/GLM-5/quarter borrowed"]],
    ["GLM-5", 40, []],
  ])("of a model in a folder called %s with %i layers are its own, else its family's", async (name, layers, known) => {
    const path = await configOnly(name, layers);
    const { stdout, status } = await indexcache(folder, ["pattern", "--list", path, "--json", "-q"]);
    expect(status).toBe(0);
    const listed = JSON.parse(stdout) as { name: string; evidence: string }[];
    expect(listed.map((one) => `${one.name} ${one.evidence}`)).toEqual(known);
    const inspected = await indexcache(folder, ["inspect", path, "--json", "-q"]);
    const { known_patterns: names } = JSON.parse(inspected.stdout) as { known_patterns: string[] };
    expect(names.map((one) => one.replace(/[()]/g, ""))).toEqual(known);
  });

  test("of a model are found by its name alone, and a model's name is no pattern", async () => {
    const { stdout } = await indexcache(folder, ["pattern", "--list", "zai-org/GLM-5", "-q"]);
    expect(stdout.match(/^zai-org\/GLM-5\/\w+/gm)).toEqual(["zai-org/GLM-5/half", "zai-org/GLM-5/quarter"]);
    expect(await indexcache(folder, ["run", "-p", "glm-5", "--prompt", "The"])).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("a pattern is wanted: zai-org/GLM-5/half, zai-org/GLM-5/quarter"),
    });
  });

  test("say when they are borrowed, and a config points to what is known", async () => {
    const relative = await configOnly("GLM-5.1");
    const applied = await indexcache(folder, ["pattern", "glm-5-half", "--for", "sglang", "-m", relative, "-q"]);
    expect(applied).toMatchObject({
      status: 0,
      stderr: expect.stringContaining(
        'borrowed: it was published for zai-org/GLM-5, and the model is called "GLM-5.1"',
      ),
    });
    const own = await configOnly("GLM-5");
    expect(
      (await indexcache(folder, ["pattern", "glm-5-half", "--for", "sglang", "-m", own, "-q"])).stderr,
    ).not.toContain("borrowed");
    const letters = await indexcache(folder, ["pattern", own]);
    expect(letters).toMatchObject({ status: 0, stdout: `${"F".repeat(78)}\n` });
    expect(letters.stderr).toContain("the shelf has zai-org/GLM-5/half (vendor), zai-org/GLM-5/quarter (vendor)");
  });
});

test("a size that the shelf does not have is refused with those that it has", async () => {
  for (const words of [["pattern"], ["loss", demoModel, "-p"]]) {
    const { status, stderr } = await indexcache(folder, [...words, "indexcache/demo/half"]);
    expect(status).toBe(2);
    expect(stderr).toContain("published for this model: indexcache/demo/quarter");
  }
});

describe("a pattern file with several sizes", () => {
  test.each(["loss", "run", "eval", "bench", "serve"])("makes %s ask which one", async (command) => {
    await copyFile(join(published, "indexcache/demo/quarter.json"), join(folder, "p.json"));
    const more = command === "run" ? ["--prompt", "The"] : command === "serve" ? ["--port", "0"] : [];
    expect(await indexcache(folder, [command, demoModel, "-p", "p.json", ...more])).toMatchObject({
      status: 2,
      stdout: "",
      stderr: expect.stringMatching(
        /error: Pattern file "p\.json" holds patterns of several sizes: 6, 3 Full layers\nhint: say which one: p\.json@6 or p\.json@3, or a share of the layers as in @1\/2\n$/,
      ),
    });
  });

  test("asks which one", async () => {
    const file: Record<string, unknown> = JSON.parse(
      await readFile(join(published, "indexcache/demo/quarter.json"), "utf8"),
    );
    const own = { standard_error: 0, change: 0, change_error: 0, found_by: "greedy" };
    const baseline = file.baseline_loss as number;
    const loss = file.loss as number;
    const patterns = [
      { ...own, full_layers: 12, index_topk_pattern: "F".repeat(12), loss: baseline },
      { ...own, full_layers: 3, index_topk_pattern: file.index_topk_pattern, loss, change: loss - baseline },
    ];
    await writeFile(join(folder, "sizes.json"), JSON.stringify({ ...file, patterns }));
    const asked = await indexcache(folder, ["pattern", "sizes.json", "--for", "sglang"]);
    expect(asked).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining("12, 3 Full layers") });
    expect(asked.stderr).toContain("sizes.json@12 or sizes.json@3");
    const chosen = await indexcache(folder, ["pattern", "sizes.json@12", "-q"]);
    expect(chosen).toMatchObject({ status: 0, stdout: `${"F".repeat(12)}\n` });
  });
});

describe("pattern --explain", () => {
  test("shows each engine's layers of a frequency", async () => {
    const outcome = await indexcache(folder, ["pattern", "freq:4", "--offset", "3", "--layers", "12", "--explain"]);
    expect(outcome).toMatchObject({ status: 0, stderr: "" });
    expect(outcome.stdout).toMatch(/vllm +5 of 12 {2}FFFSSSFSSSFS\n/);
    expect(outcome.stdout).toMatch(/atom +6 of 12 {2}FFFFSSSFSSSF\n/);
  });
});

test("a text of dollar signs on stdin is no defect", async () => {
  const outcome = await indexcacheProcess(folder, ["pattern", "-"], "$".repeat(5000));
  expect(outcome).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining("holds no pattern") });
});

test.each([
  [["pattern"], "PATTERN is missing"],
  [["pattern", "-p", "FFSF"], "the pattern is an argument\nhint: leave out -p: indexcache pattern PATTERN"],
  [["pattern", "apply", demoModel, "-o", "new", "-p", "uniform:4"], "the pattern is an argument"],
  [["pattern", "uniform:99", "--layers", "12"], '"uniform:99" asks for every 99th layer, and there are only 12'],
  [["pattern", "FFSF", "--list"], "--list takes no pattern"],
  [["pattern", "ffsf"], 'has "f" at layer 0'],
  [["pattern", "FFSX", "--layers", "4"], 'has "X" at layer 3'],
  [["pattern", "FFSF", "--for", "vllm", "--engine-version", "0.1"], "older than any release"],
  [["pattern", "nothing.json"], 'Cannot read pattern "nothing.json": no such file'],
  [["pattern", ""], "The pattern is empty"],
  [["pattern", "freq:4"], "How many layers the pattern is for is not known"],
  [["pattern", "ffsf", "--for", "vllm"], "4 letters in lower case"],
  [["pattern", "FFSF", "--write-config", "x"], "--write-config needs --model"],
  [["pattern", "FFSF", "--pipeline-stages", "2", "--check"], "--pipeline-stages needs --engine"],
  [["pattern", "FFSF", "--for", "vllm", "--pipeline-stages", "9"], "4 layers cannot be split into 9"],
])("%j exits with 2: %s", async (args, words) => {
  expect(await indexcache(folder, args)).toMatchObject({
    status: 2,
    stdout: "",
    stderr: expect.stringContaining(words),
  });
});
