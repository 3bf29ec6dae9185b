/** GLM-5 by names, shapes and sizes, in sparse files: every command says at once that there is no room for it. */
import { cp, statfs } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { openModelToRun } from "../../src/cli/arguments/opening.ts";
import { Terminal } from "../../src/cli/console/terminal.ts";
import { writeSparseCheckpoint } from "../checkpoint/sparse-checkpoint.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { demoModel, indexcache } from "./indexcache.ts";

const scratch = temporaryFolder("file");
let bytes: number;

beforeAll(async () => {
  const config = join(import.meta.dirname, "..", "..", "tools", "bench", "configs", "GLM-5", "config.json");
  bytes = await writeSparseCheckpoint(join(scratch, "glm"), config);
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    await cp(join(demoModel, name), join(scratch, "glm", name));
  }
});

const calibration = ["-c", join(demoModel, "..", "..", "calibration", "demo.jsonl")];

test.each([["run", "--prompt", "The"], ["eval", "-p", "uniform:4"], ["bench"]])("%s", async (command, ...flags) => {
  const { status, stdout, stderr } = await indexcache(scratch, [command, "glm", "--device", "cpu", ...flags]);
  expect(stderr).toMatch(
    /error: Model "glm" does not fit: loading its 744B parameters takes about 3.25 TiB in float32; this process may have [\d.]+ [GT]iB of memory\n/,
  );
  expect(stderr).toMatch(/hint: .*indexcache bench --config glm\/config.json --random-weights/);
  expect(stdout).toBe("");
  expect(status).toBe(3);
});

test.each([
  ["loss", ...calibration],
  ["search", ...calibration],
  ["analyze", ...calibration],
])("%s, of which not even a layer has room", async (command, ...flags) => {
  const memory = ["--memory", "20GB", "--device", "cpu"];
  const { status, stdout, stderr } = await indexcache(scratch, [command, "glm", ...memory, ...flags]);
  expect(stderr).toMatch(
    /error: Model "glm" does not fit: loading its 744B parameters takes about 3.25 TiB in float32, losses take about [\d.]+ GiB even with a layer loaded at a time; this process may have 18\.6 GiB of memory\n/,
  );
  expect(stdout).toBe("");
  expect(status).toBe(3);
});

test("weights are hashed once, however many parts of a command ask for the model's identity", async () => {
  const model = await openModelToRun(demoModel, { verify: true, device: "cpu" }, new Terminal({ quiet: true }));
  const [first, second] = [model.identity(), model.identity()];
  expect(first).toBe(second);
  expect((await first).weightHash).toMatch(/^[0-9a-f]{64}$/);
});

test("inspect prints", async () => {
  const { status, stdout } = await indexcache(scratch, ["inspect", "glm"]);
  expect(stdout).toMatch(/Parameters +744B/);
  expect(status).toBe(0);
});

test("export says that the disk has no room", async () => {
  const { bavail, bsize } = await statfs(scratch);
  if (bavail * bsize > bytes) return;
  const { status, stderr } = await indexcache(scratch, ["export", "glm", "-o", "out"]);
  expect(stderr).toMatch(/A copy of the weights takes 695 GiB, and the disk of ".*" has [\d.]+ [GM]iB free/);
  expect(status).toBe(3);
});

test("distill says before it trains that the disk has no room for the result", async () => {
  const { bavail, bsize } = await statfs(scratch);
  if (bavail * bsize > bytes) return;
  const words = ["distill", "glm", "-p", "uniform:4", ...calibration, "--sequences", "8", "--batch", "1", "-o", "out"];
  const { status, stderr } = await indexcache(scratch, [...words, "--device", "cpu"]);
  expect(stderr).toMatch(
    /error: ".*" has [\d.]+ [GM]iB free, the new checkpoint takes 695 GiB beside [\d.]+ [GM]iB of hidden states: nothing/,
  );
  expect(status).toBe(3);
});

test("a dry run says what a search would take where not even a layer has room, and inspect what config.json alone tells", async () => {
  const config = join(scratch, "glm", "config.json");
  const flags = [
    "--dry-run",
    "--strategy",
    "greedy",
    "--device",
    "cpu",
    "--sequences",
    "4",
    "--sequence-length",
    "4096",
  ];
  const small = await indexcache(scratch, ["search", "glm", ...flags, "--memory", "32GB", "--json"]);
  expect(small.status).toBe(0);
  const plan = JSON.parse(small.stdout);
  expect(plan).toMatchObject({ patterns: 2814, exact: true, sequences: 4, sequence_length: 4096 });
  // One pass for the baseline and one for each step; nothing of it was run.
  expect(plan.weights).toMatchObject({ known_from: "weights", passes: 59, measured: false });
  expect(plan.weights.bytes_per_pass).toBeUndefined();
  expect(plan.weights.least_bytes).toBeGreaterThan(plan.weights.memory_bytes);
  expect(plan.seconds).toBeUndefined();
  const large = await indexcache(scratch, ["search", config, ...flags, "--memory", "128GiB"]);
  expect(large.stdout).toMatch(/Weights +[\d.]+ [GT]iB stored, 5\.34 TiB loaded \(estimated from config\.json\)/);
  expect(large.stdout).toMatch(/Runs +a layer at a time in 128 GiB; \d+ layers stay/);
  expect(large.stdout).toMatch(/Loading .*\(assumed: 3 GB\/s read, 0\.3 GB\/s packed\)/);
  const inspected = await indexcache(scratch, ["inspect", config]);
  expect(inspected.stdout).toMatch(/Parameters +744B/);
  expect(inspected.stdout).toMatch(/Losses need +5\.\d+ TiB on a CPU, [\d.]+ GiB a layer at a time/);
}, 180_000);
