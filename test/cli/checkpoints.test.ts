/**
 * Checkpoints as users have them: two shards in a Hugging Face cache, where everything is a link, and the export of it,
 * through every command that takes a model.
 */
import { execFileSync } from "node:child_process";
import { cp, link, mkdir, mkdtemp, readdir, readFile, rm, symlink, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InputError } from "../../src/base/errors.ts";
import { Tokenizer } from "../../src/checkpoint/tokenizer/tokenizer.ts";
import { readPatternFile } from "../../src/formats/pattern-file.ts";
import { exportModel } from "../../src/graph/exported/export.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { cacheInTwoShards } from "../checkpoint/hub-cache-layout.ts";
import { fixturePath } from "../oracle.ts";
import { demoModel, indexcache, type Outcome, tinyModel, writeIds } from "./indexcache.ts";

const cpu = ["--device", "cpu", "--threads", "1"];
const text = join(demoModel, "..", "..", "calibration", "demo.jsonl");
const calibration = ["-c", text, "--sequences", "2", "--sequence-length", "160"];

let scratch: string;
let snapshot: string;
const outcomes = new Map<string, number>();

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "indexcache-checkpoints-"));
  process.env.HF_HOME = scratch;
  snapshot = await cacheInTwoShards(scratch, "indexcache/demo", demoModel);
  await done(["export", "indexcache/demo", "-o", "exported"]);
});
afterAll(async () => {
  delete process.env.HF_HOME;
  await rm(scratch, { recursive: true });
});

async function done(args: string[]): Promise<Outcome> {
  const outcome = await indexcache(scratch, [...args, "-q"]);
  // Two sequences and a single repeat are warned of, and enough for these tests.
  expect(outcome.stderr.replace(/^warning: (\d+ sequences are few|in \d+ of \d+ measurements noise).*\n/gm, "")).toBe(
    "",
  );
  expect(outcome.status).toBe(0);
  return outcome;
}

async function refused(args: string[]): Promise<string> {
  const outcome = await indexcache(scratch, args);
  expect(outcome.status).toBe(2);
  expect(outcome.stdout).toBe("");
  expect(outcome.stderr).not.toMatch(/\n {4}at |defect/);
  return outcome.stderr;
}

describe.each(["indexcache/demo", "exported"])("%s, two shards", (model) => {
  const file = (name: string) => join(scratch, `${model.replace("/", "-")}-${name}`);

  test.each(["float32", "float16"])("loss in %s is that of the model in one file", async (dtype) => {
    const args = [...calibration, ...cpu, "--workers", "1", "--dtype", dtype, "--json"];
    const loss = async (path: string) => JSON.parse((await done(["loss", path, ...args])).stdout).loss as number;
    outcomes.set(dtype, outcomes.get(dtype) ?? (await loss(demoModel)));
    expect(await loss(model)).toBe(outcomes.get(dtype));
  });

  test("inspect, search, run, eval, analyze, bench and report", async () => {
    expect((await done(["inspect", model, "--verify"])).stdout).toMatch(/12 layers|12, of which 12 run an indexer/);
    // Several processes, each of which opens the model anew.
    const search = [
      "search",
      model,
      ...calibration,
      ...cpu,
      "--workers",
      "2",
      "--strategy",
      "greedy",
      "--retain",
      "11",
    ];
    await done([...search, "-o", file("p.json")]);
    const [found] = (await readPatternFile(file("p.json"))).patterns ?? [];
    expect(found?.full_layers).toBe(11);
    expect(found?.kl).toBeGreaterThan(0);
    const run = ["run", model, ...cpu, "-p", file("p.json"), "--prompt", "The key of", "-n", "4"];
    expect((await done(run)).stdout).toBe(" Petra.\nThe\n");
    const tasks = ["--tasks", "niah_single_1", "--lengths", "256", "--samples", "1"];
    await done(["eval", model, ...cpu, "-p", file("p.json"), ...tasks, "-o", file("e.json")]);
    await done(["analyze", model, ...calibration, ...cpu, "--workers", "1", "-o", file("a.json")]);
    const bench = ["--contexts", "64", "--repeats", "1", "--decode-tokens", "1", "-p", file("p.json")];
    await done(["bench", model, ...cpu, ...bench, "-o", file("b.json")]);
    await done(["report", ...["p", "e", "a", "b"].map((name) => file(`${name}.json`)), "-o", file("report")]);
    expect(await readdir(file("report"))).toContain("report.html");
  }, 300_000);
});

