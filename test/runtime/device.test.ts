import { appendFileSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { automaticDevice, chooseDevice, chooseDevices } from "../../src/runtime/device/device.ts";
import { tryDevice } from "../../src/runtime/device/device-trial.ts";
import { isLeftToCpu, type Work } from "../../src/runtime/device/device-work.ts";
import type { GpuQuery } from "../../src/runtime/device/gpu.ts";
import {
  builtVersion,
  hasLibrary,
  type RuntimePackage,
  runtimePackage,
} from "../../src/runtime/device/native-libraries.ts";
import { explainFailure, lacksOf } from "../../src/runtime/device/provider-needs.ts";
import { plainWords } from "../../src/runtime/process/native-words.ts";
import { cudaIndex, executionProviders, parseDevice } from "../../src/runtime/session/execution-provider.ts";
import { brokenDriver, pathWithNvidiaSmi, twoGpus } from "./nvidia-smi.ts";

/** The only platform that ONNX Runtime's package for Node has a CUDA provider for. */
const hasCuda = process.platform === "linux" && process.arch === "x64";

const shared = "libonnxruntime_providers_shared.so";
const cuda = "libonnxruntime_providers_cuda.so";

const gpu = { memoryTotal: 1, memoryFree: 1, driver: "580", computeCapability: "9.0" };
const h200: GpuQuery = { hasTool: true, gpus: [{ index: 0, name: "NVIDIA H200", ...gpu }] };

const { version } = runtimePackage();

let folder: string;
let runtime: RuntimePackage;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "indexcache-device-"));
  runtime = { root: "/package", version, libraries: folder };
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

/** A true library of this machine: the binding, which finds nothing here of what it needs, under the name `needs`. */
function writeLibrary(name: string, needs: string): void {
  const library = readFileSync(join(runtimePackage().libraries, "onnxruntime_binding.node"));
  const needed = "libonnxruntime.so.1";
  library.write(needs.padEnd(needed.length, "\u0000"), library.indexOf(needed), "latin1");
  writeFileSync(join(folder, name), library);
}

/** One that finds all that it needs. */
function linkLibrary(name: string): void {
  symlinkSync(join(runtimePackage().libraries, "libonnxruntime.so.1"), join(folder, name));
}

describe("parseDevice", () => {
  test.each([
    ["auto", "auto"],
    ["cpu", "cpu"],
    ["webgpu", "webgpu"],
    ["cuda", "cuda"],
    ["cuda:0", "cuda"],
    ["cuda:1", "cuda:1"],
    ["cuda:07", "cuda:7"],
    ["cuda:", undefined],
    ["cuda:-1", undefined],
    ["cuda:1.5", undefined],
    ["CUDA", undefined],
    ["gpu", undefined],
    ["", undefined],
  ])("%j is %j", (text, device) => {
    expect(parseDevice(text)).toBe(device);
  });

  test("a device becomes execution providers, the CPU the last of them", () => {
    expect(executionProviders("cpu")).toEqual(["cpu"]);
    expect(executionProviders("webgpu")).toEqual(["webgpu", "cpu"]);
    expect(executionProviders("cuda")).toEqual([{ name: "cuda", deviceId: 0 }, "cpu"]);
    expect(executionProviders("cuda:3")).toEqual([{ name: "cuda", deviceId: 3 }, "cpu"]);
    expect([cudaIndex("cpu"), cudaIndex("cuda"), cudaIndex("cuda:12")]).toEqual([undefined, 0, 12]);
  });
});

