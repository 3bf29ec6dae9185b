import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { askDriver, queryGpus } from "../../src/runtime/device/gpu.ts";
import { brokenDriver, pathWithNvidiaSmi, twoGpus } from "./nvidia-smi.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "indexcache-gpu-"));
  vi.stubEnv("CUDA_VISIBLE_DEVICES", undefined);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

const smi = (output: string, exitCode = 0): void => {
  vi.stubEnv("PATH", pathWithNvidiaSmi(folder, output, exitCode));
};

const names = async (): Promise<string[]> => (await queryGpus()).map(({ index, name }) => `${index} ${name}`);

describe("queryGpus", () => {
  test("reads every GPU, memory in bytes", async () => {
    smi(twoGpus);
    expect(await queryGpus()).toEqual([
      {
        index: 0,
        name: "NVIDIA H200",
        memoryTotal: 143771 * 2 ** 20,
        memoryFree: 143155 * 2 ** 20,
        driver: "580.95.05",
        computeCapability: "9.0",
      },
      expect.objectContaining({ index: 1, name: "NVIDIA L4", computeCapability: "8.9" }),
    ]);
  });

  test("takes memory that the driver does not tell for unknown", async () => {
    smi("0, NVIDIA GB10, [N/A], [N/A], 580.95.05, 12.1, GPU-a");
    expect(await queryGpus()).toMatchObject([{ memoryTotal: 0, memoryFree: 0 }]);
  });

  test.each([
    ["1", ["0 NVIDIA L4"]],
    ["1,0", ["0 NVIDIA L4", "1 NVIDIA H200"]],
    ["GPU-bbbb", ["0 NVIDIA L4"]],
    ["0,7,1", ["0 NVIDIA H200"]],
    ["", []],
    ["-1", []],
    ["MIG-cccc", ["0 NVIDIA H200", "1 NVIDIA L4"]],
  ])("counts within CUDA_VISIBLE_DEVICES=%s, as CUDA does", async (visible, expected) => {
    smi(twoGpus);
    vi.stubEnv("CUDA_VISIBLE_DEVICES", visible);
    expect(await names()).toEqual(expected);
  });
});

describe("askDriver", () => {
  test("tells an absent nvidia-smi from one that fails", async () => {
    vi.stubEnv("PATH", folder);
    expect(await askDriver()).toMatchObject({
      gpus: [],
      hasTool: false,
      problem: expect.stringContaining("nvidia-smi not found"),
    });
    smi(brokenDriver, 9);
    expect(await askDriver()).toEqual({ gpus: [], hasTool: true, problem: brokenDriver });
    smi("", 3);
    expect(await askDriver()).toEqual({ gpus: [], hasTool: true, problem: "nvidia-smi failed (exit code 3)" });
  });

  test("says why there are no GPUs where it works", async () => {
    smi("No devices were found");
    expect((await askDriver()).problem).toBe("nvidia-smi wrote an unreadable line: No devices were found");
    smi("");
    expect((await askDriver()).problem).toBe("nvidia-smi shows no GPU");
    smi(twoGpus);
    vi.stubEnv("CUDA_VISIBLE_DEVICES", "");
    expect((await askDriver()).problem).toBe("CUDA_VISIBLE_DEVICES hides every GPU");
  });
});
