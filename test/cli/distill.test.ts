/** `indexcache distill` as its users meet it, on tiny models. */
import { cp, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { beforeAll, describe, expect, test } from "vitest";
import { openTensors } from "../../src/checkpoint/shards.ts";
import { readDistilledManifest, trainingTexts } from "../../src/formats/distilled-manifest.ts";
import { indexerTensors } from "../../src/graph/layer/lightning-indexer.ts";
import { openModel } from "../../src/graph/model-folder.ts";
import { readIndexers } from "../../src/runtime/training/stored-indexers.ts";
import { fixturePath } from "../oracle.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { indexcache, interrupt, shell, tinyModel, writeIds } from "./indexcache.ts";

const folder = temporaryFolder("file");
beforeAll(async () => {
  await writeIds(join(folder, "ids.jsonl"), 12, 28);
});

const set = ["-c", "ids.jsonl", "--sequence-length", "28", "--batch", "2", "--threads", "1"];
const small = [...set, "--steps", "6"];

async function filesOf(path: string): Promise<Map<string, string>> {
  const names = (await readdir(path)).sort();
  return new Map(
    await Promise.all(
      names.map(async (name) => [name, (await readFile(join(path, name))).toString("base64")] as const),
    ),
  );
}

/** Bytes of every tensor, by name. */
async function tensorsOf(path: string): Promise<Map<string, { dtype: string; bytes: string }>> {
  const found = new Map<string, { dtype: string; bytes: string }>();
  for (const { name, dtype, file, offset, length } of (await openTensors(path)).tensors.values()) {
    const whole = await readFile(join(path, file));
    found.set(name, { dtype, bytes: whole.subarray(offset, offset + length).toString("base64") });
  }
  return found;
}

const trainedName = /\.indexer\.(wq_b|wk|k_norm|weights_proj)\./;

describe("the new checkpoint", () => {
  test("has other indexers in Full layers, and every other tensor byte for byte; inspect and loss take it", async () => {
    const done = await indexcache(folder, ["distill", tinyModel, "-p", "FSFSS", ...small, "-o", "groups", "--json"]);
    expect([0, 1]).toContain(done.status);
    const record = JSON.parse(done.stdout);
    expect(record).toMatchObject({ pattern: "FSFSS", held_out_sequences: 2, losses: { own: expect.any(Number) } });
    const [before, after] = [await tensorsOf(tinyModel), await tensorsOf(join(folder, "groups"))];
    expect([...after.keys()].sort()).toEqual([...before.keys()].sort());
    for (const [name, { dtype }] of before) expect(after.get(name)?.dtype, name).toBe(dtype);
    const changed = [...before.keys()].filter((name) => after.get(name)?.bytes !== before.get(name)?.bytes);
    expect(changed.length).toBeGreaterThan(0);
    expect(changed.filter((name) => !(trainedName.test(name) && /layers\.[02]\./.test(name)))).toEqual([]);
    // The file is the original's with other numbers in it: where the file system copies by reference, they are all that is written.
    const [whole, copy] = await Promise.all(
      [tinyModel, join(folder, "groups")].map((path) => readFile(join(path, "model.safetensors"))),
    );
    const start = 8 + Number((whole as Buffer).readBigUInt64LE());
    expect(copy?.length).toBe(whole?.length);
    expect(copy?.subarray(0, start)).toEqual(whole?.subarray(0, start));
    expect(await readdir(folder)).not.toContain("groups.work");
    const shown = await indexcache(folder, ["inspect", "groups"]);
    expect(shown.stdout).toMatch(/^Distilled +from glm-groups \(weights [0-9a-f]{12}\) for FSFSS, 6 steps$/m);
    const card = await readFile(join(folder, "groups", "README.md"), "utf8");
    expect(card).toContain("# glm-groups with 2 of 5 lightning indexers");
    const loss = await indexcache(folder, ["loss", "groups", "-p", "FSFSS", ...set.slice(0, 4), "--json"]);
    expect(loss.status).toBe(0);
  });

  test("FP8 indexers are quantised anew with their scales, whatever shards they lie in", async () => {
    const source = fixturePath("v32-fp8");
    const done = await indexcache(folder, ["distill", source, "-p", "FFS", ...small, "--rate", "0.02", "-o", "fp8"]);
    expect([0, 1]).toContain(done.status);
    const [before, after] = [await tensorsOf(source), await tensorsOf(join(folder, "fp8"))];
    for (const [name, { dtype, bytes }] of before) {
      const isTrained = trainedName.test(name) && /layers\.[01]\./.test(name);
      expect(after.get(name)?.dtype, name).toBe(dtype);
      if (!isTrained) expect(after.get(name)?.bytes, name).toBe(bytes);
    }
    // What readers will see is near what it was: a step moves little, and FP8 keeps three bits of mantissa.
    const [old, fresh] = [await openModel(source), await openModel(join(folder, "fp8"))];
    const [was, is] = [(await readIndexers(old, [0])).get(0), (await readIndexers(fresh, [0])).get(0)];
    for (const name of indexerTensors) {
      const [left, right] = [was?.[name] as Float32Array, is?.[name] as Float32Array];
      const apart = Math.hypot(...right.map((value, i) => value - (left[i] as number))) / (Math.hypot(...left) || 1);
      expect(apart, name).toBeGreaterThan(0);
      if (name !== "kNormBias") expect(apart, name).toBeLessThan(0.9);
    }
  });

  test("--drop-shared-indexers leaves out what no layer needs, and the index says so", async () => {
    const words = ["distill", fixturePath("v32-fp8"), "-p", "FSS", ...small, "--drop-shared-indexers", "-o", "dropped"];
    const done = await indexcache(folder, words);
    expect(done.stderr).toContain("without 14 tensors of Shared layers' indexers");
    const names = [...(await tensorsOf(join(folder, "dropped"))).keys()];
    expect(names.some((name) => /layers\.0\..*indexer/.test(name))).toBe(true);
    expect(names.some((name) => /layers\.[12]\..*indexer/.test(name))).toBe(false);
    const index = await readFile(join(folder, "dropped", "model.safetensors.index.json"), "utf8");
    expect(Object.keys(JSON.parse(index).weight_map).sort()).toEqual(names.sort());
    const loss = await indexcache(folder, ["loss", "dropped", "-p", "FSS", ...set.slice(0, 4)]);
    expect(loss.status).toBe(0);
  });

  test("is made from an exported folder, and from links of a download cache", async () => {
    await indexcache(folder, ["export", tinyModel, "-o", "exported"]);
    const blobs = join(folder, "blobs");
    const linked = join(folder, "linked");
    await cp(tinyModel, blobs, { recursive: true });
    await mkdir(linked);
    for (const name of await readdir(blobs)) await symlink(join(blobs, name), join(linked, name));
    for (const [source, target] of [
      ["exported", "from-export"],
      ["linked", "from-links"],
    ] as const) {
      const done = await indexcache(folder, ["distill", source, "-p", "FSSSS", ...small, "-o", target]);
      expect([0, 1], done.stderr).toContain(done.status);
    }
    expect(await tensorsOf(join(folder, "from-export"))).toEqual(await tensorsOf(join(folder, "from-links")));
    expect(await readdir(join(folder, "from-export"))).not.toContain("indexcache.json");
  });

  test("--devices trains groups side by side, to the same bytes; lines name their group", async () => {
    const words = (output: string) => ["distill", tinyModel, "-p", "FSFSS", ...small, "-o", output];
    const alone = await indexcache(folder, words("alone"));
    const both = await indexcache(folder, [...words("both"), "--devices", "cpu,cpu"]);
    expect([0, 1], both.stderr).toContain(both.status);
    expect(both.stderr).toMatch(/^ {2}layers 2 to 4: step \d+: held-out attention missed/m);
    expect(alone.stderr).toMatch(/^ {2}step \d+: held-out attention missed/m);
    expect(await tensorsOf(join(folder, "both"))).toEqual(await tensorsOf(join(folder, "alone")));
  });

  test("--pattern any trains every indexer, and a search runs on the result", async () => {
    // What the last step leaves is written: held-out text would tell that the untrained indexers of a random model are best.
    const all = [...small, "--holdout", "0"];
    const done = await indexcache(folder, ["distill", tinyModel, "-p", "any", ...all, "-o", "any"]);
    expect([0, 1], done.stderr).toContain(done.status);
    const [before, after] = [await tensorsOf(tinyModel), await tensorsOf(join(folder, "any"))];
    const changed = [...before.keys()].filter((name) => before.get(name)?.bytes !== after.get(name)?.bytes);
    expect(changed.every((name) => trainedName.test(name))).toBe(true);
    for (const layer of [0, 1, 2, 3, 4]) expect(changed.join(" "), `layer ${layer}`).toContain(`layers.${layer}.`);
    const searched = await indexcache(folder, ["search", "any", ...set.slice(0, 4), "--retain", "2", "-o", "two.json"]);
    expect(searched.status).toBe(0);
    await writeIds(join(folder, "others.jsonl"), 6, 28, 40);
    const others = ["-c", "others.jsonl", ...all.slice(2)];
    const again = await indexcache(folder, ["distill", "any", "-p", "two.json", ...others, "-o", "two"]);
    expect([0, 1], again.stderr).toContain(again.status);
    // What the second training's folder says of text covers both.
    const [first, second] = [
      await readDistilledManifest(join(folder, "any")),
      await readDistilledManifest(join(folder, "two")),
    ];
    expect(first?.text.ngrams?.hashes.length).toBeGreaterThan(0);
    expect(trainingTexts(second).map(({ source }) => source)).toEqual(["ids.jsonl", "others.jsonl"]);
    expect(trainingTexts(second)[0]).toEqual(trainingTexts(first)[0]);
  });
});

test.skipIf(process.platform === "win32")(
  "what is trained is not lost to a folder that somebody fills meanwhile",
  async () => {
    const words = ["distill", tinyModel, "-p", "uniform:2", ...set, "-o", "filled"].join(" ");
    const meanwhile = "until grep -q 'group 1 of' filled.log; do sleep 0.05; done; mkdir filled; touch filled/mine";
    const line = `$indexcache ${words} --steps 300 2> filled.log & ${meanwhile}; wait $!; status=$?; cat filled.log >&2; exit $status`;
    const { status, stderr } = await shell(folder, line);
    expect(stderr).toMatch(/^hint: everything is trained, and kept: .* --work filled\.work --resume$/m);
    expect(status).toBe(2);
    const elsewhere = words.replace("-o filled", "-o elsewhere --work filled.work --resume --steps 300");
    const resumed = await shell(folder, `$indexcache ${elsewhere}`);
    expect([0, 1], resumed.stderr).toContain(resumed.status);
    expect(await readdir(join(folder, "elsewhere"))).toContain("model.safetensors");
  },
);

describe("bad input", () => {
  test.each([
    ["a pattern of another depth", ["-p", "FSFS"], /5 layers|5 letters|has 5/],
    ["text that is too short", ["-p", "uniform:2", "--sequence-length", "7"], /index_topk/],
    ["a rate of 0", ["-p", "uniform:2", "--rate", "0"], /--rate is 0/],
    ["a share of 2", ["-p", "uniform:2", "--holdout", "2"], /--holdout is 2/],
    ["contradictions", ["-p", "uniform:2", "--resume", "--fresh"], /--resume .* --fresh/],
    [
      "a resumption of nothing",
      ["-p", "uniform:2", "--resume"],
      /no journal "never\.work\/journal\.jsonl" to continue/,
    ],
    ["any without indexers", ["-p", "any", "--drop-shared-indexers"], /--drop-shared-indexers needs a pattern/],
  ])("%s is refused before anything starts", async (_, words, message) => {
    const outcome = await indexcache(folder, ["distill", tinyModel, ...small, ...words, "-o", "never"]);
    expect(outcome).toMatchObject({ status: 2, stdout: "", stderr: expect.stringMatching(message) });
    expect(await readdir(folder)).not.toContain("never.work");
  });

  test("a layer that the model made Shared cannot be Full; a folder with something in it stays", async () => {
    const native = fixturePath("glm-shared");
    const letters = await readFile(join(native, "config.json"), "utf8");
    const depth = JSON.parse(letters).num_hidden_layers as number;
    const all = await indexcache(folder, ["distill", native, "-p", "F".repeat(depth), ...small, "-o", "never"]);
    expect(all.status).toBe(2);
    expect(all.stderr).toMatch(/^error: .*(Shared|indexer)/m);
    await mkdir(join(folder, "taken"));
    await writeFile(join(folder, "taken", "mine"), "x");
    const taken = await indexcache(folder, ["distill", tinyModel, "-p", "uniform:2", ...small, "-o", "taken"]);
    expect(taken).toMatchObject({ status: 2, stderr: expect.stringContaining("not empty") });
    expect(await readdir(join(folder, "taken"))).toEqual(["mine"]);
  });

  test("--dry-run says what a config.json takes, and that there is no room for it", async () => {
    const words = ["--pattern", "uniform:2", "--dry-run", "--device", "cpu", "--json"];
    const tiny = await indexcache(folder, ["distill", join(tinyModel, "config.json"), ...words]);
    expect(tiny.status, tiny.stderr).toBe(0);
    const plan = JSON.parse(tiny.stdout);
    expect(plan).toMatchObject({ groups: 3, steps: 1200, boundaries: 2 });
    expect(plan.disk_bytes).toBe(2 * 2 * plan.tokens * 40);
    expect(plan).toMatchObject({ step_states: "stored", flops: expect.any(Number) });
    expect(plan.operations.carry / plan.flops).toBeGreaterThan(0);
    // Steps that run their group's layers keep the states of its first layer alone, and take longer.
    const computed = await indexcache(folder, [
      ...["distill", join(tinyModel, "config.json"), "--states", "computed", "-p", "FSSSS"],
      ...words.slice(2),
    ]);
    const other = JSON.parse(computed.stdout);
    expect(other).toMatchObject({ boundaries: 1, step_states: "computed", disk_bytes: 2 * other.tokens * 40 });
    expect(other.operations.training / other.steps).toBeGreaterThan(plan.operations.training / plan.steps);
    // The first example of the help.
    const demo = await indexcache(folder, ["distill", "--pattern", "uniform:4", "--dry-run", "--device", "cpu"]);
    expect(demo).toMatchObject({ status: 0, stdout: expect.stringMatching(/^Text +6,400 sequences .*no -c/m) });
    const config = JSON.parse(await readFile(join(tinyModel, "config.json"), "utf8"));
    await writeFile(
      join(folder, "huge.json"),
      JSON.stringify({ ...config, hidden_size: 1 << 16, intermediate_size: 1 << 19 }),
    );
    const huge = await indexcache(folder, ["distill", "huge.json", ...words]);
    expect(huge).toMatchObject({
      status: 3,
      stderr: expect.stringMatching(/^error: The (hidden states|largest \w+) take/m),
    });
  });
});

describe("a run that is cut", () => {
  const words = (output: string) => ["distill", tinyModel, "-p", "FSFSS", ...set, "--steps", "60", "-o", output];

  test("ends in the same bytes after kills at three moments", async () => {
    const whole = await indexcache(folder, words("whole"));
    expect([0, 1], whole.stderr).toContain(whole.status);
    // In the first group's training, between the groups, in the second's.
    for (const moment of ["step 24:", "group 2 of 2", "step 40:"]) {
      const killed = await interrupt(
        folder,
        [...words("cut"), ...(moment === "step 24:" ? [] : ["--resume"])],
        moment,
        "SIGKILL",
      );
      expect(killed.status).toBe("SIGKILL");
    }
    const end = await indexcache(folder, [...words("cut"), "--resume"]);
    expect([0, 1], end.stderr).toContain(end.status);
    const [left, right] = [await filesOf(join(folder, "whole")), await filesOf(join(folder, "cut"))];
    const manifest = (files: Map<string, string>) =>
      Buffer.from(files.get("indexcache-distilled.json") ?? "", "base64")
        .toString()
        .replace(/-o (whole|cut)/, "");
    expect(manifest(right)).toBe(manifest(left));
    left.delete("indexcache-distilled.json");
    right.delete("indexcache-distilled.json");
    expect(right).toEqual(left);
  });

  test("Ctrl-C saves, names the command that goes on, and a changed boundary is refused", async () => {
    const stopped = await interrupt(folder, words("stopped"), "step 16:", "SIGINT");
    expect(stopped).toMatchObject({
      status: 130,
      stderr: expect.stringMatching(
        /Interrupted; what was trained so far is in "stopped.work"\nhint: continue with: .*--resume/,
      ),
    });
    const again = await indexcache(folder, words("stopped"));
    expect(again).toMatchObject({ status: 2, stderr: expect.stringContaining("--resume") });
    const path = join(folder, "stopped.work", "boundary-0.bf16");
    const bytes = await readFile(path);
    bytes[9] = (bytes[9] ?? 0) ^ 1;
    await writeFile(path, bytes);
    const refused = await indexcache(folder, [...words("stopped"), "--resume"]);
    expect(refused).toMatchObject({ status: 2, stderr: expect.stringMatching(/boundary-0\.bf16" has changed/) });
    await writeFile(join(folder, "stopped.work", "mine"), "x");
    const fresh = await indexcache(folder, [...words("stopped"), "--fresh"]);
    expect([0, 1], fresh.stderr).toContain(fresh.status);
    expect(await readdir(join(folder, "stopped.work"))).toEqual(["mine"]);
  });

  test("a full disk ends it with a sentence, and it goes on when there is room", async () => {
    // A limit on the size of files stands in for the disk.
    const line = `$indexcache ${words("full")
      .map((word) => `'${word}'`)
      .join(" ")}`;
    const full = await shell(folder, `ulimit -f 16; ${line}`);
    expect(full).toMatchObject({
      status: 3,
      stderr: expect.stringMatching(/error: Cannot write "full.work\/[^"]*": .*\nhint: .*--resume/),
    });
    const resumed = await shell(folder, `${line} --resume`);
    expect([0, 1], resumed.stderr).toContain(resumed.status);
  });

  test("a disk that is full when the result is written leaves no half of it, and nothing is trained again", async () => {
    const line = `$indexcache ${words("last")
      .map((word) => `'${word}'`)
      .join(" ")}`;
    // States and progress are smaller than this, the weight file is larger.
    const full = await shell(folder, `ulimit -f 400; ${line}`);
    expect(full).toMatchObject({
      status: 3,
      stderr: expect.stringMatching(
        /^error: Cannot write "last": .*\nhint: everything is trained; .* -o last --resume$/m,
      ),
    });
    expect(await readdir(folder)).not.toContain("last");
    const resumed = await shell(folder, `${line} --resume`);
    expect([0, 1], resumed.stderr).toContain(resumed.status);
    expect(resumed.stderr).not.toMatch(/step \d+/);
    expect(await readdir(join(folder, "last"))).toContain("model.safetensors");
  });

  test("numbers that are not finite end it: layer and tensor are named, the last checkpoint is kept", async () => {
    const wild = [...words("infinite"), "--rate", "1e30", "--holdout", "0"];
    const outcome = await indexcache(folder, wild);
    expect(outcome).toMatchObject({
      status: 3,
      stderr: expect.stringMatching(
        /^error: Step \d+ of layer 0: \w+ is not finite\nhint: a lower --rate, .*; the last good state is kept in "infinite.work"$/m,
      ),
    });
    expect(await readdir(folder)).not.toContain("infinite");
    expect(await readdir(join(folder, "infinite.work"))).toContain("journal.jsonl");
  });

  test("a rate that diverges is ended, and the best indexers are written", async () => {
    const outcome = await indexcache(folder, [
      "distill",
      tinyModel,
      "-p",
      "FSSSS",
      ...set,
      "--steps",
      "80",
      "--rate",
      "30",
      "-o",
      "wild",
    ]);
    expect(outcome.stderr).toMatch(
      /warning: layer 0: the training diverged at a rate of 30; it was ended at step \d+, and the indexer of step \d+ is kept/,
    );
    expect(await readdir(join(folder, "wild"))).toContain("model.safetensors");
  });
});
