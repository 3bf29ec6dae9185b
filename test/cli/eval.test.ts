/** `eval` from outside, on the demo model at short lengths: results, resuming, gates, bad input. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { appendFile, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { sketchOf } from "../../src/base/ngram-sketch.ts";
import { Tokenizer } from "../../src/checkpoint/tokenizer/tokenizer.ts";
import { distilledManifestName, formatDistilledManifest, TRAINING_RUNS } from "../../src/formats/distilled-manifest.ts";
import { evalResultSchema, readEvalResult } from "../../src/formats/eval-result.ts";
import { formatPatternFile } from "../../src/formats/pattern-file.ts";
import { PATTERN_SCHEMA_VERSION, type PatternFile } from "../../src/formats/pattern-schema.ts";
import {
  openSampleJournal,
  readSamples,
  type Sample,
  type SampleFingerprint,
} from "../../src/formats/sample-journal.ts";
import { writeLongbenchV2, writeLongbenchZip } from "../eval/longbench/synthetic-files.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { indexcache, interrupt, tinyModel } from "./indexcache.ts";

const folder = temporaryFolder("test");

const small = ["--tasks", "vt,fwe", "--lengths", "320", "--samples", "1", "--no-cache"];
const arms = ["eval", "-p", "uniform:4", "-p", "full", ...small];

/** A result or samples without what time has to do with, and how many processes were asked for. */
function timeless(text: string): unknown {
  return JSON.parse(text, (key, value) => {
    if (key === "command") return String(value).replace(/ --(workers|devices) \S+/, "");
    return key.endsWith("_seconds") ? 0 : value;
  });
}

const timelessFile = async (path: string): Promise<unknown> => timeless(await readFile(path, "utf8"));

