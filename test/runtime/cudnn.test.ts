/** Whether attention on a GPU is cuDNN's: without it a graph must not name key lengths alone, which another kernel fails on. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { OnnxType } from "../../src/checkpoint/dtype.ts";
import { kernelsOf } from "../../src/graph/layer/kernels.ts";
import { cudnnLibrary, usesCudnn } from "../../src/runtime/device/cudnn.ts";
import { gpuOf } from "../../src/runtime/device/gpu.ts";
import { pathWithNvidiaSmi } from "./nvidia-smi.ts";

const gpu = (capability: string) => `0, NVIDIA GPU, 23034, 22563, 580.95.05, ${capability}, GPU-aaaaaaaa-0000`;

let folder: string;

/** A machine with the library and one GPU. */
function machine(capability: string): void {
  writeFileSync(join(folder, cudnnLibrary), "");
  vi.stubEnv("PATH", pathWithNvidiaSmi(folder, gpu(capability)));
  vi.stubEnv("LD_LIBRARY_PATH", folder);
  vi.stubEnv("ORT_ENABLE_CUDNN_FLASH_ATTENTION", undefined);
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "indexcache-cudnn-"));
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

test("cuDNN is asked for where it is and the GPU is new enough", async () => {
  machine("9.0");
  expect(await usesCudnn("cuda", await gpuOf("cuda"))).toBe(true);
  expect(process.env.ORT_ENABLE_CUDNN_FLASH_ATTENTION).toBe("1");
  expect(await usesCudnn("cuda:1", await gpuOf("cuda:1"))).toBe(false);
  expect(await usesCudnn("cpu", await gpuOf("cpu"))).toBe(false);
});

test("on a GPU of another kind, without the library, or where it is switched off, it is not", async () => {
  for (const capability of ["7.5", "10.0"]) {
    machine(capability);
    expect(await usesCudnn("cuda", await gpuOf("cuda"))).toBe(false);
  }
  machine("9.0");
  vi.stubEnv("ORT_ENABLE_CUDNN_FLASH_ATTENTION", "0");
  expect(await usesCudnn("cuda", await gpuOf("cuda"))).toBe(false);
});

test("key lengths alone are for cuDNN", () => {
  expect(kernelsOf("cuda", OnnxType.float16, { cudnn: true }).keyBounds).toBe("lengths");
  expect(kernelsOf("cuda", OnnxType.float16, { cudnn: false }).keyBounds).toBe("offsets");
  expect(kernelsOf("cuda", OnnxType.float, { cudnn: true }).keyBounds).toBe("offsets");
});
