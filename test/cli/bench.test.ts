/** `bench` as users run it. Times are only ever looked at for being there. */
import { copyFile, mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { readBenchFile } from "../../src/formats/bench-file.ts";
import { readLatencyFile } from "../../src/formats/latency-file.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { indexcache, interrupt, tinyModel } from "./indexcache.ts";

const folder = temporaryFolder("file");
beforeAll(async () => {
  await copyFile(join(tinyModel, "config.json"), join(folder, "config.json"));
});

const quick = ["--threads", "1", "--repeats", "2", "--decode-tokens", "2"];

describe("bench", () => {
  test("times the patterns that it is given beside all indexers, and writes both files", async () => {
    const words = ["bench", tinyModel, ...quick, "-p", "FSSSS", "-p", "uniform:2", "--contexts", "300,64"];
    const outcome = await indexcache(folder, [...words, "-o", "b.json", "--latency", "l.json"]);
    expect(outcome.status).toBe(0);
    const file = await readBenchFile(join(folder, "b.json"));
    expect(file.patterns.map(({ name, index_topk_pattern }) => [name, index_topk_pattern])).toEqual([
      ["full", "FFFFF"],
      ["FSSSS", "FSSSS"],
      ["uniform:2", "FSFSF"],
    ]);
    expect(file.model.random_weights).toBeNull();
    expect(file.prefill.map(({ context }) => context)).toEqual([64, 300]);
    for (const { arms } of [...file.prefill, ...file.decode]) {
      expect(arms).toHaveLength(3);
      expect(arms[0]).toMatchObject({ speedup: { median: 1, low: 1, high: 1 }, limit: 1 });
      for (const { seconds } of arms) expect(seconds.low).toBeGreaterThan(0);
    }
    const [full, quarter] = file.patterns;
    expect(quarter?.weight_bytes).toBeLessThan(full?.weight_bytes ?? 0);
    expect(quarter?.indexer_key_bytes_per_token).toBe((full?.indexer_key_bytes_per_token ?? 0) / 5);
    expect((await readLatencyFile(join(folder, "l.json"))).costs).toHaveLength(4);
    expect(outcome.stdout).toMatch(/^ +300 +full +5 /m);
    expect(outcome.stderr).toContain("timed 300 tokens in ");
  });

  test("makes a model of a config's shape, and says what it made smaller", async () => {
    const words = [
      "bench",
      "--config",
      "config.json",
      "--random-weights",
      "--layers",
      "4",
      "--vocabulary",
      "50",
      ...quick,
    ];
    const temporary = join(folder, "temporary");
    await mkdir(temporary);
    vi.stubEnv("TMPDIR", temporary);
    const outcome = await indexcache(folder, [
      ...words,
      "--contexts",
      "900",
      "--sample-chunks",
      "2",
      "--retain",
      "1/4",
      "--json",
      "-q",
    ]);
    // Two chunks on a busy machine may measure more noise than indexers.
    expect(outcome.stderr.replace(/^warning: in \d+ of \d+ measurements noise.*\n/gm, "")).toBe("");
    expect(outcome.status).toBe(0);
    expect(JSON.parse(outcome.stdout)).toMatchObject({
      model: {
        layers: 4,
        random_weights: {
          seed: 0,
          reduced: [
            { field: "num_hidden_layers", from: 5, to: 4 },
            { field: "vocab_size", from: 83, to: 50 },
          ],
        },
      },
      patterns: [{ name: "full" }, { name: "uniform 1/4", index_topk_pattern: "FSSS" }],
      prefill: [{ context: 900, chunks: { timed: 2 } }],
    });
    vi.unstubAllEnvs();
    // The weights are gone.
    expect(await readdir(temporary)).toEqual([]);
  });

  test("Ctrl-C keeps the contexts that were finished", async () => {
    const words = ["bench", tinyModel, ...quick, "--contexts", "64,20000", "-o", "cut.json"];
    const outcome = await interrupt(folder, words, "timed 64 tokens", "SIGINT");
    expect(outcome).toMatchObject({ status: 130, stdout: "" });
    expect(outcome.stderr).toContain('"cut.json" has the contexts that were finished');
    expect((await readBenchFile(join(folder, "cut.json"))).prefill).toHaveLength(1);
  });

  test.each([
    [["--config", "config.json"], "--config has no weights to time"],
    [[tinyModel, "--config", "config.json", "--random-weights"], "MODEL and --config exclude each other"],
    [[tinyModel, "--mlp-width", "8"], "--mlp-width belongs to --config"],
    [["--config", "none.json", "--random-weights"], 'Cannot read "none.json"'],
    [["--config", "config.json", "--random-weights", "--layers", "6"], '--layers is 6; "config.json" has 5'],
    [["--config", "broken.json", "--random-weights"], '"broken.json" is not JSON'],
    [[tinyModel, "--contexts", "0"], "Every length must be 1 or more"],
    [[tinyModel, "--retain", "7"], '--retain is "7", more than the model\'s 5 layers'],
    [[tinyModel, "-p", "FSS"], "--pattern has 3 letters, the model has 5 layers"],
    [[tinyModel, "-o", "nowhere/b.json"], 'Cannot write "nowhere/b.json"'],
  ])("refuses %j in one sentence", async (words, message) => {
    await writeFile(join(folder, "broken.json"), "{");
    const outcome = await indexcache(folder, ["bench", ...words]);
    expect(outcome).toMatchObject({ status: 2, stdout: "" });
    expect(outcome.stderr).toContain(message);
    expect(outcome.stderr).not.toContain("    at ");
  });
});