describe.runIf(hasCuda)("lacksOf", () => {
  test("names the files that npm does not carry, with commands that bring them", async () => {
    const lacks = await lacksOf("cuda", h200, runtime);
    expect(lacks.at(-1)).toEqual({
      what: `${shared} and ${cuda} not in ${folder}`,
      how: [
        "ONNXRUNTIME_NODE_INSTALL=true node /package/script/install.js",
        "without a way to NuGet, out of the wheel of the same version:",
        `pip download --no-deps onnxruntime-gpu==${version}`,
        `unzip -j onnxruntime_gpu-${version}-*.whl '*/${shared}' '*/${cuda}' -d ${folder}`,
      ],
    });
    linkLibrary(shared);
    expect((await lacksOf("cuda", h200, runtime)).at(-1)?.what).toBe(`${cuda} not in ${folder}`);
  });

  test("does not load what is no library", async () => {
    linkLibrary(shared);
    writeFileSync(join(folder, cuda), "garbage");
    expect((await lacksOf("cuda", h200, runtime)).at(-1)?.what).toBe(`${cuda} is no library for linux-x64`);
  });

  test("lists every CUDA library that the loader does not find, with the pip packages of that version", async () => {
    writeLibrary(shared, "libcurand.so.98");
    writeLibrary(cuda, "libcublasLt.so.99");
    const [lack, ...others] = await lacksOf("cuda", h200, runtime);
    expect(others).toEqual([]);
    expect(lack?.what).toBe("libcurand.so.98, libcublasLt.so.99 not found");
    expect(lack?.how.slice(0, 2)).toEqual([
      "install the CUDA 99 toolkit, or, before node is started:",
      "pip install 'nvidia-curand==98.*' 'nvidia-cublas==99.*'",
    ]);
    expect(lack?.how[2]).toMatch(/^export LD_LIBRARY_PATH=/);
    writeLibrary(shared, "libcudart.so.12");
    writeLibrary(cuda, "libnobody.so.99");
    expect((await lacksOf("cuda", h200, runtime)).at(-1)?.how).toEqual([expect.stringMatching(/^install the CUDA /)]);
  });

  test("tells libraries of another version, whatever they need", async () => {
    linkLibrary(shared);
    writeLibrary(cuda, "libcublasLt.so.99");
    appendFileSync(join(folder, cuda), "\x009.1.0\x001.23.2\0");
    expect((await lacksOf("cuda", h200, runtime)).at(-1)?.what).toBe(
      `${cuda} is of version 1.23.2 and onnxruntime-node of ${version}`,
    );
  });

  test("asks for the driver and for a GPU of that number", async () => {
    linkLibrary(shared);
    linkLibrary(cuda);
    const what = async (device: "cuda" | "cuda:1", query: GpuQuery): Promise<string[]> =>
      (await lacksOf(device, query, runtime)).map((lack) => lack.what);
    expect(await what("cuda", h200)).toEqual([]);
    expect(await what("cuda:1", h200)).toEqual(["there is no GPU 1"]);
    expect(await what("cuda", { gpus: [], hasTool: true, problem: "it has failed" })).toEqual(["it has failed"]);
    // Containers may come without nvidia-smi: the loader found what the provider needs, so that a trial will tell.
    expect(await what("cuda:1", { gpus: [], hasTool: false, problem: "nvidia-smi not found" })).toEqual([]);
    if (await hasLibrary("libcuda.so.1")) return;
    rmSync(join(folder, cuda));
    writeLibrary(cuda, "libcuda.so.1");
    expect(await what("cuda", h200)).toEqual(["libcuda.so.1 of the NVIDIA driver not found"]);
    expect(await what("cuda", { gpus: [], hasTool: false, problem: "" })).toEqual([
      "no NVIDIA driver (nvidia-smi and libcuda.so.1 not found)",
    ]);
  });
});

test.runIf(process.platform === "linux")("WebGPU asks for the Vulkan loader before it is tried", async () => {
  const lacks = await lacksOf("webgpu", h200, runtime);
  expect(lacks.map(({ what }) => what)).toEqual(
    (await hasLibrary("libvulkan.so.1")) ? [] : ["libvulkan.so.1 not found"],
  );
  vi.stubEnv("LD_LIBRARY_PATH", `/nowhere:${folder}`);
  writeFileSync(join(folder, "libvulkan.so.1"), "");
  expect(await lacksOf("webgpu", h200, runtime)).toEqual([]);
});

test("a library tells the version that it was built as, wherever that stands in it", async () => {
  const file = join(folder, "library");
  // Across the border of two blocks.
  writeFileSync(file, `${"x".repeat(2 ** 22 - 3)}\u00001.30.0\u0000`);
  expect(await builtVersion(file)).toBe("1.30.0");
  writeFileSync(file, "\x009.12.0\x001.2\0x1.30.0\0");
  expect(await builtVersion(file)).toBeUndefined();
});

