/** What `doctor` prints: the machine, its devices, and how to get those that do not work. */
import { toolVersion } from "../base/version.ts";
import type { DeviceCheck } from "../runtime/device/device.ts";
import type { Diagnosis } from "../runtime/device/diagnosis.ts";
import type { Gpu } from "../runtime/device/gpu.ts";
import { cudaIndex } from "../runtime/session/execution-provider.ts";
import { formatBytes, formatCount } from "./quantities.ts";
import { formatFields, formatTable, left, right } from "./text-table.ts";

export type DoctorRecord = ReturnType<typeof doctorRecord>;

/** The `--json` form. */
export function doctorRecord({ machine, gpus, checks, automatic }: Diagnosis) {
  const { node, platform, glibc, runtime, processor, cores, memory } = machine;
  return {
    tool: { version: toolVersion },
    node: { version: node, platform, glibc: glibc ?? null },
    onnxruntime: { package: runtime.package, native: runtime.native ?? null },
    cpu: { model: processor, cores, memory_bytes: memory.total, free_memory_bytes: memory.free },
    gpus: gpus.gpus.map(({ index, name, memoryTotal, memoryFree, driver, computeCapability }) => ({
      index,
      name,
      memory_bytes: memoryTotal,
      free_memory_bytes: memoryFree,
      driver,
      compute_capability: computeCapability,
    })),
    /** Why there are none. */
    gpu_problem: gpus.problem ?? null,
    devices: checks.map(({ device, lacks, trial }) => ({
      device,
      available: lacks.length === 0,
      flops_per_second: trial?.flops ?? null,
      max_difference: trial?.difference ?? null,
      lacks,
    })),
    /** What `--device auto` takes; null where only some devices were looked at. */
    auto: automatic ?? null,
  };
}

export function formatDoctorReport(diagnosis: Diagnosis): string {
  const { gpus, checks, automatic } = diagnosis;
  const parts = [formatMachine(diagnosis), formatChecks(checks, gpus.gpus)];
  if (automatic !== undefined) parts.push(`--device auto takes ${automatic}.`);
  return [...parts, ...checks.filter(({ lacks }) => lacks.length > 0).map(formatLacks)].join("\n\n");
}

function formatMachine({ machine, gpus }: Diagnosis): string {
  const { node, platform, glibc, runtime, processor, cores, memory } = machine;
  const native = runtime.native === undefined ? "" : `, native library ${runtime.native}`;
  const list = gpus.gpus.map((gpu) => ["GPU", describeGpu(gpu)] as const);
  return formatFields([
    ["indexcache", toolVersion],
    ["Node", `${node}, ${platform}${glibc === undefined ? "" : `, glibc ${glibc}`}`],
    ["ONNX Runtime", `onnxruntime-node ${runtime.package}${native}`],
    ["CPU", `${cores} cores, ${processor}`],
    ["Memory", `${formatBytes(memory.total)}, ${formatBytes(memory.free)} free`],
    ["GPU", gpus.problem],
    ...list,
  ]);
}

function describeGpu({ index, name, memoryTotal, memoryFree, driver, computeCapability }: Gpu): string {
  const memory = memoryTotal === 0 ? "shared memory" : `${formatBytes(memoryTotal)}, ${formatBytes(memoryFree)} free`;
  return `${index}: ${name}, ${memory}, compute capability ${computeCapability}, driver ${driver}`;
}

function formatChecks(checks: readonly DeviceCheck[], gpus: readonly Gpu[]): string {
  return formatTable(checks, [
    left("Device", ({ device }) => device),
    left("State", ({ lacks }) => (lacks.length === 0 ? "works" : "not available")),
    right("fp32 GFLOP/s", ({ trial }) => (trial?.flops === undefined ? "-" : formatCount(trial.flops / 1e9))),
    // The CPU is what the others are compared with.
    right("Max diff to CPU", ({ trial }) => trial?.difference?.toExponential(1) ?? "-"),
    left("", ({ device }) => gpus.find(({ index }) => index === cudaIndex(device))?.name ?? ""),
  ]);
}

function formatLacks({ device, lacks }: DeviceCheck): string {
  const lines = lacks.flatMap(({ what, how }) => [`  ${what}`, ...how.map((line) => `    ${line}`)]);
  return [`${device} is not available:`, ...lines].join("\n");
}