describe("an evaluation", () => {
  let home: string;
  let outcome: Awaited<ReturnType<typeof indexcache>>;
  beforeAll(async () => {
    home = mkdtempSync(join(tmpdir(), "indexcache-eval-home-"));
    outcome = await indexcache(home, [...arms, "--workers", "1", "-o", "r.json"]);
  });
  afterAll(() => rmSync(home, { recursive: true }));
  const result = () => readEvalResult(join(home, "r.json"));

  test("ends with a table, and an arm that is the baseline again is identical", async () => {
    expect(outcome).toMatchObject({ status: 0 });
    expect(outcome.stdout).toMatch(/^Task +n +Arm/);
    for (const row of (await result()).rows) {
      const [, again] = row.comparisons;
      expect(again).toMatchObject({ difference: 0, verdict: "identical", same_outputs: row.items });
      expect(again?.gold_loss?.difference).toBe(0);
    }
  });

  test("writes what is needed to audit it", async () => {
    const { suite, model, settings, arms: written, rows, prompts_sha256: prompts, tool } = await result();
    expect(suite.task_versions).toEqual({ vt: expect.any(Number), fwe: expect.any(Number) });
    expect(model.weight_hash).toMatch(/^[0-9a-f]{64}$/);
    expect(settings).toMatchObject({ seed: 42, device: expect.any(String), lengths: "320", samples: 1, threads: 1 });
    expect(written.map((arm) => [arm.name, arm.full_layers])).toEqual([
      ["full", 12],
      ["uniform:4", 3],
      ["full (2)", 12],
    ]);
    expect(written[0]?.generated_tokens).toBeGreaterThan(0);
    expect(rows.map(({ name, items }) => [name, items])).toEqual([
      ["vt 320", 1],
      ["fwe 320", 1],
      ["overall", 2],
    ]);
    expect(prompts).toMatch(/^[0-9a-f]{64}$/);
    expect(tool.runtime).toContain("onnxruntime-node");
  });

  test.each([
    ["--workers", "2"],
    ["--devices", "cpu,cpu"],
  ])("is the same with two processes by %s %s", async (...processes) => {
    const two = await indexcache(folder, [...arms, ...processes, "-o", "r.json"]);
    expect(two.status).toBe(0);
    expect(await timelessFile(join(folder, "r.json"))).toEqual(await timelessFile(join(home, "r.json")));
  });

  test("that is killed goes on with --resume and comes to the same result; a torn line is dropped", async () => {
    const args = [...arms, "--workers", "1", "-o", "r.json"];
    const killed = await interrupt(folder, args, " items (", "SIGKILL");
    expect(killed.status).toBe("SIGKILL");
    const samples = join(folder, "r.json.samples.jsonl");
    const before = (await readSamples(samples))?.entries.length ?? 0;
    expect(before).toBeGreaterThanOrEqual(3);
    expect(before).toBeLessThan(6);
    await appendFile(samples, '{"task":"vt","torn');
    expect(await indexcache(folder, args)).toMatchObject({ status: 2, stderr: expect.stringContaining("--resume") });
    const resumed = await indexcache(folder, [...args, "--resume"]);
    expect(resumed).toMatchObject({ status: 0, stderr: expect.stringContaining(`resuming: ${before} samples`) });
    expect(await timelessFile(join(folder, "r.json"))).toEqual(await timelessFile(join(home, "r.json")));
    expect((await readSamples(samples))?.entries).toHaveLength(6);
  });

  test("can be scored again without the model, printed as Markdown, and written as JUnit", async () => {
    const samples = join(home, "r.json.samples.jsonl");
    const again = await indexcache(folder, ["eval", "--from", samples, "--json"]);
    const [first, second] = [timeless(again.stdout), await timelessFile(join(home, "r.json"))] as { rows: unknown }[];
    expect(first?.rows).toEqual(second?.rows);
    const printed = await indexcache(folder, ["eval", "--from", join(home, "r.json"), "--markdown"]);
    expect(printed.stdout).toMatch(/^\| Task \| n \| Arm \|/);
    const other = await indexcache(folder, ["eval", "--from", samples, "--baseline", "uniform:4", "--junit", "j.xml"]);
    expect(other.stdout).toContain("baseline uniform:4");
    expect(readFileSync(join(folder, "j.xml"), "utf8")).toContain(
      '<testsuite name="ruler-core: full against uniform:4"',
    );
  });

  test("takes with --from only what it can honour, and names the rest", async () => {
    const result = join(home, "r.json");
    const samples = `${result}.samples.jsonl`;
    for (const [file, args, message] of [
      [result, ["--margin", "60"], "as it was computed: --margin does not go with it"],
      [result, ["--baseline", "uniform:4", "--alpha", "0.1"], "--baseline and --alpha do not go with it"],
      [result, ["--no-cache"], "--no-cache does not go with it"],
      [samples, ["-p", "full", "--samples", "9"], "runs nothing: --pattern and --samples do not go with it"],
      [samples, ["--resume", "-o", "x.json"], "--resume does not go with it"],
      [samples, ["--device", "cpu", "--dry-run"], "--device and --dry-run do not go with it"],
    ] as const) {
      const { status, stderr, stdout } = await indexcache(folder, ["eval", "--from", file, ...args]);
      expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
      expect(stderr).toContain(message);
    }
    const wide = await indexcache(folder, ["eval", "--from", samples, "--margin", "60", "--alpha", "0.2", "--json"]);
    expect(evalResultSchema.parse(JSON.parse(wide.stdout)).statistics).toMatchObject({ margin: 0.6, alpha: 0.2 });
  });

  test("of two models are compared item by item, and only where both were asked the same", async () => {
    const samples = join(home, "r.json.samples.jsonl");
    const { fingerprint: own, entries } = (await readSamples(samples)) ?? { entries: [] };
    if (own === undefined) throw new Error("no samples");
    const write = async (name: string, other: Partial<SampleFingerprint>, answer: string): Promise<void> => {
      const journal = await openSampleJournal(join(folder, name), { ...own, ...other }, "create");
      for (const entry of entries) await journal.append({ ...entry, output: answer });
      await journal.close();
    };
    const trained = { model_name: "trained", weight_hash: "f".repeat(64), model_config_hash: "e".repeat(64) };
    await write("trained.jsonl", trained, "nothing");
    const both = await indexcache(folder, ["eval", "--from", samples, "--from", "trained.jsonl", "--json"]);
    expect(both.status, both.stderr).toBe(0);
    const result = evalResultSchema.parse(JSON.parse(both.stdout));
    expect(result.arms.map(({ name }) => name)).toEqual(
      ["demo", "trained"].flatMap((model) => ["full", "uniform:4", "full (2)"].map((arm) => `${arm} of ${model}`)),
    );
    expect(result.notes).toEqual([
      expect.stringMatching(/^arms of demo: weights [0-9a-f]{12}, from ".*r.json.samples.jsonl"$/),
      'arms of trained: weights ffffffffffff, from "trained.jsonl"',
    ]);
    const alone = await readEvalResult(join(home, "r.json"));
    for (const [index, { arms: scored, comparisons }] of result.rows.entries()) {
      const then = alone.rows[index];
      expect(scored.slice(0, 3)).toEqual(then?.arms);
      expect(scored.slice(3).map(({ score }) => score)).toEqual([0, 0, 0]);
      // The arm of the other model that runs the baseline's pattern loses all that the baseline had.
      expect(comparisons[3]?.difference).toBeCloseTo(-(then?.arms[0]?.score ?? Number.NaN));
    }
    await write("seeded.jsonl", { ...trained, settings: { ...own.settings, seed: 7 } }, "nothing");
    const other = await indexcache(folder, ["eval", "--from", samples, "--from", "seeded.jsonl"]);
    expect(other).toMatchObject({ status: 2, stderr: expect.stringContaining("settings.seed differs") });
    await write("reseeded.jsonl", { settings: { ...own.settings, seed: 7 } }, "nothing");
    const pooled = await indexcache(folder, ["eval", "--from", samples, "--from", "reseeded.jsonl"]);
    expect(pooled).toMatchObject({ status: 2, stderr: expect.stringContaining("both have the prompt of item") });
    const mixed = await indexcache(folder, ["eval", "--from", samples, "--from", join(home, "r.json")]);
    expect(mixed).toMatchObject({ status: 2, stderr: expect.stringContaining("is no samples file") });
  });

  test("fails its gate with exit code 1", async () => {
    const samples = join(home, "r.json.samples.jsonl");
    const gated = await indexcache(folder, ["eval", "--from", samples, "--fail-on", "inconclusive"]);
    expect(gated.status).toBe(1);
    expect(gated.stderr).toMatch(/^error: --fail-on inconclusive: uniform:4 is (inferior|inconclusive) on/m);
    expect(gated.stdout).toContain("identical");
    const asked = ["eval", "--from", samples, "--fail-on", "inferior", "--margin"];
    expect((await indexcache(folder, [...asked, "30"])).status).toBe(0);
    // Nobody can lose more than a hundred points: a gate that cannot fail does.
    const blind = await indexcache(folder, [...asked, "100"]);
    expect(blind).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("overall cannot tell whether uniform:4 loses anything (floor)"),
    });
  });

  test("of another kind is refused by name when it would resume", async () => {
    const text = await readFile(join(home, "r.json.samples.jsonl"), "utf8");
    await writeFile(join(folder, "r.json.samples.jsonl"), text);
    const seed = await indexcache(folder, [...arms, "-o", "r.json", "--resume", "--seed", "7"]);
    expect(seed).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("settings.seed (journal: 42, now: 7)"),
    });
    const lines = text.trimEnd().split("\n");
    // As an earlier version would have written it, which knew no checksums.
    const bare = lines.slice(0, 2).map((line) => ({ ...(JSON.parse(line) as Sample), checksum: undefined }));
    const changed = [bare[0], { ...bare[1], prompt_sha256: "0".repeat(64) }].map((line) => JSON.stringify(line));
    await writeFile(join(folder, "r.json.samples.jsonl"), `${changed.join("\n")}\n`);
    const prompt = await indexcache(folder, [...arms, "-o", "r.json", "--resume"]);
    expect(prompt).toMatchObject({ status: 2, stderr: expect.stringContaining("is another one than in the journal") });
  });

  test("can be interrupted, says how it goes on, and exits with 130", async () => {
    const stopped = await interrupt(folder, [...arms, "--workers", "1", "-o", "r.json"], " items (", "SIGINT");
    expect(stopped.status).toBe(130);
    expect(stopped.stderr).toMatch(
      /every finished item is in "r\.json\.samples\.jsonl"\nhint: continue with: .* --resume/,
    );
  });

  test("is planned without being run", async () => {
    const planned = await indexcache(folder, [
      "eval",
      "-p",
      "uniform:4",
      ...small,
      "--workers",
      "1",
      "--dry-run",
      "--json",
    ]);
    const plan = JSON.parse(planned.stdout);
    expect(plan).toMatchObject({ suite: "ruler-core", items: 2, cells: [{ task: "vt", items: 1 }, { task: "fwe" }] });
    expect(plan.estimated_seconds).toBeGreaterThan(0);
  });
});

