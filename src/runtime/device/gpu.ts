/** The GPUs of the machine, as the NVIDIA driver's own tool lists them. */
import { execFile } from "node:child_process";
import process from "node:process";
import { promisify } from "node:util";
import { z } from "zod";
import type { ComputeDevice } from "../measurement.ts";
import { cudaIndex } from "../session/execution-provider.ts";
import { hasLibrary } from "./native-libraries.ts";

export interface Gpu {
  /** N of `cuda:N`: the order of nvidia-smi, counted within CUDA_VISIBLE_DEVICES. */
  index: number;
  name: string;
  /** Bytes; 0 where the driver does not say (memory shared with the CPU). */
  memoryTotal: number;
  memoryFree: number;
  driver: string;
  computeCapability: string;
}

export interface GpuQuery {
  gpus: Gpu[];
  /** Is there an nvidia-smi? Containers may have a working driver without it. */
  hasTool: boolean;
  /** Why there are no GPUs, in a few words. */
  problem?: string;
}

/** The part of the driver that CUDA programs load. */
export const driverLibrary = "libcuda.so.1";

const fields = ["index", "name", "memory.total", "memory.free", "driver_version", "compute_cap", "uuid"];
/** A broken driver can leave nvidia-smi hanging; a GPU that sleeps takes it some seconds. */
const timeoutMs = 20_000;
const mebibyte = 2 ** 20;

const mebibytes = z.string().transform((text, context) => {
  if (/^\[.*\]$/.test(text)) return 0;
  if (/^\d+$/.test(text)) return Number(text) * mebibyte;
  context.addIssue("no number of MiB");
  return z.NEVER;
});

const rowSchema = z
  .tuple([z.string().regex(/^\d+$/), z.string().min(1), mebibytes, mebibytes, z.string(), z.string(), z.string()])
  .transform(([index, name, memoryTotal, memoryFree, driver, computeCapability, uuid]) => ({
    gpu: { index: Number(index), name, memoryTotal, memoryFree, driver, computeCapability },
    uuid,
  }));

type Row = z.infer<typeof rowSchema>;

/** The GPUs that CUDA may use here; none where there is no nvidia-smi or no working driver. */
export async function queryGpus(): Promise<Gpu[]> {
  return (await askDriver()).gpus;
}

/** The GPU that a device is, as far as the driver says. */
export async function gpuOf(device: ComputeDevice): Promise<Gpu | undefined> {
  return device === "cpu" ? undefined : (await queryGpus())[cudaIndex(device) ?? 0];
}

/** As `queryGpus`, with the reason where there are none. */
export async function askDriver(): Promise<GpuQuery> {
  let text: string;
  try {
    const args = [`--query-gpu=${fields.join()}`, "--format=csv,noheader,nounits"];
    text = (await promisify(execFile)("nvidia-smi", args, { timeout: timeoutMs })).stdout;
  } catch (error) {
    return explain(error);
  }
  const rows: Row[] = [];
  for (const line of text.split("\n").filter((line) => line.trim() !== "")) {
    const row = rowSchema.safeParse(line.split(",").map((cell) => cell.trim()));
    if (!row.success)
      return { gpus: [], hasTool: true, problem: `nvidia-smi wrote an unreadable line: ${line.trim()}` };
    rows.push(row.data);
  }
  if (rows.length === 0) return { gpus: [], hasTool: true, problem: "nvidia-smi shows no GPU" };
  const gpus = visible(rows, process.env.CUDA_VISIBLE_DEVICES);
  return gpus.length > 0
    ? { gpus, hasTool: true }
    : { gpus, hasTool: true, problem: "CUDA_VISIBLE_DEVICES hides every GPU" };
}

async function explain(error: unknown): Promise<GpuQuery> {
  const { code, killed, stdout, stderr } = error as {
    code?: unknown;
    killed?: boolean;
    stdout?: string;
    stderr?: string;
  };
  if (code === "ENOENT") {
    const problem = (await hasLibrary(driverLibrary))
      ? "nvidia-smi not found"
      : "no NVIDIA driver (nvidia-smi not found)";
    return { gpus: [], hasTool: false, problem };
  }
  if (killed === true) return { gpus: [], hasTool: true, problem: "nvidia-smi does not answer" };
  // It writes its complaints to stdout.
  const words = `${stdout ?? ""}\n${stderr ?? ""}`.split("\n").find((line) => line.trim() !== "");
  return { gpus: [], hasTool: true, problem: words?.trim() ?? `nvidia-smi failed (exit code ${String(code)})` };
}

/**
 * The GPUs that CUDA sees, numbered as CUDA numbers them: those of the list in its order, up to the first entry that is
 * none. Parts of a GPU (MIG) have ids that no row carries: then the rows stay as they are.
 */
function visible(rows: readonly Row[], list: string | undefined): Gpu[] {
  if (list === undefined || list.includes("MIG-")) return rows.map(({ gpu }) => gpu);
  const seen: Gpu[] = [];
  for (const entry of list.split(",").map((text) => text.trim())) {
    const row = rows.find(({ gpu, uuid }) =>
      entry.startsWith("GPU-") ? uuid.startsWith(entry) : entry === String(gpu.index),
    );
    if (row === undefined) break;
    seen.push({ ...row.gpu, index: seen.length });
  }
  return seen;
}