describe("names and links", () => {
  test("owner/name that the cache does not have is told of with the command that fetches it", async () => {
    const words = await refused(["search", "zai-org/GLM-5"]);
    expect(words).toContain('There is no folder "zai-org/GLM-5", and the Hugging Face cache');
    expect(words).toContain("hf download zai-org/GLM-5");
    expect(await refused(["loss", "indexcache/demo@v2"])).toContain("hf download indexcache/demo --revision v2");
  });

  test("a snapshot whose download was not finished names the shard and the command that goes on", async () => {
    const half = await cacheInTwoShards(scratch, "indexcache/half", demoModel);
    await unlink(join(half, "model-00002-of-00002.safetensors"));
    const words = await refused(["inspect", "indexcache/half"]);
    expect(words).toMatch(/Shard ".*model-00002-of-00002\.safetensors" is missing/);
    expect(words).toContain("hf download indexcache/half continues it");
  });

  test("a model of the cache is called owner/name in results", async () => {
    expect((await done(["inspect", snapshot, "--json"])).stdout).toContain('"name": "indexcache/demo"');
  });

  test("a checkpoint of links is no place to export into", async () => {
    const before = await readdir(snapshot);
    expect(await refused(["export", "indexcache/demo", "-o", snapshot])).toMatch(
      /Cannot export into ".*": its model-00001-of-00002.safetensors is a symbolic link/,
    );
    expect(await readdir(snapshot)).toEqual(before);
  });

  test("shards in folders far apart", async () => {
    const [far, near] = ["far/away/blob", "near/blob"].map((name) => join(scratch, name)) as [string, string];
    const folder = join(scratch, "apart");
    for (const path of [folder, join(scratch, "far/away"), join(scratch, "near")])
      await mkdir(path, { recursive: true });
    for (const name of await readdir(snapshot)) {
      const shard = /^model-0000([12])/.exec(name)?.[1];
      const place = shard === undefined ? join(folder, name) : shard === "1" ? far : near;
      await writeFile(place, await readFile(join(snapshot, name)));
      if (shard !== undefined) await symlink(place, join(folder, name));
    }
    const args = [...calibration, ...cpu, "--workers", "1", "--json"];
    expect(JSON.parse((await done(["loss", folder, ...args])).stdout).loss).toBe(outcomes.get("float32"));
  });

  test("an exported model that came through the cache", async () => {
    await cp(join(scratch, "exported"), join(scratch, "real"), { recursive: true });
    const folder = join(scratch, "linked");
    await mkdir(join(folder, "stages"), { recursive: true });
    for (const name of await readdir(join(scratch, "real"), { recursive: true })) {
      if (name !== "stages") await symlink(join(scratch, "real", name), join(folder, name));
    }
    const args = [...calibration, ...cpu, "--workers", "1", "--json"];
    expect(JSON.parse((await done(["loss", folder, ...args])).stdout).loss).toBe(outcomes.get("float32"));
  });

  test("weights with a second hard link are refused before any work, and can be exported", async () => {
    const folder = join(scratch, "hard");
    await cp(tinyModel, folder, { recursive: true });
    await link(join(folder, "model.safetensors"), join(scratch, "second-name"));
    await writeIds(join(scratch, "ids.jsonl"), 1, 16);
    for (const command of ["loss", "search"]) {
      const words = await refused([command, folder, "-c", "ids.jsonl", "--sequence-length", "16"]);
      expect(words).toMatch(/model\.safetensors is a file with 2 names \(hard links\)/);
    }
    expect(await refused(["export", folder, "-o", folder])).toContain("has a second hard link");
    await done(["export", folder, "-o", "single"]);
    await done(["loss", "single", "-c", "ids.jsonl", "--sequence-length", "16"]);
  });
});