test("tasks are listed", async () => {
  const listed = await indexcache(folder, ["eval", "--list"]);
  expect(listed.stdout).toMatch(/^ruler-core +vt +\d+ +string_match_all +graded +30 +nothing$/m);
});

test("items without room in the window are counted, not scored", async () => {
  const record = (words: number) => ({
    index: words,
    input: `Remember this: the number is 4711. ${"The sky is blue. ".repeat(words)}What is the number?`,
    outputs: ["4711"],
    answer_prefix: " The number is",
  });
  writeFileSync(
    join(folder, "niah_single_1.jsonl"),
    [record(3), record(900)].map((one) => JSON.stringify(one)).join("\n"),
  );
  const args = ["eval", "-p", "uniform:4", "--data", "niah_single_1.jsonl", "--workers", "1", "--json", "-q"];
  const { status, stdout } = await indexcache(folder, args);
  expect(status).toBe(0);
  expect(JSON.parse(stdout).rows[0]).toMatchObject({ items: 1, counts: { too_long: 1 } });
});

test("a published pattern is taken by its name, and an arm is called by its file and size", async () => {
  const one = ["--tasks", "niah_single_1", "--lengths", "256", "--samples", "1", "--no-cache", "--workers", "1"];
  const { status, stderr, stdout } = await indexcache(folder, ["eval", "-p", "demo/quarter@1/4", ...one]);
  expect(status, stderr).toBe(0);
  expect(stdout).toContain("arm quarter@1/4: FSSFSSSSSFSS");
});

