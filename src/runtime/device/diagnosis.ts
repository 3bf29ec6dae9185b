/** What the machine has and which devices work on it: what `indexcache doctor` shows. */
import { availableParallelism, cpus, totalmem } from "node:os";
import { join } from "node:path";
import process from "node:process";
import type { ComputeDevice, Device } from "../measurement.ts";
import { automaticDevice, checkDevice, type DeviceCheck } from "./device.ts";
import { askDriver, type GpuQuery } from "./gpu.ts";
import { availableMemory } from "./host-memory.ts";
import { builtVersion, runtimePackage } from "./native-libraries.ts";

interface Machine {
  node: string;
  /** As in `linux-x64`. */
  platform: string;
  /** Absent where the C library is another one. */
  glibc?: string;
  runtime: { package: string; native?: string };
  cores: number;
  processor: string;
  memory: { total: number; free: number };
}

export interface Diagnosis {
  machine: Machine;
  gpus: GpuQuery;
  checks: DeviceCheck[];
  /** What `--device auto` takes; absent where only some devices were looked at. */
  automatic?: ComputeDevice;
}

/** How long each device computes. */
const selfTestSeconds = 1;

/** Looks at every device, or at the CPU and the one that is asked for. */
export async function diagnose(wanted: Device): Promise<Diagnosis> {
  const gpus = await askDriver();
  const checks: DeviceCheck[] = [];
  // One after the other: devices that compute at the same time would each seem slower than they are.
  for (const device of devicesToCheck(wanted, gpus)) {
    checks.push(await checkDevice(device, gpus, { seconds: selfTestSeconds }));
  }
  const machine = await describeMachine();
  return { machine, gpus, checks, ...(wanted === "auto" ? { automatic: automaticDevice(checks) } : {}) };
}

function devicesToCheck(wanted: Device, { gpus }: GpuQuery): ComputeDevice[] {
  if (wanted === "cpu") return ["cpu"];
  if (wanted !== "auto") return ["cpu", wanted];
  const cuda = gpus.map(({ index }): ComputeDevice => `cuda:${index}`);
  return ["cpu", "webgpu", ...(cuda.length === 0 ? (["cuda"] as const) : cuda)];
}

async function describeMachine(): Promise<Machine> {
  const { version, libraries } = runtimePackage();
  const native = process.platform === "linux" ? await builtVersion(join(libraries, "libonnxruntime.so.1")) : undefined;
  const glibc = glibcVersion();
  return {
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    ...(glibc === undefined ? {} : { glibc }),
    runtime: { package: version, ...(native === undefined ? {} : { native }) },
    cores: availableParallelism(),
    processor: cpus()[0]?.model.trim() ?? "unknown",
    memory: memory(),
  };
}

function glibcVersion(): string | undefined {
  // Otherwise it looks up the names of the other ends of open connections.
  Object.assign(process.report, { excludeNetwork: true });
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  return report.header?.glibcVersionRuntime;
}

/** What the container allows where there is one. */
function memory(): Machine["memory"] {
  const limit = process.constrainedMemory();
  const total = limit > 0 ? Math.min(limit, totalmem()) : totalmem();
  return { total, free: Math.min(availableMemory(), total) };
}
