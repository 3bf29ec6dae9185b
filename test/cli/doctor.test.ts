import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import type { DoctorRecord } from "../../src/report/doctor-report.ts";
import { runtimePackage } from "../../src/runtime/device/native-libraries.ts";
import { brokenDriver, pathWithNvidiaSmi, twoGpus } from "../runtime/nvidia-smi.ts";
import { indexcache, tinyModel, writeIds } from "./indexcache.ts";

/** As npm leaves the package: then CUDA is not available, GPU or not. */
const withoutCuda = !existsSync(join(runtimePackage().libraries, "libonnxruntime_providers_cuda.so"));

let shared: string;
let folder: string;

beforeAll(async () => {
  shared = mkdtempSync(join(tmpdir(), "indexcache-doctor-"));
  await writeIds(join(shared, "ids.jsonl"), 2, 48);
});
afterAll(() => rmSync(shared, { recursive: true }));

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "indexcache-doctor-"));
  vi.stubEnv("CUDA_VISIBLE_DEVICES", undefined);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

const loss = (...args: string[]): string[] => [
  "loss",
  tinyModel,
  "-c",
  "ids.jsonl",
  "--sequence-length",
  "48",
  ...args,
];

describe("doctor", () => {
  test("shows the machine and what works on it; a missing GPU is no failure", async () => {
    const outcome = await indexcache(folder, ["doctor"]);
    expect(outcome).toMatchObject({ status: 0, stderr: "" });
    expect(outcome.stdout).toMatch(/^indexcache +\d+\.\d+\.\d+\nNode +\d+\.\d+\.\d+, \w+-\w+/);
    expect(outcome.stdout).toMatch(/^ONNX Runtime +onnxruntime-node 1\./m);
    expect(outcome.stdout).toMatch(/^cpu +works +[\d,]+ +-$/m);
    expect(outcome.stdout).toMatch(/^--device auto takes \w+(:0)?\.$/m);
    expect(outcome.stdout).not.toContain("\u001b");
  });

  test("gives the same as JSON", async () => {
    const outcome = await indexcache(folder, ["doctor", "--json", "--device", "cpu"]);
    expect(outcome).toMatchObject({ status: 0, stderr: "" });
    const record = JSON.parse(outcome.stdout) as DoctorRecord;
    expect(record).toMatchObject({
      node: { version: process.versions.node, platform: `${process.platform}-${process.arch}` },
      onnxruntime: { package: runtimePackage().version },
      devices: [{ device: "cpu", available: true, max_difference: null, lacks: [] }],
      auto: null,
    });
    expect(record.devices[0]?.flops_per_second).toBeGreaterThan(1e8);
    expect(record.cpu.memory_bytes).toBeGreaterThan(record.cpu.free_memory_bytes);
  });

  test.runIf(withoutCuda)("has a line for every GPU of nvidia-smi", async () => {
    vi.stubEnv("PATH", pathWithNvidiaSmi(folder, twoGpus));
    const { stdout } = await indexcache(folder, ["doctor"]);
    expect(stdout).toMatch(
      /^GPU +0: NVIDIA H200, 140 GiB, 140 GiB free, compute capability 9\.0, driver 580\.95\.05$/m,
    );
    expect(stdout).toMatch(/^GPU +1: NVIDIA L4, /m);
    expect(stdout).toMatch(/^cuda:0 +not available +- +- +NVIDIA H200$/m);
    expect(stdout).toMatch(/^cuda:1 +not available +- +- +NVIDIA L4$/m);
    expect(stdout).toContain("ONNXRUNTIME_NODE_INSTALL=true node ");
  });

  test("repeats what nvidia-smi says of a driver that does not answer", async () => {
    vi.stubEnv("PATH", pathWithNvidiaSmi(folder, brokenDriver, 9));
    const { status, stdout } = await indexcache(folder, ["doctor", "--json"]);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ gpus: [], gpu_problem: brokenDriver });
  });

  test.runIf(withoutCuda)("fails where the device that is asked for does, after the table", async () => {
    const outcome = await indexcache(folder, ["doctor", "--device", "cuda:1"]);
    expect(outcome).toMatchObject({ status: 3, stdout: expect.stringMatching(/^cuda:1 is not available:$/m) });
    expect(outcome.stderr).toMatch(/^error: cuda:1 is not available: [^\n]+\n$/);
  });
});

describe("--device", () => {
  test.each(["tpu", "cuda:x", "cuda:", "gpu"])("refuses %s", async (name) => {
    for (const command of [loss(), ["doctor"]]) {
      const outcome = await indexcache(shared, [...command, "--device", name]);
      expect(outcome).toMatchObject({ status: 2, stdout: "" });
      expect(outcome.stderr).toMatch(/^error: .*It must be auto, cpu, webgpu, cuda or cuda:N/);
    }
  });

  test.runIf(withoutCuda)("fails in a sentence where it names a device that does not work", async () => {
    const outcome = await indexcache(shared, loss("--device", "cuda", "-q"));
    expect(outcome).toMatchObject({ status: 3, stdout: "" });
    // Nothing of the native libraries' own, in red, and no stack.
    expect(outcome.stderr).toMatch(/^error: cuda is not available: [^\n]+\nhint: [^\n]+\n$/);
    expect(outcome.stderr).not.toContain("\u001b");
  });

  test.runIf(withoutCuda)("auto computes on the CPU, and says so where there is a GPU", async () => {
    vi.stubEnv("PATH", pathWithNvidiaSmi(folder, ""));
    const plain = await indexcache(shared, loss());
    expect(plain.status).toBe(0);
    expect(plain.stderr).not.toMatch(/warning|not available|device/);
    const verbose = await indexcache(shared, loss("--verbose"));
    expect(verbose.stderr).toMatch(
      /^cuda is not available: .*\nwebgpu is used only when asked for by name\ndevice: cpu$/m,
    );
    vi.stubEnv("PATH", pathWithNvidiaSmi(folder, twoGpus));
    const warned = await indexcache(shared, loss("--quiet"));
    expect(warned.status).toBe(0);
    expect(warned.stderr).toMatch(
      /^warning: NVIDIA H200 is not used: [^\n]+ \(indexcache doctor shows what to do\)\n$/,
    );
  });
});