test("items that the model's indexers were trained on are refused, also those of an earlier training", async () => {
  const demo = fileURLToPath(new URL("../../models/demo", import.meta.url));
  mkdirSync(join(folder, "trained"));
  for (const name of readdirSync(demo)) symlinkSync(join(demo, name), join(folder, "trained", name));
  const input = `${readFileSync(join(demo, "../../calibration/demo-prompt.txt"), "utf8").slice(0, 900)} What is the number?`;
  const record = { index: 0, input, outputs: ["4711"], answer_prefix: " The number is" };
  writeFileSync(join(folder, "niah_single_1.jsonl"), JSON.stringify(record));
  const tokenizer = await Tokenizer.load(demo);
  const hash = "0".repeat(64);
  const seen = { source: "mine.jsonl", hash, ngrams: sketchOf([tokenizer.encodePlain(input)], TRAINING_RUNS) };
  const other = { source: "other.jsonl", hash: "1".repeat(64), ngrams: sketchOf([]) };
  const manifest = (text: typeof seen, earlier?: (typeof seen)[]): string =>
    formatDistilledManifest({
      kind: "indexcache-distilled",
      format: 1,
      made_from: { name: "demo", config_hash: hash, weight_hash: hash },
      pattern: "any",
      recipe: { steps: 1, rate: 1, batch: 1, targets: "centroid", weight: "values", seed: 0 },
      text: { ...text, sequences: 1, length: 1, held_out_sequences: 0 },
      ...(earlier === undefined ? {} : { earlier_texts: earlier }),
      kept_steps: {},
      measured: {},
      tool: { version: "0", command: "" },
    });
  const args = ["eval", "trained", "-p", "uniform:4", "--data", "niah_single_1.jsonl", "--workers", "1", "-q"];
  const path = join(folder, "trained", distilledManifestName);
  for (const text of [manifest(seen), manifest(other, [seen])]) {
    writeFileSync(path, text);
    expect(await indexcache(folder, args)).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(
        /^error: 1 of 1 item has .* "mine.jsonl", which the model's indexers were trained on/,
      ),
    });
  }
  writeFileSync(path, manifest(other));
  expect(await indexcache(folder, args)).toMatchObject({ status: 0 });
});

