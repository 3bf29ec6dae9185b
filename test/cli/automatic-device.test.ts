/** Where each command computes under --device auto, on a machine that has a GPU, and how it says so. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { pathWithNvidiaSmi, twoGpus } from "../runtime/nvidia-smi.ts";
import { demoModel, indexcache, tinyModel, writeIds } from "./indexcache.ts";

let folder: string;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "indexcache-auto-"));
  await writeIds(join(folder, "ids.jsonl"), 5, 48);
  writeFileSync(join(folder, "prompt.json"), "[1, 2, 3]");
  // A driver, and a GPU that works as far as anybody can tell without ONNX Runtime's libraries for it.
  writeFileSync(join(folder, "libcuda.so.1"), "");
  vi.stubEnv("LD_LIBRARY_PATH", folder);
  vi.stubEnv("CUDA_VISIBLE_DEVICES", undefined);
  vi.stubEnv("PATH", pathWithNvidiaSmi(folder, twoGpus));
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

const text = ["-c", "ids.jsonl", "--sequence-length", "48"];

/** Every command that computes, with little to do. */
const little: [command: string, args: string[]][] = [
  ["loss", [tinyModel, ...text]],
  ["search", [tinyModel, ...text, "--strategy", "greedy", "--retain", "4"]],
  ["analyze", [tinyModel, ...text, "--retain", "4"]],
  ["bench", [tinyModel, "--contexts", "24", "--repeats", "2", "--decode-tokens", "2", "--retain", "3"]],
  ["run", [tinyModel, "--tokens-file", "prompt.json", "-n", "2"]],
  [
    "eval",
    [demoModel, "-p", "uniform:4", "--tasks", "vt", "--samples", "1", "--lengths", "400", "--max-new-tokens", "1"],
  ],
  ["distill", [tinyModel, ...text, "-p", "FFSFF", "--steps", "1", "--batch", "1", "-o", "distilled"]],
];

const onCpu = /^on the CPU: this is too little work to open a GPU for \(--device cuda takes it\)$/m;
/** It would have been taken. */
const missed = /^warning: NVIDIA H200 is not used: libonnxruntime_providers_shared\.so/m;

describe("little work stays on the CPU", () => {
  test.each(little)("%s", async (command, args) => {
    const { status, stderr } = await indexcache(folder, [command, ...args]);
    expect(stderr).toMatch(onCpu);
    expect(stderr).not.toMatch(missed);
    // A distillation of one step gains nothing, which its exit code says.
    expect(command === "distill" ? [0, 1] : [0]).toContain(status);
  });

  test("and goes to the GPU that is named", async () => {
    for (const [command, args] of little) {
      const { status, stderr } = await indexcache(folder, [command, ...args, "--device", "cuda"]);
      expect([command, status]).toEqual([command, 3]);
      expect(stderr).toMatch(/^error: cuda is not available: libonnxruntime_providers_shared\.so/m);
    }
  });
});

describe("much work goes to the GPU", () => {
  test("of a search, whose evaluations are counted", async () => {
    const args = ["search", demoModel, "--sequences", "1", "--sequence-length", "256", "--dry-run"];
    expect((await indexcache(folder, [...args, "--strategy", "exhaustive", "--retain", "1/2"])).stderr).toMatch(missed);
    expect((await indexcache(folder, [...args, "--strategy", "greedy", "--retain", "11"])).stderr).toMatch(onCpu);
  });

  test("and in float16, which a CPU has for losses alone, whatever there is to do", async () => {
    expect((await indexcache(folder, ["loss", tinyModel, ...text, "--dtype", "float16"])).stderr).toMatch(missed);
  });
});
