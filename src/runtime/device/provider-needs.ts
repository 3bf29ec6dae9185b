/** What an execution provider lacks on this machine, and how to get it. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import type { ComputeDevice } from "../measurement.ts";
import { cudaIndex } from "../session/execution-provider.ts";
import { driverLibrary, type GpuQuery } from "./gpu.ts";
import { askLoader, builtVersion, hasLibrary, type RuntimePackage } from "./native-libraries.ts";

/** Something without which a device cannot be used. */
export interface Lack {
  /** A part of a sentence: what is missing or wrong. */
  what: string;
  /** What to do about it, a command or a remark a line. */
  how: string[];
}

const sharedLibrary = "libonnxruntime_providers_shared.so";
const cudaLibrary = "libonnxruntime_providers_cuda.so";
const vulkanLibrary = "libvulkan.so.1";

/** NVIDIA's Vulkan driver is a part of its OpenGL library, which loads these and says nothing where one is missing. */
const installVulkan = [
  "Debian, Ubuntu: apt install libvulkan1 libegl1 libgl1 libx11-6 libxext6",
  "and the Vulkan driver of the GPU; in a container: -e NVIDIA_DRIVER_CAPABILITIES=graphics,compute,utility",
];

/** The pip packages that carry CUDA libraries, by how the libraries' names begin. */
const pipPackages: readonly (readonly [library: string, name: string])[] = [
  ["libcublas", "nvidia-cublas"],
  ["libcurand", "nvidia-curand"],
  ["libcudart", "nvidia-cuda-runtime"],
  ["libcufft", "nvidia-cufft"],
  ["libnvJitLink", "nvidia-nvjitlink"],
  ["libnvrtc", "nvidia-cuda-nvrtc"],
];

/** As pip lays them out: `nvidia/cu13/lib`, before that `nvidia/cublas/lib`. */
const exportPipFolders = `export LD_LIBRARY_PATH=$(python3 -c "import glob, nvidia; \
print(':'.join(f for p in nvidia.__path__ for f in glob.glob(p + '/*/lib')))")\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}`;

/** What can be known to be missing before a session is tried. */
export async function lacksOf(device: ComputeDevice, query: GpuQuery, runtime: RuntimePackage): Promise<Lack[]> {
  if (device === "webgpu" && process.platform === "linux" && !(await hasLibrary(vulkanLibrary))) {
    return [{ what: `${vulkanLibrary} not found`, how: installVulkan }];
  }
  const index = cudaIndex(device);
  if (index === undefined) return [];
  if (process.platform !== "linux" || process.arch !== "x64") {
    return [{ what: `onnxruntime-node has no CUDA provider for ${process.platform}-${process.arch}`, how: [] }];
  }
  const libraries = await libraryLacks(runtime);
  const driver = libraries.needsDriver ?? !(await hasLibrary(driverLibrary));
  return [...driverLacks(index, driver, query), ...libraries.lacks];
}

function driverLacks(index: number, missing: boolean, { gpus, hasTool, problem }: GpuQuery): Lack[] {
  if (!hasTool && missing) {
    return [
      { what: `no NVIDIA driver (nvidia-smi and ${driverLibrary} not found)`, how: ["install the NVIDIA driver"] },
    ];
  }
  if (hasTool && problem !== undefined) return [{ what: problem, how: [] }];
  if (missing) {
    const how = ["in a container: docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility"];
    return [{ what: `${driverLibrary} of the NVIDIA driver not found`, how }];
  }
  if (hasTool && index >= gpus.length) {
    const range = gpus.length === 1 ? "cuda:0" : `cuda:0 to cuda:${gpus.length - 1}`;
    return [{ what: `there is no GPU ${index}`, how: [`this machine has ${range}`] }];
  }
  return [];
}