test("thinking is asked of the template, takes its own budget, and a thought that never closes is no answer", async () => {
  await writeFile(join(folder, "t.jinja"), "{{ messages[0].content }}{% if enable_thinking %}<think>{% endif %}");
  const args = [
    "eval",
    "-p",
    "uniform:4",
    "--tasks",
    "niah_single_1",
    "--lengths",
    "512",
    "--samples",
    "1",
    "--no-cache",
  ];
  const thinking = ["--thinking", "--chat-template", "t.jinja", "--max-new-tokens", "niah_single_1=4", "-o", "r.json"];
  const { status, stdout } = await indexcache(folder, [...args, ...thinking, "--workers", "1", "-q"]);
  expect(status).toBe(0);
  expect(stdout).toMatch(/^Thoughts that never closed, counted as no answer: full 1, uniform:4 1\.$/m);
  const { settings, rows } = await readEvalResult(join(folder, "r.json"));
  expect(settings).toMatchObject({ thinking: true, max_new_tokens: "niah_single_1=4,own+128" });
  // The gold answer is scored behind a closed thought: the demo model knows it there.
  expect(rows[0]?.arms[0]).toMatchObject({ score: 0, unclosed: 1, gold_loss: expect.closeTo(0, 2) });
  const [sample] = (await readSamples(join(folder, "r.json.samples.jsonl")))?.entries ?? [];
  expect(sample).toMatchObject({ output: "", thinking: { closed: false, tokens: 4 } });
  // Other options, other answers: they are not mixed.
  const other = await indexcache(folder, [...args, "-o", "r.json", "--resume", "--workers", "1", "-q"]);
  expect(other.status).toBe(2);
  expect(other.stderr).toMatch(/settings\.thinking/);
});

describe("LongBench", () => {
  test("v1 runs from the zip as it is published", async () => {
    await writeLongbenchZip(join(folder, "data.zip"), 1);
    const tasks = ["--tasks", "hotpotqa,trec,passage_count", "--max-length", "400"];
    const args = [
      "eval",
      "-p",
      "uniform:4",
      "--suite",
      "longbench",
      "--data",
      "data.zip",
      ...tasks,
      "--workers",
      "1",
      "--json",
      "-q",
    ];
    const { status, stdout, stderr } = await indexcache(folder, args);
    expect(stderr).toBe("");
    expect(status).toBe(0);
    const { rows, settings } = evalResultSchema.parse(JSON.parse(stdout));
    expect(rows.filter(({ kind }) => kind === "task").map(({ name, metric }) => [name, metric])).toEqual([
      ["hotpotqa", "qa_f1"],
      ["trec", "classification"],
      ["passage_count", "count"],
    ]);
    expect(settings).toMatchObject({ max_length: 400, data: "data.zip" });
  });

  test("v2 gives accuracy by groups, on outputs and on the most likely choice", async () => {
    await writeLongbenchV2(join(folder, "data.json"), 4, 2);
    const args = [
      "eval",
      "-p",
      "uniform:4",
      "--suite",
      "longbench-v2",
      "--data",
      "data.json",
      "--max-length",
      "600",
      "-o",
      "r.json",
      "--workers",
      "1",
      "-q",
    ];
    expect(await indexcache(folder, args)).toMatchObject({ status: 0, stderr: "" });
    const { rows } = await readEvalResult(join(folder, "r.json"));
    expect(rows.filter(({ kind }) => kind === "task").map(({ endpoint, items }) => [endpoint, items])).toEqual([
      ["generation", 2],
      ["choices", 2],
    ]);
    expect(rows.map(({ group }) => group?.name)).toContain("length");
    const samples = (await readSamples(join(folder, "r.json.samples.jsonl")))?.entries ?? [];
    expect(samples.every((sample) => sample.choice_log_probabilities?.length === 4)).toBe(true);
  });

  test("v2 with --cot is refused where the window has no room for a thought", async () => {
    await writeLongbenchV2(join(folder, "data.json"), 2, 1);
    const args = [
      "eval",
      "--suite",
      "longbench-v2",
      "--data",
      "data.json",
      "--cot",
      "--samples-file",
      "s.jsonl",
      "--workers",
      "1",
      "-q",
    ];
    const { status, stderr } = await indexcache(folder, args);
    // 1,024 tokens, as many as the demo's window has.
    expect(stderr).toMatch(/^error: .*1,?024/);
    expect(status).toBe(2);
  });
});

