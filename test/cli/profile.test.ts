import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { readModelConfig } from "../../src/checkpoint/config/config-json.ts";
import { latentWidth } from "../../src/graph/exported/contract.ts";
import type { ProfileRecord } from "../../src/report/profile-report.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { demoModel, indexcache, shell } from "./indexcache.ts";

const folder = temporaryFolder("test");
let config: Awaited<ReturnType<typeof readModelConfig>>;

beforeAll(async () => {
  config = await readModelConfig(demoModel);
});

const length = 256;
const loss = ["loss", "--sequences", "1", "--sequence-length", String(length), "--device", "cpu"];

async function readRecord(): Promise<ProfileRecord> {
  return JSON.parse(await readFile(join(folder, "profile.json"), "utf8")) as ProfileRecord;
}

const transfers = (record: ProfileRecord, stage: string) => record.stages.find(({ name }) => name === stage)?.transfers;

/** Bytes of `count` float32 or int32. */
const words = (count: number): number => 4 * count;
/** Bytes of `count` int64. */
const ids = (count: number): number => 8 * count;

describe("loss --profile", () => {
  test("counts what one evaluation passes to every stage and back", async () => {
    const args = [...loss, "--json", "--profile", "profile.json"];
    const outcome = await indexcache(folder, args);
    expect(outcome).toMatchObject({ status: 0, stderr: expect.stringMatching(/\nprofile: profile.json\n$/) });
    expect(JSON.parse(outcome.stdout)).toEqual(JSON.parse((await indexcache(folder, [...loss, "--json"])).stdout));

    const record = await readRecord();
    expect(record).toMatchObject({
      command: "loss",
      device: "cpu",
      warm_up: true,
      cpu_operators: null,
      complete: true,
    });
    const { hiddenSize, indexHeadDim, indexTopk, numHiddenLayers, qkRopeHeadDim } = config;
    // One chunk ends at index_topk, the other takes the rest.
    expect(indexTopk).toBe(length / 2);
    const past = indexTopk;
    const rotation = words(length * qkRopeHeadDim);
    const rows = words(length * hiddenSize) + rotation + ids(length);
    const selected = words(length * indexTopk);
    expect(transfers(record, "embed")).toMatchObject({
      runs: 1,
      in: { tensors: 2, bytes: ids(2 * length) },
      out: { tensors: 3, bytes: words(length * hiddenSize) + rotation },
    });
    for (let layer = 0; layer < numHiddenLayers; layer++) {
      expect(transfers(record, `layer.${layer}.indexer`)).toMatchObject({
        runs: 2,
        in: { tensors: 2 * 5, tensors_per_run: 5, bytes: rows + words(past * indexHeadDim) },
        out: { tensors: 2 * 2, bytes: selected + words(length * indexHeadDim) },
      });
      expect(transfers(record, `layer.${layer}.body`)).toMatchObject({
        runs: 2,
        in: { tensors: 2 * 6, bytes: rows + selected + words(past * latentWidth(config)) },
        out: { tensors: 2 * 2, bytes: words(length * hiddenSize) + words(length * latentWidth(config)) },
      });
    }
    expect(transfers(record, "loss")).toMatchObject({
      runs: 2,
      in: { tensors: 2 * 2, bytes: words((length - 1) * hiddenSize) + ids(length - 1) },
      out: { tensors: 2, bytes: words(length - 1), bytes_per_run: words(length - 1) / 2 },
    });
    expect(record.transfers).toMatchObject({ runs: 3 + numHiddenLayers * 4 });

    expect(record.operators.map(({ operator }) => operator)).toContain("MatMul");
    expect(record.control_flow.map(({ operator }) => operator)).toEqual(["If"]);
    const inside = record.operators.reduce((sum, { seconds }) => sum + seconds, 0);
    expect(inside).toBeLessThanOrEqual(record.seconds);
    expect(record.seconds).toBeLessThanOrEqual(record.work_seconds);
  });

  test("prints tables on stderr and leaves nothing behind", async () => {
    const line = [...loss, "-p", "FSSSFSSSFSSS", "--profile"].join(" ");
    const outcome = await shell(folder, `TMPDIR=$PWD $indexcache ${line}`);
    expect(outcome).toMatchObject({ status: 0, stdout: expect.stringMatching(/^Pattern {6}FSSSFSSSFSSS\n/) });
    expect(outcome.stderr).toMatch(
      /\nProfile on cpu, one evaluation after one that warmed up: .* in ONNX Runtime\n\nOp/,
    );
    expect(outcome.stderr).toMatch(/\nMatMul +CPU +\d+ +[\d.]+ +[\d.]+ MiB +[\d.]+%\n/);
    expect(outcome.stderr).toMatch(/\nControl flow, .*\n.*\nIf +CPU /);
    // An indexer that the pattern leaves out does not run.
    expect(outcome.stderr).toMatch(/\nlayer\.1\.indexer +0 +0\.00 +0 \(0\) +0 B \(0 B\) +0 \(0\) +0 B \(0 B\)\n/);
    expect(outcome.stderr).toMatch(/\nembed +1 +\S+ +2 \(2\) +4 KiB \(4 KiB\) +3 \(3\) +208 KiB \(208 KiB\)\n/);
    expect(outcome.stderr).toMatch(/\nin all +33 .*\n$/);
    expect(await readdir(folder)).toEqual([]);
  });

  test.each([
    ["a folder as FILE", ["--profile", "."], /Cannot write ".": it is a folder\nhint: .*put MODEL before it/],
    ["silence", ["--profile", "-q"], /--profile writes to stderr.*\nhint: name a file/],
    ["several processes by name", ["--profile", "--devices", "cpu,cpu"], /cannot be used with/],
  ])("refuses %s", async (_, args, message) => {
    const given = args.includes("--devices") ? loss.slice(0, -2) : loss;
    expect(await indexcache(folder, [...given, ...args])).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(message),
    });
  });
});

describe("run --profile", () => {
  test("counts every token's caches", async () => {
    await writeFile(join(folder, "ids.json"), JSON.stringify(Array.from({ length: 10 }, (_, index) => index + 20)));
    const args = ["run", "--tokens-file", "ids.json", "-n", "4", "--ignore-eos", "-p", "FSSSFSSSFSSS"];
    const outcome = await indexcache(folder, [...args, "--device", "cpu", "--profile=profile.json"]);
    expect(outcome).toMatchObject({ status: 0, stderr: expect.stringMatching(/\nprofile: profile.json\n$/) });
    const record = await readRecord();
    expect(record).toMatchObject({ command: "run", warm_up: false, complete: true });
    expect(record.stages.map(({ name }) => name)).toEqual(["demo FSSSFSSSFSSS"]);
    // A prefill of ten tokens, then three tokens; nothing is computed from the fourth.
    const cacheRow = words(config.numHiddenLayers * latentWidth(config) + 3 * config.indexHeadDim);
    const caches = config.numHiddenLayers + 3;
    expect(record.transfers).toMatchObject({
      runs: 4,
      in: { tensors: 4 * (3 + caches), bytes: ids(2 * 13 + 4) + cacheRow * (0 + 10 + 11 + 12) },
      out: { tensors: 4 * (1 + caches), bytes: 4 * words(config.vocabSize) + cacheRow * 13 },
    });
  });
});
