/** GLM-5 by names, shapes and sizes, in sparse files: every command says at once that there is no room for it. */
import { cp, mkdtemp, rm, statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { writeSparseCheckpoint } from "../checkpoint/sparse-checkpoint.ts";
import { demoModel, indexcache } from "./indexcache.ts";

let scratch: string;
let bytes: number;

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "indexcache-large-"));
  const config = join(import.meta.dirname, "..", "..", "tools", "bench", "configs", "GLM-5", "config.json");
  bytes = await writeSparseCheckpoint(join(scratch, "glm"), config);
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    await cp(join(demoModel, name), join(scratch, "glm", name));
  }
});
afterAll(() => rm(scratch, { recursive: true }));

const calibration = ["-c", join(demoModel, "..", "..", "calibration", "demo.jsonl")];

test.each([["run", "--prompt", "The"], ["eval", "-p", "uniform:4"], ["bench"], ["analyze", ...calibration]])(
  "%s",
  async (command, ...flags) => {
    const { status, stdout, stderr } = await indexcache(scratch, [command, "glm", "--device", "cpu", ...flags]);
    expect(stderr).toMatch(
      /error: Model "glm" does not fit: loading its 743\.9B parameters takes about 3,571 GB in float32; this process may have [\d.]+ GB of memory\n/,
    );
    expect(stderr).toMatch(/hint: .*indexcache bench --config glm\/config.json --random-weights/);
    expect(stdout).toBe("");
    expect(status).toBe(3);
  },
);

test.each([
  ["loss", ...calibration],
  ["search", ...calibration],
])("%s, of which not even a layer has room", async (command, ...flags) => {
  const memory = ["--memory", "20GB", "--device", "cpu"];
  const { status, stdout, stderr } = await indexcache(scratch, [command, "glm", ...memory, ...flags]);
  expect(stderr).toMatch(
    /error: Model "glm" does not fit: loading its 743\.9B parameters takes about 3,571 GB in float32; this process may have 20\.0 GB of memory, where a layer at a time takes about [\d.]+ GB\n/,
  );
  expect(stdout).toBe("");
  expect(status).toBe(3);
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
  expect(stderr).toMatch(/A copy of the weights takes 746\.1 GB, and the disk of ".*" has [\d.]+ GB free/);
  expect(status).toBe(3);
});