describe("bad input is one sentence and exit code 2:", () => {
  const cases: [name: string, args: string[], message: string | RegExp][] = [
    ["zero samples", ["--samples", "0"], "--samples <n>' argument '0' is invalid. It must be 1 or more"],
    ["a length beyond the window", ["--lengths", "4k"], "--lengths has 4096, the model's window is 1024 tokens"],
    ["an unknown task", ["--tasks", "vt,songs"], 'has no task "songs"'],
    ["a pattern of another length", ["-p", "FSFS"], "has 4 letters, the model has 12 layers"],
    ["a gate without an arm", ["--fail-on", "inferior"], "--fail-on needs a --pattern"],
    ["--resume without a file", ["-p", "uniform:4", "--resume"], "--resume needs -o FILE"],
    ["two ways to think", ["--cot", "--thinking"], "they exclude each other"],
    ["a budget that is none", ["--max-new-tokens", "vt=0"], "It must be a whole number from 1 up, or task=number"],
    [
      "a budget of a task that does not run",
      ["--max-new-tokens", "qa_1=9"],
      'names task "qa_1", which suite ruler-core',
    ],
    ["thinking without a template", ["--thinking", "--chat-template", "none"], "--thinking needs a chat template"],
    ["--from with a model", ["./model", "--from", "s.jsonl"], 'MODEL ("./model") does not go with it'],
    ["a margin that nobody could see", ["--margin", "1e-300"], "must be 0, or points from 0.001 to 100"],
    ["an alpha that nothing passes", ["--alpha", "1e-300"], "must be 0.000001 or more and below 0.5"],
    ["--from a file that is none", ["--from", "nothing.jsonl"], 'Cannot read "nothing.jsonl"'],
  ];
  test.each(cases)("%s", async (_, args, message) => {
    const { status, stderr } = await indexcache(folder, ["eval", ...args]);
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/^\s+at /m);
    expect(status).toBe(2);
  });

  test("a pattern file of another model", async () => {
    const hash = "0".repeat(64);
    const none = { body: 0, indexer: 0, naive_body: 0, naive_indexer: 0 };
    const file: PatternFile = {
      schema_version: PATTERN_SCHEMA_VERSION,
      index_topk_pattern: "FSSSFSSSFSSS",
      model: {
        name: "elsewhere",
        architecture: "glm_moe_dsa",
        layers: 12,
        index_topk: 128,
        config_hash: hash,
        weight_hash: hash,
      },
      calibration: { source: "text.jsonl", hash, sequences: 1, tokens: 2 },
      baseline_loss: 1,
      loss: 1,
      trajectory: [],
      search: { strategy: "greedy", evaluations: 0, layer_executions: none, seconds: 0 },
      tool: { version: "0", runtime: "none", device: "cpu" },
    };
    writeFileSync(join(folder, "elsewhere.json"), formatPatternFile(file));
    const { status, stderr } = await indexcache(folder, ["eval", "-p", "elsewhere.json"]);
    expect(stderr).toMatch(/^error: Pattern file "elsewhere\.json" is of model "elsewhere", not of /m);
    expect(status).toBe(2);
  });

  test("a model without a tokenizer", async () => {
    const { status, stderr } = await indexcache(folder, ["eval", tinyModel, "-p", "FSSSS"]);
    expect(stderr).toMatch(/^error: Model folder ".*" has no tokenizer\.json$/m);
    expect(status).toBe(2);
  });

  test("a result file with a wrong field", async () => {
    writeFileSync(join(folder, "r.json"), '{"schema_version":1,"suite":3}');
    const { status, stderr } = await indexcache(folder, ["eval", "--from", "r.json"]);
    expect(stderr).toContain('error: Result file "r.json": "suite"');
    expect(status).toBe(2);
  });
});
