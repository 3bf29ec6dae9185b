import { mkdtempSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { readPatternFile } from "../../src/formats/pattern-file.ts";
import { brokenDriver, pathWithNvidiaSmi } from "../runtime/nvidia-smi.ts";
import { indexcache, tinyModel, writeIds } from "./indexcache.ts";

let folder: string;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "indexcache-devices-"));
  await writeIds(join(folder, "ids.jsonl"), 5, 48);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

const set = [tinyModel, "-c", "ids.jsonl", "--sequence-length", "48"];

describe("--devices", () => {
  test.each(["float32", "float16"])("loss is the same as on one device, in %s", async (dtype) => {
    const args = ["loss", ...set, "-p", "FFSFF", "--dtype", dtype, "--json"];
    const [one, two] = await Promise.all([
      indexcache(folder, [...args, "--device", "cpu", "--threads", "1"]),
      indexcache(folder, [...args, "--devices", "cpu,cpu", "--threads", "2", "-v"]),
    ]);
    expect(two.status).toBe(0);
    // What takes longer than two seconds is told of as well.
    expect(two.stderr.replace(/^loading .*\n/gm, "")).toContain(
      "device: cpu\ndevice: cpu\n2 processes of 1 thread; each:\n",
    );
    const table = await indexcache(folder, ["loss", ...set, "--devices", "cpu,cpu", "--dtype", dtype]);
    expect(table.stdout, "nothing warms up on a CPU").not.toContain("warmed up");
    const [wanted, found] = [one, two].map(({ stdout }) => JSON.parse(stdout) as { loss: number; sequences: unknown });
    if (dtype === "float32") expect(found).toEqual(wanted);
    // Batches of other sizes may round otherwise.
    else expect(found?.loss).toBeCloseTo(wanted?.loss ?? 0, 3);
  });

  test("search writes the list down; its journal knows no devices and goes on with others", async () => {
    const args = ["search", ...set, "--strategy", "greedy", "--retain", "4", "-o", "p.json", "-q"];
    expect(await indexcache(folder, [...args, "--devices", "cpu,cpu,cpu"])).toMatchObject({
      status: 0,
      stderr: expect.stringMatching(/^warning: 5 sequences are few to search by: [^\n]*\n$/),
    });
    const file = await readPatternFile(join(folder, "p.json"));
    expect(file.tool.device).toBe("cpu,cpu,cpu");
    const journal = await readFile(join(folder, "p.json.journal.jsonl"), "utf8");
    expect(journal).not.toContain("cpu");
    expect((await indexcache(folder, [...args, "--device", "cpu", "--resume"])).status).toBe(0);
    expect(await readFile(join(folder, "p.json.journal.jsonl"), "utf8")).toBe(journal);
    expect((await readPatternFile(join(folder, "p.json"))).loss).toBe(file.loss);
  });

  test.each([
    ["--device", ["--devices", "cpu,cpu", "--device", "cpu"], "'--device <name>'"],
    ["--workers", ["--devices", "cpu,cpu", "--workers", "2"], "'--workers <n>'"],
    ["an unknown device", ["--devices", "cpu,tpu"], "cuda:N (cuda:0, ...), cpu or webgpu"],
    ["auto, which is no device of its own", ["--devices", "cpu,auto"], "It must be all, or names"],
    ["an empty name", ["--devices", "cpu,"], "It must be all, or names"],
  ])("refuses %s", async (_, args, words) => {
    for (const command of ["loss", "search"]) {
      const outcome = await indexcache(folder, [command, ...set, ...args]);
      expect(outcome).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining(words) });
      expect(outcome.stderr).toMatch(/^error: [^\n]*\n$/);
    }
  });

  test.each([
    ["all", /^error: --devices all finds no GPU: NVIDIA-SMI has failed[^\n]*\nhint: [^\n]*\n$/],
    ["cpu,cuda:77", /^error: cuda:77 is not available: [^\n]*\nhint: [^\n]*\n$/],
  ])("of %j fails where such a device is missing", async (devices, words) => {
    vi.stubEnv("PATH", pathWithNvidiaSmi(folder, brokenDriver, 9));
    const outcome = await indexcache(folder, ["loss", ...set, "--devices", devices, "-q"]);
    expect(outcome).toMatchObject({ status: 3, stdout: "" });
    expect(outcome.stderr).toMatch(words);
  });
});
