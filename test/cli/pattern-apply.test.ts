/** `pattern apply`: what it writes is loaded and computes the same losses as the original with the pattern. */
import { mkdir, readdir, readFile, realpath, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { readServedModel } from "../../src/engines/served-model.ts";
import { cacheInTwoShards } from "../checkpoint/hub-cache-layout.ts";
import { fixturePath } from "../oracle.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { demoModel, indexcache, type Outcome, tinyModel, writeIds } from "./indexcache.ts";

const quarter = join(import.meta.dirname, "..", "..", "patterns", "indexcache/demo/quarter.json@1/4");

const folder = temporaryFolder("file");
beforeAll(async () => {
  await writeIds(join(folder, "ids.jsonl"), 2, 24);
});

const apply = (...args: string[]): Promise<Outcome> => indexcache(folder, ["pattern", "apply", ...args]);

/** Loss in nats a token, of the default pattern unless one is given. */
async function lossOf(model: string, pattern?: string): Promise<number> {
  const own = pattern === undefined ? [] : ["--pattern", pattern];
  const args = ["loss", model, "-c", "ids.jsonl", "--sequence-length", "24", ...own, "--json", "-q"];
  const { status, stdout, stderr } = await indexcache(folder, args);
  expect([status, stderr]).toEqual([0, ""]);
  return (JSON.parse(stdout) as { loss: number }).loss;
}

describe("pattern apply", () => {
  test("writes a checkpoint whose own pattern it is, of equal loss; --restore gives the original back", async () => {
    expect(await apply(tinyModel, "FSSFS", "-o", "tiny")).toMatchObject({ status: 0 });
    const model = await readServedModel(join(folder, "tiny"));
    expect(model).toMatchObject({ shipped: "FSSFS", fields: { index_topk_pattern: "FSSFS", use_index_cache: true } });
    const shared = await lossOf(tinyModel, "FSSFS");
    expect(await lossOf("tiny")).toBe(shared);

    const refused = await apply("tiny", "FFSFS", "-o", "other");
    expect(refused).toMatchObject({ status: 2, stderr: expect.stringContaining("has no indexer at layer 1") });
    expect(refused.stderr).toContain("--restore ORIGINAL");
    expect(await apply("tiny", "FFSFS", "--restore", tinyModel, "-o", "other")).toMatchObject({ status: 0 });
    expect(await lossOf("other")).toBe(await lossOf(tinyModel, "FFSFS"));

    expect(await apply("other", "--restore", tinyModel, "-o", "again")).toMatchObject({ status: 0 });
    expect(await readFile(join(folder, "again", "config.json"), "utf8")).toBe(
      await readFile(join(tinyModel, "config.json"), "utf8"),
    );
    expect(await lossOf("again")).toBe(await lossOf(tinyModel));
    expect(await lossOf("again")).not.toBe(shared);
  });

  test("takes MODEL and the original as owner/name of the Hugging Face cache, as `pattern` does; a shard that is gone is named", async () => {
    const home = join(folder, "home");
    const snapshot = await cacheInTwoShards(home, "acme/tiny", tinyModel);
    vi.stubEnv("HF_HOME", home);
    try {
      expect(await apply("acme/tiny", "FSSFS", "-o", "cached")).toMatchObject({ status: 0 });
      expect(await lossOf("cached")).toBe(await lossOf(tinyModel, "FSSFS"));
      expect(await apply("cached", "--restore", "acme/tiny", "-o", "cached-again")).toMatchObject({ status: 0 });
      expect((await indexcache(folder, ["pattern", "acme/tiny"])).stdout).toBe("FFFFF\n");
      const checked = await indexcache(folder, ["pattern", "FSSFS", "--check", "--model", "acme/tiny"]);
      expect(checked).toMatchObject({ status: 0, stdout: expect.stringContaining("can be served") });
      // What is left of a blob that a cache has cleaned up: its link.
      await rm(await realpath(join(snapshot, "model-00002-of-00002.safetensors")));
      const { status, stderr } = await indexcache(folder, ["inspect", "acme/tiny"]);
      expect(stderr).toMatch(
        /^error: Shard ".*model-00002-of-00002.safetensors" is missing; .*\nhint: .* hf download acme\/tiny /,
      );
      expect(status).toBe(2);
    } finally {
      vi.unstubAllEnvs();
    }
  });

  test("of several shards, as a download cache links them, rewrites those that change and its index", async () => {
    const source = fixturePath("glm-shared");
    await mkdir(join(folder, "snapshot"));
    for (const name of await readdir(source)) await symlink(join(source, name), join(folder, "snapshot", name));
    const { layers, shipped = "" } = await readServedModel(source);
    const pattern = `F${"S".repeat(layers - 1)}`;
    expect(shipped).not.toBe(pattern);
    const outcome = await apply("snapshot", pattern, "-o", "shards", "--json");
    expect(outcome).toMatchObject({ status: 0 });
    const report = JSON.parse(outcome.stdout) as { rewritten: string[]; left_out_tensors: number };
    expect(report.rewritten.length).toBeGreaterThan(0);
    expect(report.left_out_tensors).toBeGreaterThan(0);
    const index = JSON.parse(await readFile(join(folder, "shards", "model.safetensors.index.json"), "utf8"));
    expect(Object.keys(index.weight_map).filter((name) => name.includes(".indexer."))).toSatisfy(
      (names: string[]) => names.length > 0 && names.every((name) => name.startsWith("model.layers.0.")),
    );
    expect(await lossOf("shards")).toBe(await lossOf(source, pattern));
  });

  test("of DeepSeek-V3.2 in FP8 leaves scales out as well, and warns of transformers", async () => {
    const source = fixturePath("v32-fp8");
    const { layers } = await readServedModel(source);
    const pattern = `F${"S".repeat(layers - 1)}`;
    expect(await apply(source, pattern, "-o", "v32")).toMatchObject({ status: 0 });
    expect((await readServedModel(join(folder, "v32"))).shipped).toBe(pattern);
    expect(await readFile(join(folder, "v32", "README.md"), "utf8")).toContain("transformers** ignores sharing");
    for (const name of (await readdir(join(folder, "v32"))).filter((file) => file.endsWith(".safetensors"))) {
      expect(await readFile(join(folder, "v32", name), "latin1")).not.toMatch(/layers\.1\.self_attn\.indexer/);
    }
  });

  test("tells in README.md where it comes from and what it loses", async () => {
    expect(await apply(demoModel, quarter, "-o", "quarter")).toMatchObject({ status: 0, stderr: "" });
    const card = await readFile(join(folder, "quarter", "README.md"), "utf8");
    expect(card).toContain("license: apache-2.0");
    expect(card).toContain("FSSFSSSSSFSS");
    expect(card).toContain("| Loss with this pattern | 1.18952 (+0.05985) |");
    expect(card).toContain("# The demo model of indexcache");
    expect(card).not.toContain(folder);
    // vLLM finds nothing there that it could not load.
    const check = ["pattern", quarter, "--check", "--engine", "vllm", "--model", "quarter"];
    expect(await indexcache(folder, check)).toMatchObject({ status: 0 });
  });

  test("--engine-shape: the demo model padded for engines, alone or with a pattern, loses what the native one does", async () => {
    await writeIds(join(folder, "long.jsonl"), 1, 200);
    const loss = async (model: string, pattern: string): Promise<number> => {
      const args = ["loss", model, "-c", "long.jsonl", "--sequence-length", "200", "-p", pattern, "--json", "-q"];
      return (JSON.parse((await indexcache(folder, args)).stdout) as { loss: number }).loss;
    };
    const outcome = await apply(demoModel, "--engine-shape", "heads=16", "-o", "padded", "--json");
    expect(outcome.status).toBe(0);
    expect(JSON.parse(outcome.stdout)).toMatchObject({
      index_topk_pattern: "FFFFFFFFFFFF",
      engine_shape: { num_attention_heads: 16, index_n_heads: 32 },
    });
    const pattern = "FSSFSSSSSFSS";
    const shared = await loss(demoModel, pattern);
    expect(Math.abs((await loss("padded", pattern)) - shared)).toBeLessThan(1e-6);
    const combined = await apply(demoModel, quarter, "-o", "padded-quarter", "--engine-shape");
    expect(combined.stdout).toMatch(/Shape +that of engines' kernels: 8 heads, 32 index heads of 128\n/);
    expect(await readServedModel(join(folder, "padded-quarter"))).toMatchObject({ shipped: pattern });
    expect(Math.abs((await loss("padded-quarter", pattern)) - shared)).toBeLessThan(1e-6);
    const card = await readFile(join(folder, "padded-quarter", "README.md"), "utf8");
    expect(card).toContain("padded to the shape that the kernels of serving engines take: 8 heads");
  });

  test("--engine-shape refuses a model that cannot take it, and says where MODEL belongs", async () => {
    for (const [args, words] of [
      [["--engine-shape", demoModel, "-o", "new"], "MODEL and PATTERN come before --engine-shape"],
      [[demoModel, "--engine-shape", "heads=12", "-o", "new"], "N one of 8, 16, 32, 64, 128"],
      [[tinyModel, "--engine-shape", "-o", "new"], "index_topk is 7, no multiple of 128"],
    ] as const) {
      expect(await apply(...args)).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining(words) });
    }
    expect(await readdir(folder)).not.toContain("new");
  });

  test("refuses a folder that is not empty, a pattern of another model, a model without weights", async () => {
    await mkdir(join(folder, "taken"));
    await writeFile(join(folder, "taken", "notes.txt"), "mine");
    for (const [args, words] of [
      [[tinyModel, "FSSFS", "-o", "taken"], "the folder is not empty"],
      [[tinyModel, quarter, "-o", "new"], "is of a glm_moe_dsa model with 12 layers"],
      [[tinyModel, "FSSF", "-o", "new"], "the pattern has 4 letters, the model 5 backbone layers"],
      [[tinyModel, "SFFFF", "-o", "new"], "the first layer is S"],
      [[tinyModel, "-o", "new"], "PATTERN is missing"],
      [[join(tinyModel, "config.json"), "FSSFS", "-o", "new"], "is no folder with weights"],
      [["tiny-that-is-not-there", "FSSFS", "-o", "new"], "no such file"],
      [[tinyModel, "FSSFS", "-o", "new", "--restore", demoModel], "is not what"],
    ] as const) {
      expect(await apply(...args)).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining(words) });
    }
    expect(await readdir(join(folder, "taken"))).toEqual(["notes.txt"]);
    expect(await readdir(folder)).not.toContain("new");
  });
});