describe("chooseDevice", () => {
  test("takes the CPU without a word where there is no GPU, and warns where one stays unused", async () => {
    vi.stubEnv("PATH", folder);
    expect(await chooseDevice("auto", { runtime })).toEqual({
      device: "cpu",
      title: "cpu",
      notes: [expect.stringMatching(/^cuda is not available: /), "webgpu is used only when asked for by name"],
    });
    vi.stubEnv("CUDA_VISIBLE_DEVICES", undefined);
    vi.stubEnv("PATH", pathWithNvidiaSmi(folder, twoGpus));
    const { device, warning } = await chooseDevice("auto", { runtime });
    expect(device).toBe("cpu");
    expect(warning).toMatch(/^NVIDIA H200 is not used: .*\(indexcache doctor shows what to do\)$/);
  });

  test("does not replace a device that was asked for by name", async () => {
    vi.stubEnv("PATH", folder);
    await expect(chooseDevice("cuda:1", { runtime })).rejects.toMatchObject({
      code: "E_RUNTIME",
      message: expect.stringMatching(/^cuda:1 is not available: [^\n]+$/),
      hint: expect.stringContaining("--device cpu works without"),
    });
  });

  test("auto leaves the CPU what it has done before a GPU is open, and says so where there may be one", async () => {
    vi.stubEnv("PATH", folder);
    vi.stubEnv("LD_LIBRARY_PATH", folder);
    writeFileSync(join(folder, "libcuda.so.1"), "");
    const demo: Work = { parameters: 2.4e6, layers: 12, passed: 8192, decoded: 0, sideBySide: 8 };
    const chosen = (work: Partial<Work>) =>
      chooseDevice("auto", { runtime, threads: 16, work: async () => ({ ...demo, ...work }) });
    const { device, note } = await chosen({});
    expect([device, note]).toEqual(["cpu", expect.stringMatching(/^on the CPU: .* \(--device cuda takes it\)$/)]);
    expect((await chosen({ passed: 100 * 8192 })).note).toBeUndefined();
    expect((await chosen({ parameters: 1e9 })).note).toBeUndefined();
  });

  test("a token of a small model takes a GPU longer, however many there are; one of a large model does not", () => {
    const work: Work = { parameters: 2.4e6, layers: 12, passed: 1e4, decoded: 1e4, sideBySide: 1 };
    expect(isLeftToCpu(work, 16)).toBe(true);
    expect(isLeftToCpu({ ...work, sideBySide: 100 }, 16)).toBe(true);
    expect(isLeftToCpu({ ...work, parameters: 1e9, layers: 4, passed: 100, decoded: 100 }, 16)).toBe(false);
  });

  test("one prompt does not keep 32 cores busy", () => {
    // 51M parameters: 5.8 s on 32 cores, 3.5 s on the H200 beside them.
    const work: Work = { parameters: 51e6, layers: 4, passed: 5300, decoded: 64, sideBySide: 1 };
    expect(isLeftToCpu(work, 32)).toBe(false);
    expect(isLeftToCpu({ ...work, passed: 600 }, 32)).toBe(true);
  });

  test("auto prefers the first GPU to the CPU, and never takes WebGPU", () => {
    const works = { lacks: [] };
    const fails = { lacks: [{ what: "no", how: [] }] };
    const cpu = { device: "cpu", ...works } as const;
    const webgpu = { device: "webgpu", ...works } as const;
    expect(automaticDevice([cpu, webgpu, { device: "cuda:0", ...works }, { device: "cuda:1", ...works }])).toBe(
      "cuda:0",
    );
    expect(automaticDevice([cpu, webgpu, { device: "cuda:0", ...fails }, { device: "cuda:1", ...works }])).toBe("cpu");
    expect(automaticDevice([cpu, webgpu, { device: "cuda", ...fails }])).toBe("cpu");
  });
});

describe("chooseDevices", () => {
  test("keeps the list as it is, repetitions included", async () => {
    const cpu = { device: "cpu", title: "cpu", notes: [] };
    expect(await chooseDevices(["cpu", "cpu"])).toEqual([cpu, cpu]);
  });

  test("tells of the first device of the list that does not work", async () => {
    vi.stubEnv("CUDA_VISIBLE_DEVICES", undefined);
    vi.stubEnv("PATH", pathWithNvidiaSmi(folder, twoGpus));
    for (const [wanted, first] of [
      [["cpu", "cuda:1", "cuda"], "cuda:1"],
      ["all", "cuda"],
    ] as const) {
      await expect(chooseDevices(wanted, { runtime })).rejects.toMatchObject({
        code: "E_RUNTIME",
        message: expect.stringMatching(new RegExp(`^${first} is not available: `)),
      });
    }
  });

  test("finds no GPU for all, and says why", async () => {
    vi.stubEnv("PATH", pathWithNvidiaSmi(folder, brokenDriver, 9));
    await expect(chooseDevices("all")).rejects.toMatchObject({
      code: "E_RUNTIME",
      message: expect.stringMatching(/^--devices all finds no GPU: NVIDIA-SMI has failed/),
      hint: expect.stringContaining("--device cpu"),
    });
  });
});