/** The provider's libraries and theirs. `needsDriver` is undefined where the loader could not be asked. */
async function libraryLacks(runtime: RuntimePackage): Promise<{ lacks: Lack[]; needsDriver?: boolean }> {
  const absent = [sharedLibrary, cudaLibrary].filter((name) => !existsSync(join(runtime.libraries, name)));
  if (absent.length > 0) {
    const what = `${absent.join(" and ")} not in ${runtime.libraries}`;
    return { lacks: [{ what, how: getProviderLibraries(runtime) }] };
  }
  const missing = new Set<string>();
  let needsDriver = false;
  for (const name of [sharedLibrary, cudaLibrary]) {
    const file = join(runtime.libraries, name);
    const view = await askLoader(file);
    if (view === undefined) return { lacks: [] };
    if (view.foreign) {
      const what = `${name} is no library for ${process.platform}-${process.arch}`;
      return { lacks: [{ what, how: getProviderLibraries(runtime) }] };
    }
    if (view.outdated.length > 0) {
      const what = `${name} needs ${view.outdated.join(", ")}`;
      const system = view.outdated.some((version) => /^(GLIBC|CXXABI)/.test(version));
      return { lacks: [{ what, how: system ? ["use a newer release of the operating system"] : [] }] };
    }
    // Before what it needs: the libraries of another version are the wrong ones to install.
    const version = await builtVersion(file);
    if (version !== undefined && version !== runtime.version) {
      const what = `${name} is of version ${version} and onnxruntime-node of ${runtime.version}`;
      return { lacks: [{ what, how: getProviderLibraries(runtime) }] };
    }
    for (const library of view.missing) missing.add(library);
    needsDriver ||= view.missing.includes(driverLibrary);
  }
  missing.delete(driverLibrary);
  const names = [...missing];
  const lacks = names.length === 0 ? [] : [{ what: `${names.join(", ")} not found`, how: getCudaLibraries(names) }];
  return { lacks, needsDriver };
}

/** What a failed trial means, if that can be determined. */
export function explainFailure(device: ComputeDevice, reason: string): Lack {
  if (device === "webgpu" && process.platform === "linux" && /adapter|vulkan|vkCreate/i.test(reason)) {
    return { what: `no Vulkan driver found (${reason})`, how: installVulkan };
  }
  const known = failures.find(([words]) => words.test(reason));
  return { what: reason, how: known === undefined ? [] : [known[1]] };
}

const failures: readonly (readonly [words: RegExp, how: string])[] = [
  [/driver version is insufficient/i, "update the NVIDIA driver: CUDA 13 needs 580 or later, CUDA 12 525"],
  [/invalid device ordinal/i, "use --device cuda:0"],
  [/undefined symbol: cu\w+/, "the CUDA libraries that are found first are of another version; see LD_LIBRARY_PATH"],
];

function getProviderLibraries({ root, version, libraries }: RuntimePackage): string[] {
  return [
    `ONNXRUNTIME_NODE_INSTALL=true node ${quote(join(root, "script", "install.js"))}`,
    "without a way to NuGet, out of the wheel of the same version:",
    `pip download --no-deps onnxruntime-gpu==${version}`,
    `unzip -j onnxruntime_gpu-${version}-*.whl '*/${sharedLibrary}' '*/${cudaLibrary}' -d ${quote(libraries)}`,
  ];
}

function getCudaLibraries(missing: readonly string[]): string[] {
  const major = missing.map((name) => /^lib(?:cublas|cudart)\w*\.so\.(\d+)/.exec(name)?.[1]).find(Boolean);
  const toolkit = `install the CUDA ${major === undefined ? "" : `${major} `}toolkit`;
  const packages = new Set<string>();
  for (const library of missing) {
    const name = pipPackages.find(([beginning]) => library.startsWith(beginning))?.[1];
    const version = /\.so\.(\d+)/.exec(library)?.[1];
    if (name === undefined || version === undefined) return [toolkit];
    // Before CUDA 13 the packages carried its number in their names.
    packages.add(major === "12" ? `${name}-cu12` : `'${name}==${version}.*'`);
  }
  return [`${toolkit}, or, before node is started:`, `pip install ${[...packages].join(" ")}`, exportPipFolders];
}

/** A path as a POSIX shell takes it. */
function quote(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
}