describe("the model's own pattern", () => {
  // Its config.json says FFSSF and its checkpoint holds five indexers.
  const model = fixturePath("glm-pattern");
  const set = ["-c", "ids.jsonl", "--sequence-length", "16", ...cpu];
  beforeAll(() => writeIds(join(scratch, "ids.jsonl"), 2, 16, 71));

  test("is the default, what `full` means, and where a search starts", async () => {
    const args = ["loss", model, ...set, "--workers", "1", "--json"];
    const { stdout, stderr } = await indexcache(scratch, args);
    expect(stderr).toContain("the checkpoint holds indexers for layers 2 and 3, which config.json makes Shared");
    expect(JSON.parse(stdout).index_topk_pattern).toBe("FFSSF");
    expect((await done([...args, "-p", "full"])).stdout).toBe(stdout);
    await done(["search", model, ...set, "--workers", "1", "--retain", "2", "-o", "own.json"]);
    const found = await readPatternFile(join(scratch, "own.json"));
    expect(found.index_topk_pattern).toMatch(/^F[FS]SS[FS]$/);
    const bench = ["bench", model, ...cpu, "--contexts", "16", "--repeats", "1", "--decode-tokens", "1", "--json"];
    expect(JSON.parse((await done([...bench, "-p", "FSSSF"])).stdout).patterns[0].index_topk_pattern).toBe("FFSSF");
    expect((await done(["inspect", model])).stdout).toMatch(/Own pattern +FFSSF\nNot used +indexers of layers 2, 3,/);
  });

  test("a layer that it shares cannot be Full", async () => {
    expect(await refused(["loss", model, ...set, "-p", "FFFSF"])).toContain(
      "F at layer 2, which is Shared in the model",
    );
    const folder = join(scratch, "patched");
    await cp(tinyModel, folder, { recursive: true });
    const patch = [
      "pattern",
      "FSFSF",
      "--for",
      "sglang",
      "--model",
      tinyModel,
      "--write-config",
      folder,
      "--overwrite",
    ];
    expect((await indexcache(scratch, patch)).status).toBe(0);
    const args = ["loss", folder, ...set, "--workers", "1", "--json"];
    expect(JSON.parse((await done(args)).stdout).index_topk_pattern).toBe("FSFSF");
  });
});

describe("what is no file", () => {
  const names = ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json"];
  test.each(names)("%s: a folder, a pipe, a device, a link that leads nowhere", async (name) => {
    const folder = join(scratch, `odd-${name}`);
    await mkdir(folder);
    for (const other of await readdir(snapshot)) {
      if (other !== name) await writeFile(join(folder, other), await readFile(join(snapshot, other)));
    }
    const path = join(folder, name);
    const oddities: [string, () => unknown][] = [
      ["it is a folder", () => mkdir(path)],
      ["it is a pipe, not a file", () => execFileSync("mkfifo", [path])],
      ["it is a device, not a file", () => symlink("/dev/zero", path)],
      ["no such file or folder|is missing", () => symlink("nowhere", path)],
    ];
    for (const [words, make] of oddities) {
      await make();
      const uses = [
        () => openModel(folder).then(() => Tokenizer.load(folder)),
        () => exportModel(folder, join(scratch, "never")),
      ];
      for (const use of uses) {
        const error = await use().catch((reason: unknown) => reason);
        expect(error).toBeInstanceOf(InputError);
        expect((error as InputError).message).toMatch(new RegExp(`${name}.*(${words})`));
      }
      await rm(path, { recursive: true });
    }
  });
});