describe("tryDevice", () => {
  /** A child that does what no library should. */
  const child = (code: string): string => {
    const program = join(folder, "child.cjs");
    writeFileSync(program, code);
    return program;
  };
  const request = { device: "cuda", threads: 1, seconds: 0 } as const;
  const logged =
    "\u001b[1;31m2026-11-24 11:50:43.2 [E:onnxruntime:onnxruntime-node, bridge.cc:2146 Create] /src/bridge.cc:1988 Get() " +
    "[ONNXRuntimeError] : 1 : FAIL : Failed to load library /a/libp.so with error: /a/libp.so: undefined symbol: cublasX\n\u001b[m\n";

  test("a crash is a sentence, with the last that the library said", async () => {
    const program = child(
      `process.stderr.write(${JSON.stringify(`${logged}more\n`)}, () => process.kill(process.pid, "SIGSEGV"))`,
    );
    expect(await tryDevice(request, { program })).toEqual({
      works: false,
      reason: "the native library crashed (SIGSEGV): libp.so: undefined symbol: cublasX",
    });
  });

  test("a library that ends the process, or does not answer, is one that does not work", async () => {
    const ends = child(`process.stderr.write("terminate called\\n", () => process.exit(7))`);
    expect(await tryDevice(request, { program: ends })).toEqual({
      works: false,
      reason: "the native library crashed (exit code 7): terminate called",
    });
    const hangs = child("process.on('message', () => undefined)");
    expect(await tryDevice(request, { program: hangs, timeoutMs: 300 })).toEqual({
      works: false,
      reason: "no answer within 0.3 s",
    });
  });

  test("what was logged says more than what was thrown; wrong numbers are no result", async () => {
    const failed = { kind: "failed", message: "Failed to load shared library" };
    const answers = (reply: unknown, words = ""): string =>
      child(`process.on("message", () => process.stderr.write(${JSON.stringify(words)}, () =>
        process.send(${JSON.stringify(reply)})))`);
    expect(await tryDevice(request, { program: answers(failed, logged) })).toMatchObject({
      reason: "libp.so: undefined symbol: cublasX",
    });
    expect(await tryDevice(request, { program: answers(failed) })).toMatchObject({ reason: failed.message });
    expect(await tryDevice(request, { program: answers({ kind: "ran", difference: 0.3 }) })).toEqual({
      works: false,
      reason: "wrong results: they differ from the CPU's by 0.30",
    });
    expect(await tryDevice(request, { program: answers({ kind: "ran", difference: 1e-4 }) })).toEqual({
      works: true,
      difference: 1e-4,
    });
  });

  test("messages lose their source positions", () => {
    const webgpu =
      "/onnxruntime_src/core/webgpu_context.cc:136 onnxruntime::Initialize()::<lambda()> status == Success was false. " +
      "Failed to get a WebGPU adapter: No supported adapters";
    expect(plainWords(webgpu)).toBe("Failed to get a WebGPU adapter: No supported adapters");
  });

  test("failures whose cause is known come with advice", () => {
    const outdated = "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version";
    expect(explainFailure("cuda", outdated)).toEqual({
      what: outdated,
      how: [expect.stringMatching(/^update the NVIDIA driver/)],
    });
    expect(explainFailure("cuda", "CUDA failure 2")).toEqual({ what: "CUDA failure 2", how: [] });
    const adapter = "Failed to get a WebGPU adapter: No supported adapters";
    if (process.platform !== "linux") return;
    expect(explainFailure("webgpu", adapter)).toEqual({
      what: `no Vulkan driver found (${adapter})`,
      how: expect.arrayContaining([expect.stringContaining("apt install libvulkan1 libegl1 libgl1 libx11-6 libxext6")]),
    });
  });
});
